"""Looking again and again, in a thread, until the plan is over."""

from __future__ import annotations

import asyncio
import threading

from house import Facts, run_loop, until

from smtpmaild.server.watch import Watch


def test_looks_until_it_is_stopped() -> None:
    threads: list[threading.Thread] = []

    async def go() -> None:
        watch = Watch(lambda: threads.append(threading.current_thread()), Facts(), seconds=0.001)
        watch.start(asyncio.get_running_loop())
        await until(lambda: len(threads) >= 3)
        await watch.stop()
        seen = len(threads)
        await asyncio.sleep(0.02)
        assert len(threads) <= seen + 1  # the one that was looking

    run_loop(go())
    assert threading.main_thread() not in threads


def test_a_failure_is_logged_and_it_looks_on() -> None:
    facts = Facts()

    def look() -> None:
        raise ValueError("no eyes")

    async def go() -> None:
        watch = Watch(look, facts, seconds=0.001)
        watch.start(asyncio.get_running_loop())
        await until(lambda: len(facts.all) >= 2)
        await watch.stop()

    run_loop(go())
    assert "no eyes" in str(facts.named("watch_failed")[0]["traceback"])


def test_stopped_before_it_was_started() -> None:
    run_loop(Watch(lambda: None, Facts()).stop())
