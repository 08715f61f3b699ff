"""Threads for work that takes long and would stop the event loop: a password hash of 100 ms.

So many at the same time as given, the others wait in order; what is still waiting at the end is dropped. They step back
behind the loop: a session that only wants its next reply does not wait for passwords of others.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
#: The least that a thread can claim of a processor that others want too; an idle one it has whole. Beside a hundred
#: sessions that try passwords (bench/auth.py, 64 MiB hashes) the 99th percentile of a reply is 7 ms, without it 28.
_NICENESS = 19


class Threads:
    """A Companion. Between start() and stop() it can be called, in the loop's thread."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._executor: ThreadPoolExecutor | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """As the seam says. A thread begins when there is work for it."""
        self._executor = ThreadPoolExecutor(self._count, self._name, initializer=_step_back)

    async def stop(self) -> None:
        """As the seam says. What runs now runs on to its end, which nobody waits for."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    async def __call__(self, work: Callable[[], T], /) -> T:
        """What it returns; what it raises comes out."""
        assert self._executor is not None, "the plan starts its companions before its listeners"
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _step_back() -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    except OSError:  # a sandbox may forbid it; then the kernel shares the processors out evenly
        pass
