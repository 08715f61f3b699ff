"""The counters of a worker: counted, written as JSON, added up."""

from __future__ import annotations

import json

import pytest

from smtpmaild.metrics import MOST_NAMES, OTHER, Histogram, Metrics, Tally
from smtpmaild.server.sums import added


def filled() -> Metrics:
    metrics = Metrics(messages_accepted=2)
    metrics.commit_seconds.observe(0.004)
    metrics.refusals.count("RCPT", "550 5.1.1", "local_domains.example.com")
    return metrics


def test_snapshot_keeps_the_moment() -> None:
    metrics = filled()
    before = metrics.snapshot()
    metrics.messages_accepted += 1
    metrics.commit_seconds.observe(0.004)
    metrics.refusals.count("RCPT", "550 5.1.1", "local_domains.example.com")
    assert before == filled().snapshot()
    assert metrics.snapshot()["messages_accepted"] == 3


def test_everything_starts_at_nothing() -> None:
    snapshot = Metrics().snapshot()
    assert {"sessions_open", "bytes_received", "policy_errors"} <= snapshot.keys()
    assert {one for one in snapshot.values() if isinstance(one, int)} == {0}
    assert snapshot["refusals"] == {}
    assert sum(snapshot["session_seconds"]["counts"]) == 0


def test_a_misspelt_counter_is_an_error() -> None:
    with pytest.raises(AttributeError):
        Metrics().messages_acepted = 1  # type: ignore[attr-defined]


def test_counters_never_go_down() -> None:
    assert Metrics().snapshot().keys() - Metrics().counters().keys() == {"sessions_open"}


def test_the_sums_of_workers_are_those_of_metrics() -> None:
    sums = added(filled().counters(), filled().counters())
    assert sums["refusals"] == {"RCPT": {"550 5.1.1": {"local_domains.example.com": 2}}}
    total = Metrics()
    total.add(sums)
    assert total.counters() == sums


def test_snapshots_add_up_as_json() -> None:
    written = json.loads(json.dumps(filled().snapshot()))
    total = Metrics()
    total.add(written)
    assert total.snapshot() == filled().snapshot()
    total.add(written)
    assert total.messages_accepted == 4
    assert total.refusals.names == {("RCPT", "550 5.1.1", "local_domains.example.com"): 2}
    assert total.commit_seconds.total == 0.008


def test_another_version_adds_what_both_know() -> None:
    total = filled()
    total.add({"messages_accepted": 1, "unheard_of": 5, "commit_seconds": {"counts": [1, 2], "total": 9.0}})
    assert total.messages_accepted == 3
    assert total.commit_seconds.total == 0.004


@pytest.mark.parametrize(
    ("value", "place"),
    [(-1.0, 0), (0.0, 0), (1.0, 0), (1.0001, 1), (2.0, 1), (99.0, 2)],  # a bound belongs to what is below it
)
def test_histogram(value: float, place: int) -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(value)
    assert histogram.counts.index(1) == place
    assert histogram.total == value


def test_tally_is_bounded() -> None:
    tally = Tally()
    for number in range(MOST_NAMES + 3):
        tally.count("RCPT", str(number))
    tally.count("RCPT", "0")
    assert len(tally.names) == MOST_NAMES + 1
    assert tally.names["RCPT", "0"] == 2
    assert tally.names[OTHER, OTHER] == 3
