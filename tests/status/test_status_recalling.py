"""The chart after a restart: what the history tells is what the counters had said."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from looking import AT, DAY, Looked, Remembered
from remembering import Told, attempt, id_of, message, refusal, session

from smtpmaild.status import recalling
from smtpmaild.status.minutes import COLUMNS, MINUTE, Minutes
from smtpmaild.status.recalling import recalled

NOW = AT // MINUTE * MINUTE
LATER = {**refusal("x@later.example"), "reply": "450 4.7.1 Later"}
TOLD: list[Told] = [
    message(id_of(1), at=NOW - DAY - 100),  # the day before
    message(id_of(2), at=NOW - 3600),
    message(id_of(3), at=NOW - 3599, name="message_refused"),
    message(id_of(4), at=NOW - 3598, name="message_deferred", size=4),
    session(id_of(0), at=NOW - 3597, refusals=[refusal("a@x.example"), LATER], refused_recipients=5),
    session(id_of(5), at=NOW - 3596, refusals=[{**LATER, "command": "MAIL"}], refused_recipients=0),
    (NOW - 3595, "reloaded", {}, None),
    attempt(id_of(2), at=NOW - 120),
    attempt(id_of(2), "deferred", at=NOW - 119),
    attempt(id_of(2), "bounced", at=NOW - 118),
    attempt(id_of(2), "expired", at=NOW - 117),
]


@pytest.fixture
def memory(tmp_path: Path) -> Remembered:
    memory = Remembered(tmp_path / "history")
    memory.tell(*TOLD)
    return memory


def by_name(row: list[int]) -> dict[str, int]:
    return {name: value for name, value in zip(("minute", *COLUMNS), row, strict=True) if value}


def test_a_day_is_recalled(memory: Remembered) -> None:
    hour_ago, now = int(NOW - 3600) // MINUTE, int(NOW - 120) // MINUTE
    assert [by_name(row) for row in recalled(memory.read, NOW - DAY)] == [
        {"minute": hour_ago, "accepted": 1, "refused": 1 + 4, "deferred": 1 + 1, "sessions": 2, "bytes": 8196},
        {"minute": now, "delivered": 1, "failed": 2},
    ]


def test_only_so_much_is_read(memory: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalling, "MOST_EVENTS", 5)
    assert [by_name(row)["minute"] for row in recalled(memory.read, NOW - DAY)] == [int(NOW - 120) // MINUTE]


def started(looked: Looked) -> list[int]:
    """The minutes of the ring, after a start of the feed."""

    async def main() -> None:
        looked.feed._clock = lambda: NOW
        looked.feed.start(asyncio.get_running_loop())
        await asyncio.gather(*looked.feed._tasks[1:])
        await looked.feed.stop()

    asyncio.run(main())
    return [row[0] for row in looked.minutes.rows]


def test_the_ring_begins_with_it(tmp_path: Path, memory: Remembered) -> None:
    now = int(NOW) // MINUTE
    looked = Looked(tmp_path, memory=memory)
    assert started(looked) == [now - 60, now - 2, now]
    again = Looked(tmp_path / "again", memory=memory)
    again.minutes = again.feed._minutes = Minutes(looked.ledger)
    assert not again.minutes.is_new
    assert started(again) == [now - 60, now - 2, now], "a reload asks for nothing again"


def test_what_is_counted_is_not_recalled(tmp_path: Path, memory: Remembered) -> None:
    looked = Looked(tmp_path, memory=memory)
    looked.minutes.note(NOW - 120, looked.observer.metrics())
    assert started(looked) == [int(NOW) // MINUTE - one for one in (60, 2, 0)]
    assert by_name(looked.minutes.rows[1]) == {"minute": int(NOW) // MINUTE - 2}


def test_without_a_history_it_begins_now(tmp_path: Path) -> None:
    memory = Remembered(tmp_path / "history", is_there=False)
    looked = Looked(tmp_path, memory=memory)
    assert started(looked) == [int(NOW) // MINUTE]
    assert looked.log.facts == []
