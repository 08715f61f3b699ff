"""The attendant as a process: it answers, it is replaced, and it ends last. One daemon for all of its life."""

from __future__ import annotations

import asyncio
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from house import PATIENCE, Facts, MemorySink, make_door, make_plan

from smtpmaild.control.client import ControlError, answer, ask
from smtpmaild.server import attending
from smtpmaild.server.attendant import serve_attendant
from smtpmaild.server.attending import Attending, _Child
from smtpmaild.server.house import House, Post, Reload, State, state_news
from smtpmaild.server.plan import AttendantPlan
from smtpmaild.server.pulse import Pulse, pulse_sockets
from smtpmaild.server.sockets import InheritedSockets, SocketTable
from smtpmaild.server.sums import Ledger, Sums

CONFIG = """\
hostname: mx.example
listeners: [{{name: mx, listen: ["{socket}"]}}]
local_domains: {{example.com: {{deliver: mail}}}}
deliver_to: {{mail: {{type: discard}}}}
control: {{socket: run/control.sock}}
workers: {workers}
allow_root: true
"""


class Daemon:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mail, self.control = str(folder / "smtp.sock"), str(folder / "run" / "control.sock")
        self.config()
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "smtpmaild", "--config", "smtp.yaml"], cwd=folder, stderr=log
            )

    def config(self, workers: int = 1, more: str = "") -> None:
        (self.folder / "smtp.yaml").write_text(CONFIG.format(socket=self.mail, workers=workers) + more)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def status(self) -> dict[str, Any]:
        return answer(self.control, "status")

    def until(self, condition: Any) -> dict[str, Any]:
        end = time.monotonic() + 4 * PATIENCE  # it may have a whole interpreter to start
        while True:
            try:
                if condition(found := self.status()):
                    return found
            except ControlError:
                pass
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)

    def attendant(self) -> int:
        return int(
            self.log().rpartition('"attendant_started"')[2].partition('"attendant":')[2].split("}")[0].split(",")[0]
        )


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
        daemon.process.wait()


def serving(number: int) -> Any:
    return lambda found: [one["state"] for one in found["workers"]] == ["serving"] * number


def test_life_of_an_attendant(daemon: Daemon) -> None:
    found = daemon.until(serving(1))
    assert found["pid"] == daemon.process.pid
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(daemon.mail)
        assert client.recv(100).startswith(b"220 ")
        daemon.until(lambda found: found["listeners"][0]["sessions"] == 1)
        opened = daemon.until(lambda found: found["numbers"].get("sessions_opened") == 1)["numbers"]

        os.kill(daemon.attendant(), signal.SIGKILL)
        daemon.until(serving(1))
        assert daemon.status()["numbers"] == opened  # at once

        os.kill(found["workers"][0]["pid"], signal.SIGKILL)
        after = daemon.until(lambda after: serving(1)(after) and after["deaths"] == 1)
        assert after["numbers"]["sessions_opened"] == 1
        assert after["workers"][0]["pid"] != found["workers"][0]["pid"]

    daemon.config(more="bad: 1\n")
    with pytest.raises(ControlError, match="unknown key 'bad'"):
        answer(daemon.control, "reload")
    daemon.config(workers=2)
    assert answer(daemon.control, "reload")["changed"] == ["workers: changed"]
    reloaded = daemon.until(serving(2))
    assert reloaded["reload"]["is_done"]
    assert reloaded["numbers"]["sessions_opened"] == 1

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(daemon.mail)
        assert client.recv(100).startswith(b"220 ")
        draining = ask(daemon.control, "drain")
        assert next(draining)["workers"] > 0
        assert daemon.status()["not_ready"] == "draining"
        said = b"250 "
        while said.startswith(b"250 "):  # the order has yet to reach the worker
            time.sleep(0.02)
            client.sendall(b"NOOP\r\n")
            said = client.recv(100)
        assert said.startswith(b"421 ")
    rows = [*draining]
    assert rows[-1] == {"workers": 0, "sessions": 0}
    assert daemon.process.wait(PATIENCE) == 0, daemon.log()
    assert not os.path.exists(daemon.control)
    assert "failed" not in daemon.log()


def test_drain_now(daemon: Daemon) -> None:
    daemon.until(serving(1))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(daemon.mail)
        client.recv(100)
        draining = ask(daemon.control, "drain", {"now": True})
        next(draining)
        assert client.recv(100).startswith(b"421 ")
    assert [*draining][-1]["workers"] == 0
    assert daemon.process.wait(PATIENCE) == 0


# Parts of it in this process


@pytest.fixture
def attendants(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Attending, list[Mapping[str, Any]]]]:
    """Nothing is forked: the process is 4242, and what is killed is written down."""
    orders: list[Mapping[str, Any]] = []
    monkeypatch.setattr(os, "fork", lambda: 4242)
    monkeypatch.setattr(os, "kill", lambda pid, number: orders.append({"killed": (pid, number)}))
    monkeypatch.setattr(os, "waitpid", lambda pid, _: (pid, 0))
    selector = selectors.DefaultSelector()
    attending_ = Attending(selector, -1, lambda: None, orders.append)
    yield attending_, orders
    attending_.kill()
    selector.close()


