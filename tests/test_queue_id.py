"""Queue ids: unique, in the order of time, and safe as file names."""

from __future__ import annotations

import time

import pytest

from smtpmaild import queue_id


def test_ids_are_unique_and_of_their_form() -> None:
    ids = [queue_id.make() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(map(queue_id.is_queue_id, ids))


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for nanoseconds in (0, 1_000, 1_795_359_641_000_000_000, 4_000_000_000_000_000_000):
        monkeypatch.setattr(time, "time_ns", lambda now=nanoseconds: now)
        ids.append(queue_id.make())
    assert ids == sorted(ids)
    assert all(map(queue_id.is_queue_id, ids))


def test_two_in_one_microsecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_359_641_000_000_000)
    first, second = queue_id.make(), queue_id.make()
    assert first[:13] == second[:13]
    assert first != second


def test_a_new_worker_counts_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_359_641_000_000_000)
    for start, end in ((b"\x00\x00\x00", "00000"), (b"\x0f\xff\xff", "FFFFF"), (b"\x12\x34\x56", "23456")):
        monkeypatch.setattr("os.urandom", lambda _size, octets=start: octets)
        queue_id.reseed()
        assert queue_id.make().endswith(end)
        if end == "FFFFF":
            assert queue_id.make().endswith("00000")  # the counter starts over


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0123456789ABCDEF0",  # too short
        "0123456789ABCDEF012",  # too long
        "0123456789abcdef01",  # small letters
        "0123456789ABCDEF0\n",
        "../../../etc/passw",
        "\N{ARABIC-INDIC DIGIT SEVEN}123456789ABCDEF01",  # digits, but not ours
    ],
)
def test_other_text_is_no_id(text: str) -> None:
    assert not queue_id.is_queue_id(text)
