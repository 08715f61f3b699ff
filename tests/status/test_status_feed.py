"""Who looks every two seconds: for the chart always, for pages where there are any."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from looking import Looked, Remembered, accepted

from smtpmaild.status import feed
from smtpmaild.status.minutes import Minutes


class Told:
    """Stands in for open pages."""

    def __init__(self, subscribers: int) -> None:
        self.subscribers = subscribers
        self.events: list[tuple[str, object]] = []

    def send(self, event: str, data: object) -> None:
        self.events.append((event, data))


def looks(looked: Looked, told: Told, times: int = 1) -> None:
    looked.feed._broadcast = told  # type: ignore[assignment]

    async def main() -> None:
        for _ in range(times):
            await looked.feed.look()

    asyncio.run(main())


def test_without_pages_there_is_only_the_chart(tmp_path: Path) -> None:
    looked, told = Looked(tmp_path), Told(0)
    looks(looked, told)
    assert told.events == []
    assert len(looked.minutes.rows) == 1


def test_pages_are_told(tmp_path: Path) -> None:
    memory = Remembered(tmp_path)
    looked, told = Looked(tmp_path, memory=memory), Told(1)
    looks(looked, told)
    assert [name for name, _ in told.events] == ["overview", "minute"]
    accepted(memory, "Q1")
    looks(looked, told)
    assert [name for name, _ in told.events[2:]] == ["overview", "minute", "messages"]


def test_a_history_that_is_gone_is_told_once(tmp_path: Path) -> None:
    memory = Remembered(tmp_path, is_there=False)
    looked, told = Looked(tmp_path, memory=memory), Told(1)
    looks(looked, told, times=3)
    assert len(looked.log.named("history_unreadable")) == 1
    memory.is_there = True
    looks(looked, told)
    memory.is_there = False
    looks(looked, told)
    assert len(looked.log.named("history_unreadable")) == 2


def test_it_looks_for_ever_and_measures_how_late_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LOOK_SECONDS", 0.01)
    looked = Looked(tmp_path)
    looks_of = 0

    async def look() -> None:
        nonlocal looks_of
        looks_of += 1
        if looks_of == 1:
            raise LookupError("no desk today")

    monkeypatch.setattr(looked.feed, "look", look)

    async def main() -> None:
        looked.feed.start(asyncio.get_running_loop())
        async with asyncio.timeout(10):
            while looks_of < 3:
                await asyncio.sleep(0.005)
        await looked.feed.stop()

    asyncio.run(main())
    assert "no desk today" in str(looked.log.only("status_failed")["traceback"])
    assert looked.observer.lag >= 0.0
    assert len(Minutes(looked.ledger).rows) == 1


def test_what_never_began_can_be_stopped(tmp_path: Path) -> None:
    looked = Looked(tmp_path)
    asyncio.run(looked.feed.stop())
    assert len(looked.minutes.rows) == 1
