"""What Prometheus reads, read by the parsers of Prometheus' own library, in both formats."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from looking import AT, Looked
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from queueing import NOW, entry

from smtpmaild import __version__
from smtpmaild.queue import State
from smtpmaild.server.house import Reload
from smtpmaild.status.exposition import PREFIX, Exposition, exposed
from smtpmaild.status.observed import Observed

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
#: What a label may be called. Nothing that names a person, a domain of others or a client.
LABELS = {
    *("class", "code", "le", "listener", "policy", "python", "result", "route", "state", "store", "verb", "version"),
    *("worker", "certificate"),
}


def observed(looked: Looked) -> Observed:
    return asyncio.run(looked.observer.look())


def families(looked: Looked) -> dict[str, Metric]:
    text, _ = exposed(observed(looked), OPENMETRICS)
    return {one.name: one for one in parse_openmetrics(text.decode())}  # type: ignore[no-untyped-call]


@pytest.fixture
def looked(tmp_path: Path) -> Looked:
    return Looked(tmp_path, entry("b@y.example", state=State.HELD), entry("c@z.example", "d@z.example"))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ],
)
def test_both_formats_say_the_same(looked: Looked, accept: str, content_type: str) -> None:
    text, found = exposed(observed(looked), accept)
    assert found.startswith(content_type)
    parse: Callable[[str], Iterable[Metric]] = parse_openmetrics if "openmetrics" in accept else parse_text
    names = {one.name.removesuffix("_info") for one in parse(text.decode())}
    assert names == {one.name for one in Exposition(observed(looked)).collect()}


def samples(looked: Looked) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in families(looked).values():
        yield from ((one.name, one.labels, one.value) for one in family.samples)


def test_names_and_labels_keep_the_rules(looked: Looked) -> None:
    for family in families(looked).values():
        assert re.fullmatch(PREFIX + r"[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation.endswith(".")
        assert family.type != "unknown"
        for sample in family.samples:
            assert set(sample.labels) <= LABELS


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("build_info", {"version": __version__}, 1),
        ("messages_total", {"listener": "mx", "result": "accepted"}, 120),
        ("recipients_total", {"result": "refused"}, 41),
        # the rule's place in the file is no label: an edit would make a new series
        ("refusals_total", {"verb": "RCPT", "code": "550 5.1.1", "policy": "local_domains.example.com"}, 32),
        ("refusals_total", {"verb": "other", "code": "500 5.5.2", "policy": ""}, 5),
        ("monitored_verdicts_total", {"policy": "helo_syntax", "class": "5yz"}, 1),
        ("deliveries_total", {"route": "relay:smarthost", "result": "bounced"}, 1),
        ("commit_duration_seconds_bucket", {"le": "0.0025"}, 0),
        ("commit_duration_seconds_bucket", {"le": "0.005"}, 120),
        ("commit_duration_seconds_count", {}, 120),
        ("sessions", {"listener": "mx"}, 3),
        ("workers", {"state": "serving"}, 2),
        ("worker_lag_seconds", {"worker": "0"}, 0.002),
        ("worker_message_memory_bytes", {"worker": "1"}, 4096),
        ("queue_recipients", {"state": "held"}, 1),
        ("queue_recipients", {"state": "queued"}, 2),
        ("queue_destinations", {}, 2),
        ("store_writable", {"store": "mail"}, 1),
        ("certificate_end_time_seconds", {"certificate": "mx.example, mail.example"}, NOW + 60 * 86400),
        ("config_good", {}, 1),
    ],
)
def test_values(looked: Looked, name: str, labels: dict[str, str], value: float) -> None:
    found = [one for one in samples(looked) if one[0] == PREFIX + name and labels.items() <= one[1].items()]
    assert [one[2] for one in found] == [value]


def test_buckets_end_with_all(looked: Looked) -> None:
    histogram = families(looked)["smtpmaild_session_duration_seconds"]
    buckets = [one for one in histogram.samples if one.name.endswith("_bucket")]
    assert buckets[-1].labels["le"] == "+Inf"
    assert [one.value for one in buckets] == sorted(one.value for one in buckets)


def test_what_is_unknown_has_no_line(looked: Looked) -> None:
    found = observed(looked)
    found.stores[0]["free"] = found.stores[0]["total"] = None
    found.summary["queue"] = None
    text = exposed(found, "")[0].decode()
    assert "smtpmaild_store_free_bytes{" not in text
    assert "smtpmaild_queue" not in text


def test_refused_reload_shows(looked: Looked) -> None:
    looked.reload_was(Reload(1, AT, is_good=False, cause="smtp.yaml:3"))
    assert next(one[2] for one in samples(looked) if one[0] == "smtpmaild_config_good") == 0


@pytest.mark.parametrize(
    "accept", ["text/plain;version=x", f"{OPENMETRICS}.\u00ff", "application/openmetrics-text;version=.."]
)
def test_whatever_is_accepted_there_is_an_answer(tmp_path: Path, accept: str) -> None:
    text, content_type = exposed(observed(Looked(tmp_path)), accept)
    assert content_type.startswith("text/plain")
    assert text.startswith(b"# HELP ")
