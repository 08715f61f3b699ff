"""The counters of a worker."""

from __future__ import annotations

import pytest

from smtpmaild.metrics import Metrics


def test_snapshot_keeps_the_moment() -> None:
    metrics = Metrics()
    metrics.messages_accepted += 2
    before = metrics.snapshot()
    metrics.messages_accepted += 1
    assert before["messages_accepted"] == 2
    assert metrics.snapshot()["messages_accepted"] == 3


def test_everything_starts_at_zero() -> None:
    snapshot = Metrics().snapshot()
    assert {"sessions_open", "bytes_received", "policy_errors"} <= snapshot.keys()
    assert set(snapshot.values()) == {0}


def test_a_misspelt_counter_is_an_error() -> None:
    with pytest.raises(AttributeError):
        Metrics().messages_acepted = 1  # type: ignore[attr-defined]
