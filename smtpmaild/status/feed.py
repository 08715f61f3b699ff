"""Looks at the daemon every two seconds: for the chart always, for open pages where there are any.

A companion of the attendant. How late it is called is the lag of the attendant's loop, which /livez tells.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from smtpmaild.facts import Log
from smtpmaild.status.messages import Messages
from smtpmaild.status.minutes import Minutes
from smtpmaild.status.observed import Observer, as_json
from smtpmaild.web.events import Broadcast

LOOK_SECONDS = 2.0
_DAY = 86400.0


class Feed:
    """messages: None where no history is kept."""

    def __init__(
        self,
        observer: Observer,
        minutes: Minutes,
        broadcast: Broadcast,
        messages: Messages | None,
        log: Log,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._observer = observer
        self._minutes = minutes
        self._broadcast = broadcast
        self._messages = messages
        self._log = log
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._is_history_there = True

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look."""
        self._tasks.append(loop.create_task(self._look_for_ever(loop)))
        if self._messages is not None and self._minutes.is_new:
            self._tasks.append(loop.create_task(self._recall(self._messages)))

    async def stop(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._minutes.note(self._clock(), self._observer.metrics())
        self._minutes.save()

    async def _look_for_ever(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            due = loop.time() + LOOK_SECONDS
            try:
                await self.look()
            except Exception:  # a bug; the next look may be better
                self._log.exception("status_failed")
            due = max(due, loop.time())
            await asyncio.sleep(due - loop.time())
            self._observer.lag = max(0.0, loop.time() - due)

    async def _recall(self, messages: Messages) -> None:
        """The last day, of which a daemon that has just begun has counted nothing."""
        try:
            self._minutes.put_before(await messages.minutes(self._clock() - _DAY))
        except OSError:
            pass  # no history yet; why it cannot be read is told when a page asks
        except Exception:  # a bug; the chart begins now
            self._log.exception("status_failed")

    async def look(self) -> None:
        """Once."""
        self._minutes.note(self._clock(), self._observer.metrics())
        if not self._broadcast.subscribers:
            return
        self._broadcast.send("overview", as_json(await self._observer.look()))
        self._broadcast.send("minute", self._minutes.rows[-1])
        if self._messages is not None:
            await self._tell_messages(self._messages)

    async def _tell_messages(self, messages: Messages) -> None:
        try:
            news = await messages.news()
            self._is_history_there = True
        except OSError as error:
            if self._is_history_there:
                self._log.warning("history_unreadable", cause=str(error))
            self._is_history_there = False
            return
        if news:
            self._broadcast.send("messages", news)
