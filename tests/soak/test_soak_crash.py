"""kill -9 at random moments, and other ends, under load: what was acknowledged is there, once and whole.

Nothing is ever seen in part. What a kill leaves in the page cache is not lost: test_soak_power_cut.py takes that too.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from real_daemon import PATIENCE, Load, RealDaemon, Shelves, is_alive, numbers, scaled, send_one, until

pytestmark = pytest.mark.soak


@pytest.mark.parametrize(("workers", "kills"), [(1, scaled(1, 20)), (2, scaled(2, 20))])
def test_kill_the_whole_daemon(tmp_path: Path, workers: int, kills: int) -> None:
    daemon, shelves, count = RealDaemon(tmp_path, workers=workers), Shelves(tmp_path), numbers()
    dice = random.Random()
    accepted: set[int] = set()
    for _ in range(kills):
        with daemon:
            with Load(daemon, count) as load:
                load.wait_for_accepted(10)
                time.sleep(dice.uniform(0.0, 0.15))
                daemon.kill()
            accepted |= load.accepted
        assert not load.refused
        shelves.check(accepted)
    # What the kills left in tmp/ goes at a later start, and nothing else does.
    for path in shelves.leftovers():
        os.utime(path, (1, 1))
    with daemon:
        assert send_one(daemon.address).startswith("250 ")
        assert shelves.leftovers() == []
        daemon.assert_no_mistakes()


def test_kill_one_worker_of_two(tmp_path: Path) -> None:
    shelves = Shelves(tmp_path)
    with RealDaemon(tmp_path, workers=2) as daemon:
        with Load(daemon, numbers()) as load:
            for turn in range(1, scaled(1, 5) + 1):
                load.wait_for_accepted(20)
                victim, other = daemon.worker_pids()
                daemon.signal(signal.SIGKILL, victim)
                load.wait_for_accepted(20)  # the other one serves on
                assert daemon.wait_for("worker_died", turn)["worker"] == victim
                daemon.wait_for("worker_started", 2 + turn)
                until(lambda: len(daemon.worker_pids()) == 2, "a second worker")
                assert other in daemon.worker_pids()
        assert not load.refused
        shelves.check(load.accepted)
        daemon.assert_no_mistakes()


def test_kill_the_supervisor(tmp_path: Path) -> None:
    shelves = Shelves(tmp_path)
    with RealDaemon(tmp_path, workers=2) as daemon:
        workers = daemon.worker_pids()
        with Load(daemon, numbers()) as load:
            load.wait_for_accepted(20)
            daemon.signal(signal.SIGKILL, daemon.pid)
            # They finish what was begun, then they go: nobody would replace them, or tell them to stop.
            until(lambda: not any(map(is_alive, workers)), "the end of the workers")
        assert all(reply.startswith("421 ") for reply in load.refused.values())
        shelves.check(load.accepted, load.refused)
        assert shelves.leftovers() == []
        daemon.assert_no_mistakes()


@pytest.mark.parametrize("workers", [1, 2])
def test_reload_and_stop(tmp_path: Path, workers: int) -> None:
    shelves = Shelves(tmp_path)
    with RealDaemon(tmp_path, workers=workers) as daemon:
        with Load(daemon, numbers()) as load:
            for turn in range(1, scaled(1, 10) + 1):
                load.wait_for_accepted(20)
                daemon.signal(signal.SIGHUP, daemon.pid)
                daemon.wait_for("reloaded", turn)
            load.wait_for_accepted(20)
            assert not load.refused
            processes = daemon.pids()
            daemon.signal(signal.SIGTERM, daemon.pid)
            assert daemon.process is not None
            assert daemon.process.wait(PATIENCE) == 0
            assert not any(map(is_alive, processes))
        assert all(reply.startswith("421 ") for reply in load.refused.values())
        shelves.check(load.accepted, load.refused)
        assert shelves.leftovers() == []
        daemon.assert_no_mistakes()