def plan_with_attendant(log: Facts) -> Any:
    sink = MemorySink()
    return make_plan(make_door(sink, log), sink, log, attendant=AttendantPlan((), lambda *_: ()))


def test_attendant_that_dies_is_replaced_later_and_later(
    attendants: tuple[Attending, list[Mapping[str, Any]]],
) -> None:
    attending_, _ = attendants
    log = Facts()
    attending_.serve(plan_with_attendant(log), SocketTable(InheritedSockets({})))
    for _ in range(3):
        attending_.bury(4242, -signal.SIGKILL)
        attending_.bury(4242, 0)  # somebody else's
        assert attending_.pids == []
        attending_.look_after(attending_.start_at)
        assert attending_.pids == [4242]
    died = log.named("attendant_died")
    assert [round(float(str(fact["restart_in"])), 1) for fact in died] == [0.1, 0.2, 0.4]
    assert died[0]["reason"] == "SIGKILL"


def test_attendant_that_ends_with_the_daemon_is_not_replaced(
    attendants: tuple[Attending, list[Mapping[str, Any]]],
) -> None:
    attending_, _ = attendants
    log = Facts()
    attending_.serve(plan_with_attendant(log), SocketTable(InheritedSockets({})))
    attending_.bury(4242, 0, is_stopping=True)
    assert (attending_.pids, attending_.start_at) == ([], math.inf)
    assert [fact["reason"] for fact in log.named("attendant_ended")] == ["exit status 0"]
    assert not log.named("attendant_died")


def test_silent_attendant_is_killed(attendants: tuple[Attending, list[Mapping[str, Any]]]) -> None:
    attending_, orders = attendants
    attending_.serve(plan_with_attendant(Facts()), SocketTable(InheritedSockets({})))
    now = time.monotonic()
    attending_.look_after(now + attending.SILENCE - 1)
    assert orders == []
    attending_.look_after(now + attending.SILENCE + 1)
    attending_.look_after(now + attending.SILENCE + 2)
    assert orders == [{"killed": (4242, signal.SIGKILL)}]


def test_state_that_finds_no_room_is_told_again(attendants: tuple[Attending, list[Mapping[str, Any]]]) -> None:
    attending_, _ = attendants
    attending_.serve(plan_with_attendant(Facts()), SocketTable(InheritedSockets({})))
    # Its end was inherited by nobody, so it counts as dead: as if it listened, but slowly.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    child = attending_._children[0]
    attending_._unregister(child)
    child.line.close()
    child.line = ours
    with theirs:
        while not attending_._owes_state:
            attending_.tell_state(State(pid=7))
        attending_.tell_reload(Reload(1, 0.0, is_good=True))  # is lost: who waits for it looks at the state
        while select_readable(theirs):
            theirs.recv(100_000)
        attending_.look_after(time.monotonic())
        assert b'"pid":7' in theirs.recv(100_000)
        assert not attending_._owes_state


def select_readable(sock: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0))


class Beside:
    """A companion that remembers. cause: why it cannot start."""

    def __init__(self, cause: str = "") -> None:
        self.cause = cause
        self.steps: list[str] = []

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.cause:
            raise OSError(self.cause)
        self.steps.append("start")

    async def stop(self) -> None:
        self.steps.append("stop")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_what_the_process_does(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """In this process, with a thread for the supervisor and its workers."""
    for name in ("unraisablehook", "excepthook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGHUP)}
    log, good, bad = Facts(), Beside(), Beside("the port is taken")
    houses: list[House] = []

    def companions(house: House, _: object) -> list[Beside]:
        houses.append(house)
        return [bad, good]

    plan, ledger = plan_with_attendant(log), Ledger(10_000)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    ours.settimeout(PATIENCE)
    beats, heard = pulse_sockets()
    life = os.pipe()

    def supervise() -> None:
        assert ours.recv(1000) == b'{"order": "alive"}'
        post = Post(1, 101, 0, is_ready=True, is_retiring=False, started_at=0.0)
        beats.send(Pulse(1, 101, 0.0, 0.0, counters={"a": 3}).to_bytes())
        ours.send(state_news(State(posts=[post])))
        beats.send(Pulse(1, 101, 0.0, 1.0, counters={"a": 4}).to_bytes())
        end = time.monotonic() + PATIENCE
        while not (houses and houses[0].numbers()) and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=supervise)
    try:
        with ours, theirs, beats, heard:
            thread.start()
            attendant = AttendantPlan((), companions)
            table = SocketTable(InheritedSockets({}))
            serve_attendant(plan, attendant, table, heard, theirs, ledger, life[0], (signal.SIGUSR1,))
            thread.join(PATIENCE)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for end in life:
            os.close(end)
    assert houses[0].numbers() == Sums(ledger).total == {"a": 4}
    assert good.steps == ["start", "stop"]
    assert log.named("attendant_incomplete") == [{"cause": "the port is taken"}]


def test_last_words_of_an_attendant_that_is_buried() -> None:
    """Its end of the line and its death are heard of in one moment: the supervisor must live on."""
    with selectors.DefaultSelector() as selector:
        attending = Attending(selector, -1, lambda: None, lambda _: None)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = _Child(99_999_999, ours, 0.0, 0.0)
        theirs.close()
        ours.close()
        attending._hear(child)
        assert attending.pids == []
