"""Several workers under a supervisor, as processes: their births, deaths, and what no client notices of either."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from house import PATIENCE, Client, Daemon, Facts, MemorySink, make_door, make_plan

from smtpmaild.server import supervisor
from smtpmaild.server.notify import Notifier
from smtpmaild.server.plan import Plan
from smtpmaild.server.restarts import GOOD_LIFE
from smtpmaild.server.sockets import InheritedSockets, SocketTable
from smtpmaild.server.supervisor import Channel, Supervisor


def workers(directory: Path, number: int = 2, **settings: Any) -> Daemon:
    return Daemon(directory, **{**settings, "plan": {"workers": number, **settings.get("plan", {})}})


def pids(daemon: Daemon, event: str, number: int) -> list[int]:
    return [fact["worker"] for fact in daemon.wait_for(event, number)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().split()[2] != "Z"


def wait_until_dead(pid: int) -> None:
    end = time.monotonic() + PATIENCE
    while is_alive(pid):
        assert time.monotonic() < end, f"{pid} lives on"
        time.sleep(0.01)


def worker_of(daemon: Daemon, client: Client) -> int:
    """The process that serves this client: it says so when a message is accepted."""
    number = len([fact for fact in daemon.facts if fact["event"] == "message_accepted"]) + 1
    assert client.send_message().startswith("250 ")
    pid = daemon.wait_for("message_accepted", number)[-1]["pid"]
    assert isinstance(pid, int)
    return pid


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_drain(tmp_path: Path, loop: str) -> None:
    with workers(tmp_path, plan={"event_loop": loop}) as daemon, daemon.client() as client:
        client.greet()
        client.begin_message()
        started = pids(daemon, "worker_started", 2)
        # Ctrl-C and a hang-up reach the whole group; a worker minds only what the supervisor tells it.
        for pid in started:
            daemon.signal(signal.SIGINT, pid)
            daemon.signal(signal.SIGHUP, pid)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("draining", 2)
        daemon.wait_until_refused()
        for pid in started:
            if is_alive(pid):
                daemon.signal(signal.SIGTERM, pid)  # as when somebody signals the whole group
        assert client.ask("text\r\n.").startswith("250 ")
        assert client.ask("NOOP").startswith("421 ")
        client.close()
        assert daemon.exit_status() == 0
        assert sorted(pids(daemon, "worker_ended", 2)) == sorted(started)
        assert {fact["reason"] for fact in daemon.wait_for("worker_ended")} == {"exit status 0"}


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    with workers(tmp_path, plan={"drain_seconds": 60.0}) as daemon, daemon.client() as client:
        client.greet()
        daemon.wait_for("worker_started", 2)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("draining", 2)
        daemon.signal(signal.SIGTERM)
        assert client.reply().startswith("421 ")
        assert daemon.exit_status() == 0


def test_crashed_worker_is_replaced_and_the_other_serves_on(tmp_path: Path) -> None:
    with workers(tmp_path) as daemon, daemon.client() as client:
        client.greet()
        serving = worker_of(daemon, client)
        for deaths in (1, 2):
            started = pids(daemon, "worker_started", 1 + deaths)
            (victim,) = [pid for pid in started if is_alive(pid) and pid != serving]
            daemon.signal(signal.SIGKILL, victim)
            died = daemon.wait_for("worker_died", deaths)[-1]
            assert (died["worker"], died["reason"]) == (victim, "SIGKILL")
            assert died["restart_in"] == pytest.approx(0.1 * deaths)  # it grows
            daemon.wait_for("worker_started", 2 + deaths)
        assert worker_of(daemon, client) == serving
        with daemon.client() as another:
            another.greet()
        assert len(daemon.messages()) == 2


def test_all_workers_may_die(tmp_path: Path) -> None:
    with workers(tmp_path) as daemon:
        for pid in pids(daemon, "worker_started", 2):
            daemon.signal(signal.SIGKILL, pid)
        daemon.wait_for("worker_died", 2)
        with daemon.client() as client:  # who comes meanwhile waits in the socket, which the supervisor holds
            client.greet()
            assert client.send_message().startswith("250 ")


def test_connections_of_the_dead_are_forgotten(tmp_path: Path) -> None:
    with workers(tmp_path, limits={"total": 1}) as daemon:
        with daemon.client() as client:
            client.greet()
            victim = worker_of(daemon, client)
            with daemon.client() as another:
                assert another.reply().startswith("421 ")
            daemon.signal(signal.SIGKILL, victim)
            daemon.wait_for("worker_died")
        deadline = time.monotonic() + PATIENCE
        while True:
            with daemon.client() as client:
                if client.reply().startswith("220 "):
                    break
            assert time.monotonic() < deadline


def test_workers_drain_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with workers(tmp_path) as daemon, daemon.client() as client:
        client.greet()
        started = pids(daemon, "worker_started", 2)
        client.begin_message()
        daemon.process.kill()
        daemon.process.wait()
        daemon.wait_for("draining", 2)
        assert client.ask("text\r\n.").startswith("250 ")
        assert client.ask("NOOP").startswith("421 ")
        client.close()
        for pid in started:
            wait_until_dead(pid)
        assert len(daemon.messages()) == 1


def test_reload_makes_new_workers_and_retires_the_old(tmp_path: Path) -> None:
    path = str(tmp_path / "smtp.sock")
    addresses = [["tcp", "127.0.0.1", 0], ["unix", path]]
    with workers(tmp_path, banner="old", addresses=addresses) as daemon, daemon.client() as old:
        assert old.reply() == "220 mx.example old"
        before = pids(daemon, "worker_started", 2)
        daemon.settings |= {"banner": "new", "addresses": [["tcp", "127.0.0.1", 0], ["tcp", "127.0.0.2", 0]]}
        daemon.settings["plan"] |= {"workers": 3}
        daemon.write()
        daemon.signal(signal.SIGHUP)
        after = pids(daemon, "worker_started", 5)[2:]
        (ended,) = pids(daemon, "worker_ended", 1)  # the one without a session
        assert ended in before
        assert not os.path.exists(path)
        with daemon.client() as new:
            assert new.reply() == "220 mx.example new"
        host, _, port = daemon.wait_for("listening", 4)[3]["address"].rpartition(":")
        with Client((host, int(port))) as new:
            assert new.reply() == "220 mx.example new"
        assert old.ask("HELO x").startswith("250 ")
        assert worker_of(daemon, old) in before
        old.close()
        assert sorted(pids(daemon, "worker_ended", 2)) == sorted(before)
        assert all(is_alive(pid) for pid in after)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("worker_ended", 5)
        with daemon.client() as new:
            assert new.reply() == "220 mx.example new"


def test_bad_reload_changes_nothing(tmp_path: Path) -> None:
    with workers(tmp_path) as daemon, daemon.client() as client:
        client.greet()
        daemon.settings["mistake"] = "smtp.yaml:3:1: no"
        daemon.write()
        daemon.signal(signal.SIGHUP)
        assert daemon.wait_for("reload_refused")[0]["cause"] == "smtp.yaml:3:1: no"
        assert client.send_message().startswith("250 ")
        assert len(daemon.wait_for("worker_started")) == 2


def test_service_manager_is_told(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(PATIENCE)
        heard: list[str] = []

        def hear(*states: str) -> None:
            end = time.monotonic() + PATIENCE
            while not set(states) <= {line for text in heard for line in text.split("\n")}:
                assert time.monotonic() < end, heard
                heard.append(manager.recv(1000).decode())

        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
        with workers(tmp_path, environment=environment) as daemon:
            hear("READY=1", "STATUS=2 of 2 workers serving", "WATCHDOG=1")
            heard.clear()
            daemon.signal(signal.SIGKILL, pids(daemon, "worker_started", 2)[0])
            hear("STATUS=1 of 2 workers serving", "STATUS=2 of 2 workers serving")
            heard.clear()
            daemon.signal(signal.SIGHUP)
            hear("RELOADING=1", "READY=1")
            heard.clear()
            daemon.settings["mistake"] = "no"
            daemon.write()
            daemon.signal(signal.SIGHUP)
            hear("RELOADING=1", "READY=1", "STATUS=2 of 2 workers serving")
            daemon.signal(signal.SIGTERM)
            hear("STOPPING=1")
            assert daemon.exit_status() == 0


# Parts of it in this process


class Told(Notifier):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(watchdog=1.0)
        self.pings = 0

    def ping(self, now: float) -> None:
        self.pings += 1


def small_plan(**options: Any) -> Plan:
    log, sink = Facts(), MemorySink()
    return make_plan(make_door(sink, log), sink, log, workers=2, **options)


@pytest.fixture
def parent() -> Supervisor:
    """A supervisor that never runs."""
    return Supervisor(small_plan(), SocketTable(InheritedSockets({})), Told())


def test_watchdog_is_not_fed_while_a_worker_is_silent(parent: Supervisor) -> None:
    notifier = parent._notifier
    assert isinstance(notifier, Told)
    parent._stops = 1  # start nothing
    now = time.monotonic()
    for place in parent._current.places:
        place.pid, place.heard_at = 1, now
    parent._look_after(now)
    assert notifier.pings == 1
    parent._current.places[0].heard_at = now - supervisor.SILENCE
    parent._look_after(now)
    assert notifier.pings == 1


def test_worker_that_does_not_end_is_killed(parent: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    parent._current.places[0].pid = 12345
    parent._stop()
    limit = parent._current.plan.drain_seconds + supervisor.KILL_MARGIN
    parent._look_after(time.monotonic() + limit - 1)
    assert killed == [(12345, signal.SIGTERM)]
    parent._look_after(time.monotonic() + limit + 1)
    assert killed[1:] == [(12345, signal.SIGKILL)]
    parent._reload()
    assert len(parent._generations) == 1


def test_delay_grows_to_its_limit_and_a_good_life_resets_it(
    parent: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = parent._current.places[0]
    delays = []
    for lived in [0.0] * 10 + [GOOD_LIFE, 0.0]:
        reading, writing = os.pipe()
        os.close(writing)
        place.pid, place.channel, place.started_at = 12345, reading, time.monotonic() - lived
        parent._bury(parent._current, place, 1)
        delays.append(round(place.delay, 3))
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 0.1, 0.2]


def test_last_words_of_a_worker_that_is_buried(parent: Supervisor) -> None:
    """One look at the selector may find both its death and what it said before."""
    place = parent._current.places[0]
    place.channel, writing = os.pipe()
    place.pid = 12345
    os.write(writing, b"R")
    os.close(writing)
    parent._bury(parent._current, place, 0)
    parent._hear(parent._current, place)
    assert not place.is_ready


def test_columns_are_found_for_a_plan_with_more_workers(parent: Supervisor) -> None:
    first = parent._current.rows
    more = parent._new_generation(small_plan(), parent._current.sockets)
    assert more.rows is first
    assert {place.row for place in more.places} | {place.row for place in parent._current.places} == {0, 1, 2, 3}
    assert parent._new_generation(small_plan(), parent._current.sockets).rows is not first
    assert parent._new_generation(small_plan(prefix_v4=16), parent._current.sockets).rows is not first


def test_channel_says_what_the_supervisor_wants_to_know() -> None:
    reading, writing = os.pipe()
    channel = Channel(writing)
    channel.reloading()
    channel.ready("x")
    channel.ping(1.0)
    channel.stopping("x")
    assert os.read(reading, 10) == b"R.D"
    os.close(reading)
    os.close(writing)
    channel.ping(2.0)  # nobody is there: no matter
