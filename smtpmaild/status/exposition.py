"""What is known of the daemon as the text that Prometheus reads: the table of metrics.

Names follow the rules of Prometheus: base units, counters that end in _total, one prefix. Labels have few values, all
from the configuration or from tables of ours: a listener, a verb, a reply code, a rule, a route, a store. Never an
address, a domain of the other side or a client. The exposition formats are those of prometheus-client, by the Accept
header: Prometheus text or OpenMetrics.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from smtpmaild.metrics import Histogram, Metrics, Tally
from smtpmaild.status.observed import Observed

PREFIX = "smtpmaild_"


@dataclass(frozen=True, slots=True)
class _Count:
    """A counter of plain numbers. fields: label value -> field of Metrics; without a label the one of ""."""

    name: str
    help: str
    fields: Mapping[str, str]
    label: str = ""


@dataclass(frozen=True, slots=True)
class _Tally:
    """A counter of a tally, a label for each part of its names."""

    name: str
    help: str
    field: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Times:
    """A histogram."""

    name: str
    help: str
    field: str


def _results(stem: str, *results: str) -> Mapping[str, str]:
    return {result: f"{stem}_{result}" for result in results}


_COUNTS = (
    _Count("sessions_opened", "Sessions that began.", {"": "sessions_opened"}),
    _Count("sessions_refused", "Sessions turned away at the door, by a limit or a policy.", {"": "sessions_refused"}),
    _Count("sessions_timed_out", "Sessions ended by a timeout.", {"": "sessions_timed_out"}),
    _Count("proxies_refused", "Connections without the PROXY header that is due.", {"": "proxies_refused"}),
    _Count(
        "recipients",
        "Recipients, by the reply to RCPT.",
        _results("recipients", "accepted", "refused", "deferred"),
        "result",
    ),
    _Count("received_bytes", "Bytes of messages, without dot-stuffing.", {"": "bytes_received"}),
    _Count("policy_errors", "Exceptions raised by policies; each deferred a client.", {"": "policy_errors"}),
    _Count(
        "tls_handshakes",
        "TLS handshakes; failed ones include clients that went away.",
        {"finished": "tls_handshakes", "failed": "tls_handshakes_failed"},
        "result",
    ),
    _Count(
        "authentications", "Sign-ins, by their result.", _results("authentications", "accepted", "refused"), "result"
    ),
    _Count("reports", "Delivery status notifications put into the queue.", {"": "reports_made"}),
)
_TALLIES = (
    _Tally("sessions_closed", "Sessions that ended, by listener.", "sessions_by_listener", ("listener",)),
    _Tally(
        "messages",
        "Messages, by listener and the reply to their end.",
        "messages_by_listener",
        ("listener", "result"),
    ),
    _Tally(
        "refusals",
        "Replies 4yz and 5yz, by verb, reply code and the rule or policy that decided.",
        "refusals",
        ("verb", "code", "policy"),
    ),
    _Tally(
        "monitored_verdicts",
        "What policies in mode monitor would have replied, by the first digit.",
        "monitored",
        ("policy", "class"),
    ),
    _Tally(
        "deliveries",
        "Recipients of the queue whose attempt ended, by route and result.",
        "deliveries",
        ("route", "result"),
    ),
)
_TIMES = (
    _Times("session_duration_seconds", "From connect to the end of a session.", "session_seconds"),
    _Times("commit_duration_seconds", "From the end of a message to the reply that it is durable.", "commit_seconds"),
    _Times("delivery_delay_seconds", "Age of a message when one of its recipients was delivered.", "delivery_seconds"),
)
#: The place in the file behind the name of a rule: it would make a new series of it with every edit.
_PLACE = re.compile(r" \([^()]*:\d+\)$")
#: Which states of workers, messages and so on have a line even while nothing is in them.
_WORKER_STATES = ("serving", "starting", "retiring", "draining", "silent")
_QUEUE_STATES = ("queued", "in delivery", "deferred", "held")


_NO_VERSION = re.compile(r"version=(?!\d{1,3}\.\d{1,3}\.\d{1,3}(?:[;,\s]|\Z))", re.ASCII)


def exposed(observed: Observed, accept: str) -> tuple[bytes, str]:
    """(the text, its content type) for a client that accepts this."""
    # prometheus-client raises for a version that is none, or answers with it.
    encode, content_type = choose_encoder("" if _NO_VERSION.search(accept) else accept)
    return encode(Exposition(observed)), content_type


class Exposition(Collector):
    """All metrics of one moment."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        """What prometheus-client asks for."""
        observed = self._observed
        version = {"version": observed.summary["version"], "python": platform.python_version()}
        yield InfoMetricFamily(PREFIX + "build", "What runs here.", value=version)
        yield from _counters(observed.metrics)
        yield from _daemon(observed)
        yield from _queue(observed)
        yield from _stores(observed)


def _counters(metrics: Metrics) -> Iterator[Metric]:
    for count in _COUNTS:
        family = CounterMetricFamily(PREFIX + count.name, count.help, labels=[count.label] if count.label else [])
        for value, field in count.fields.items():
            family.add_metric([value] if count.label else [], getattr(metrics, field))
        yield family
    for row in _TALLIES:
        yield _tally(row, getattr(metrics, row.field))
    for times in _TIMES:
        yield _histogram(times, getattr(metrics, times.field))


def _tally(row: _Tally, tally: Tally) -> Metric:
    family = CounterMetricFamily(PREFIX + row.name, row.help, labels=row.labels)
    sums: dict[tuple[str, ...], int] = {}
    for name, count in tally.names.items():
        labels = tuple(_PLACE.sub("", part) for part in name)
        sums[labels] = sums.get(labels, 0) + count
    for labels, count in sums.items():
        family.add_metric(labels, count)
    return family


def _histogram(times: _Times, histogram: Histogram) -> Metric:
    names = [*map(_number, histogram.bounds), "+Inf"]
    buckets = [*zip(names, map(float, accumulate(histogram.counts)), strict=True)]
    return HistogramMetricFamily(PREFIX + times.name, times.help, buckets=buckets, sum_value=histogram.total)


def _number(bound: float) -> str:
    return repr(float(bound))  # OpenMetrics wants 1.0, not 1


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _gauges(name: str, text: str, label: str, values: Iterable[tuple[str, float | None]]) -> Metric:
    """One for each value of a label; None is unknown, and has no line."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=[label])
    for value, number in values:
        if number is not None:
            family.add_metric([value], number)
    return family


