"""Alive and ready: what is wrong, in words, and to whom it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from attending import post
from looking import AT, Looked
from queueing import NOW, entry

from smtpmaild.control.desk import Store
from smtpmaild.server.house import Reload
from smtpmaild.status.health import Check, live, ready, told


def troubles(checks: Sequence[Check]) -> dict[str, str]:
    return {check.name: check.trouble for check in checks if check.trouble}


def ready_checks(looked: Looked) -> list[Check]:
    return ready(asyncio.run(looked.observer.look()), looked.observer.queue_limits)


def test_all_is_well(tmp_path: Path) -> None:
    looked = Looked(tmp_path)
    assert troubles(live(0.0, looked.desk.workers(), AT)) == {}
    assert troubles(ready_checks(looked)) == {}


@pytest.mark.parametrize(
    ("lag", "worker_lag", "now", "expected"),
    [
        (12.0, 0.0, AT, {"attendant": "the event loop is 12 s late"}),
        (0.0, 11.0, AT, {"worker 0": "the event loop is 11 s late"}),
        (0.0, 0.0, NOW + 30, {"worker 0": "silent for 30 s", "worker 1": "silent for 30 s"}),
        (9.0, 9.0, NOW + 9, {}),
    ],
)
def test_loops_that_hang(tmp_path: Path, lag: float, worker_lag: float, now: float, expected: dict[str, str]) -> None:
    looked = Looked(tmp_path)
    looked.staged.pulse(1, lag=worker_lag)
    assert troubles(live(lag, looked.desk.workers(), now)) == expected


def test_workers_that_come_or_go_are_not_waited_for(tmp_path: Path) -> None:
    looked = Looked(tmp_path)
    looked.staged.state(post(1), post(3, is_ready=False), post(4, is_retiring=True))
    assert [check.name for check in live(0.0, looked.desk.workers(), NOW + 5)] == ["attendant", "worker 0"]


def test_a_worker_that_never_gave_a_pulse_is_silent_since_its_start(tmp_path: Path) -> None:
    looked = Looked(tmp_path)
    looked.staged.state(post(7, number=0))
    assert troubles(live(0.0, looked.desk.workers(), NOW + 11)) == {"worker 0": "silent for 11 s"}


def test_not_ready(tmp_path: Path) -> None:
    stores = [Store("mail", "maildir", str(tmp_path), lambda: "Read-only file system")]
    looked = Looked(tmp_path, entry("a@b.example"), stores=stores, limits=(1, 0))
    looked.staged.state(post(1), is_stopping=True)
    assert troubles(ready_checks(looked)) == {
        "workers": "draining",
        "store mail": "Read-only file system",
        "room in the queue": "1 messages of 1",
    }


def test_the_queue_may_be_full_of_bytes(tmp_path: Path) -> None:
    looked = Looked(tmp_path, entry("a@b.example"), limits=(0, 1))
    assert "of 1" in troubles(ready_checks(looked))["room in the queue"]


def test_a_refused_reload_is_a_remark(tmp_path: Path) -> None:
    looked = Looked(tmp_path)
    looked.reload_was(Reload(1, AT, is_good=False, cause="smtp.yaml:3: no"))
    checks = ready_checks(looked)
    assert troubles(checks) == {}
    assert "the last reload was refused" in checks[0].remark


@pytest.mark.parametrize(
    ("in_detail", "expected"),
    [
        (True, "ok: workers\nfailed: store mail (disk full)\nok: attendant (lag 1 s)\n"),
        (False, "failed: store mail\n"),
    ],
)
def test_words(in_detail: bool, expected: str) -> None:
    checks = [Check("workers"), Check("store mail", "disk full"), Check("attendant", remark="lag 1 s")]
    assert told(checks, in_detail=in_detail) == (503, expected)
    assert told(checks[:1], in_detail=in_detail) == (200, "ok: workers\n" if in_detail else "ok\n")
