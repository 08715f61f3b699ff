"""Threads for what takes long: so many at a time, behind the loop, and gone at the end."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest
from house import run_loop

from smtpmaild.server.threads import Threads

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


@LOOPS
def test_results_and_exceptions_come_out(loop: str) -> None:
    threads = Threads(2, "test")

    def fail() -> None:
        raise ValueError("as it is")

    async def work() -> None:
        threads.start(asyncio.get_running_loop())
        assert await threads(lambda: threading.current_thread().name.startswith("test"))
        with pytest.raises(ValueError, match="as it is"):
            await threads(fail)
        await threads.stop()
        await threads.stop()

    run_loop(work(), loop)


@LOOPS
def test_so_many_at_a_time_while_the_loop_goes_on(loop: str) -> None:
    threads, running, most = Threads(2, "test"), [0], [0]

    def take_a_while() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.02)
        running[0] -= 1

    async def work() -> None:
        threads.start(asyncio.get_running_loop())
        waiting = asyncio.gather(*(threads(take_a_while) for _ in range(10)))
        turns = 0
        while not waiting.done():
            await asyncio.sleep(0.001)
            turns += 1
        await threads.stop()
        assert most[0] <= 2
        assert turns > 10

    run_loop(work(), loop)


def test_what_waits_at_the_end_is_dropped() -> None:
    threads, begun = Threads(1, "test"), threading.Event()
    ran = []

    def hold() -> None:
        begun.set()
        time.sleep(0.1)

    async def work() -> None:
        threads.start(asyncio.get_running_loop())
        first = asyncio.ensure_future(threads(hold))
        second = asyncio.ensure_future(threads(lambda: ran.append("second")))
        await asyncio.to_thread(begun.wait)
        before = time.monotonic()
        await threads.stop()
        assert time.monotonic() - before < 0.09  # nobody waits for the first
        await first
        with pytest.raises(asyncio.CancelledError):
            await second

    run_loop(work())
    assert ran == []


def test_threads_step_back_where_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    async def niceness() -> int:
        threads = Threads(1, "test")
        threads.start(asyncio.get_running_loop())
        try:
            return await threads(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        finally:
            await threads.stop()

    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert asyncio.run(niceness()) == 19

    def forbidden(which: int, who: int, priority: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    assert asyncio.run(niceness()) == ours
    assert os.getpriority(os.PRIO_PROCESS, 0) == ours