def _daemon(observed: Observed) -> Iterator[Metric]:
    summary, workers = observed.summary, observed.summary["workers"]
    serving = [one for one in workers if not one["is_retiring"]]
    states = [one["state"] for one in workers]
    yield _gauge("start_time_seconds", "When the daemon began, since the epoch.", summary["started_at"])
    yield _gauge("draining", "1 while the daemon is ending.", bool(summary["is_stopping"]))
    yield _gauges(
        "workers", "Worker processes, by state.", "state", [(one, states.count(one)) for one in _WORKER_STATES]
    )
    yield CounterMetricFamily(PREFIX + "worker_deaths", "Workers that died and were replaced.", value=summary["deaths"])
    lags = [(str(one["number"]), one["lag"]) for one in serving]
    yield _gauges("worker_lag_seconds", "How late the event loop of a worker was last.", "worker", lags)
    memory = [(str(one["number"]), one["memory"]) for one in serving]
    yield _gauges("worker_message_memory_bytes", "Memory of messages in flight in a worker.", "worker", memory)
    yield _gauge("attendant_lag_seconds", "How late the event loop of the attendant was last.", observed.lag)
    open_sessions = [(one["name"], one["sessions"]) for one in summary["listeners"]]
    yield _gauges("sessions", "Sessions that are open, by listener.", "listener", open_sessions)
    reload = summary["reload"]
    yield _gauge("config_good", "0 where the last reload was refused.", reload is None or reload["is_good"])
    at = reload["at"] if reload is not None else summary["started_at"]
    yield _gauge("config_read_time_seconds", "When the configuration was last read, since the epoch.", at)


def _queue(observed: Observed) -> Iterator[Metric]:
    queue = observed.summary["queue"]
    if queue is None:
        return
    states = dict.fromkeys(_QUEUE_STATES, 0)
    for destination in observed.destinations:
        for state, count in destination["states"].items():
            states[state] = states.get(state, 0) + count
    yield _gauges("queue_recipients", "Recipients in the queue, by state.", "state", [*states.items()])
    yield _gauge("queue_bytes", "Size of what is in the queue, once for each destination.", queue["size"])
    yield _gauge("queue_destinations", "Destinations that mail waits for.", queue["destinations"])
    yield _gauge("queue_dead_destinations", "Destinations that do not answer.", queue["dead"])
    yield _gauge("queue_in_flight", "Deliveries that are under way.", queue["in_flight"])
    age = observed.at - queue["oldest"] if queue["oldest"] else 0.0
    yield _gauge("queue_oldest_age_seconds", "Age of the oldest message in the queue.", max(0.0, age))


def _stores(observed: Observed) -> Iterator[Metric]:
    stores = observed.stores
    writable = [(one["name"], not one["problem"]) for one in stores]
    yield _gauges("store_writable", "1 if a store can be written.", "store", writable)
    yield _gauges(
        "store_free_bytes", "Room on the disk of a store.", "store", [(one["name"], one["free"]) for one in stores]
    )
    sizes = [(one["name"], one["total"]) for one in stores]
    yield _gauges("store_size_bytes", "Size of the disk of a store.", "store", sizes)
    ends = [(", ".join(one["names"]) or one["path"], one["not_after"]) for one in observed.certificates]
    yield _gauges("certificate_end_time_seconds", "When a certificate ends, since the epoch.", "certificate", ends)
