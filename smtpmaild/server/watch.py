"""Looks every few seconds whether files have changed, for whoever keeps what is in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from smtpmaild.facts import Log

_SECONDS = 5.0


class Watch:
    """look: called in a thread, again and again while a plan is served."""

    def __init__(self, look: Callable[[], object], log: Log, seconds: float = _SECONDS) -> None:
        self._look = look
        self._log = log
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Before the first connection."""
        self._task = loop.create_task(self._watch())

    async def stop(self) -> None:
        """After the last connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await asyncio.to_thread(self._look)
            except Exception:  # a bug; what was read before is still there
                self._log.exception("watch_failed")
