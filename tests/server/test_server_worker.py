"""One process that serves, by its signals: drain, end at once, reload; and what it does when something breaks."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from house import Client, Daemon, Facts, Guest, MemorySink, make_door, make_plan, run_loop, until

from smtpmaild.server import worker
from smtpmaild.server.counts import Counts
from smtpmaild.server.listener import Listener, Room
from smtpmaild.server.notify import Notifier
from smtpmaild.server.plan import Plan
from smtpmaild.server.sockets import InheritedSockets, SocketTable, TcpAddress
from smtpmaild.server.worker import Worker, new_loop

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


# The process, by its signals


@LOOPS
def test_drain_finishes_bodies_and_ends_sessions(tmp_path: Path, loop: str) -> None:
    with Daemon(tmp_path, plan={"event_loop": loop}) as daemon, daemon.client() as idle, daemon.client() as busy:
        idle.greet()
        busy.greet()
        busy.begin_message()
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("draining")
        daemon.wait_until_refused()
        assert idle.ask("NOOP") == "421 4.3.2 Service shutting down, closing transmission channel"
        idle.close()
        assert busy.ask("text\r\n.").startswith("250 ")
        assert busy.ask("NOOP").startswith("421 ")
        busy.close()
        assert daemon.exit_status() == 0
        assert len(daemon.messages()) == 1
        assert daemon.wait_for("stopped")


def test_drain_ends_at_its_limit(tmp_path: Path) -> None:
    with Daemon(tmp_path, plan={"drain_seconds": 0.1}) as daemon, daemon.client() as client:
        client.greet()
        client.begin_message()
        daemon.signal(signal.SIGINT)
        assert client.reply().startswith("421 ")
        client.close()
        assert daemon.exit_status() == 0
        assert daemon.messages() == []


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,)], ids=["second", "QUIT"])
def test_end_at_once(tmp_path: Path, signals: tuple[signal.Signals, ...]) -> None:
    with Daemon(tmp_path, plan={"drain_seconds": 60.0}) as daemon, daemon.client() as client:
        client.greet()
        for number in signals:
            daemon.wait_for("listening")
            daemon.signal(number)
            daemon.wait_for("draining")
        start = time.monotonic()
        assert client.reply().startswith("421 ")
        assert daemon.exit_status() == 0
        assert time.monotonic() - start < 1.0


@LOOPS
def test_reload_keeps_sessions_and_their_plan(tmp_path: Path, loop: str) -> None:
    with Daemon(tmp_path, banner="old", plan={"event_loop": loop}) as daemon, daemon.client() as old:
        assert old.reply() == "220 mx.example old"
        daemon.settings["banner"] = "new"
        daemon.settings["addresses"].append(["tcp", "127.0.0.2", 0])
        daemon.write()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("reloaded")
        with daemon.client() as new:
            assert new.reply() == "220 mx.example new"
        # A message that began before goes to the stores of the plan it began with.
        assert old.ask("HELO x").startswith("250 ")
        assert old.send_message().startswith("250 ")
        assert len(daemon.messages()) == 1
        # The second listener came with the reload; it goes with the next one, and its session stays.
        host, _, port = daemon.wait_for("listening", 3)[2]["address"].rpartition(":")
        with Client((host, int(port))) as guest:
            guest.greet()
            daemon.settings["addresses"].pop()
            daemon.write()
            daemon.signal(signal.SIGHUP)
            daemon.wait_for("reloaded", 2)
            with pytest.raises(ConnectionRefusedError):
                Client((host, int(port)))
            assert guest.send_message().startswith("250 ")
        daemon.signal(signal.SIGUSR2)  # means nothing here
        with daemon.client() as another:
            another.greet()


def test_bad_reload_changes_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path, banner="old") as daemon:
        daemon.wait_for("listening")
        daemon.settings["mistake"] = "smtp.yaml:3:1: no"
        daemon.write()
        daemon.signal(signal.SIGHUP)
        assert daemon.wait_for("reload_refused")[0]["cause"] == "smtp.yaml:3:1: no"
        del daemon.settings["mistake"]
        daemon.settings |= {"banner": "new", "addresses": [["tcp", "127.0.0.1", daemon.address()[1]]]}
        daemon.write()
        daemon.signal(signal.SIGHUP)  # we hold that very port, under another name
        assert "Address already in use" in daemon.wait_for("reload_refused", 2)[1]["cause"]
        daemon.settings["directory"] = str(tmp_path / "gone")
        daemon.write()
        daemon.signal(signal.SIGHUP)
        assert "gone" in daemon.wait_for("reload_refused", 3)[2]["cause"]
        with daemon.client() as client:
            assert client.reply() == "220 mx.example old"


def test_reload_says_what_needs_a_restart(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        daemon.wait_for("listening")
        daemon.settings["plan"] |= {"workers": 3, "event_loop": "asyncio", "prefix_v4": 16}
        daemon.write()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("reloaded")
        options = [fact["option"] for fact in daemon.wait_for("restart_needed", 3)]
        assert options == ["workers", "event_loop", "network_prefix"]


@LOOPS
def test_unix_and_ipv6_and_inherited_sockets(tmp_path: Path, loop: str) -> None:
    path = str(tmp_path / "smtp.sock")
    addresses = [["tcp", "::1", 0], ["unix", path]]
    with Daemon(tmp_path, addresses=addresses, plan={"event_loop": loop}) as daemon:
        with daemon.client() as client:
            client.greet()
            assert client.send_message().startswith("250 ")
        daemon.wait_for("listening", 2)
        with Client(path) as client:
            client.greet()
            assert client.send_message().startswith("250 ")
        assert [fact["peer"].rpartition(":")[0] for fact in daemon.wait_for("message_accepted", 2)] == ["[::1]", ""]
        daemon.signal(signal.SIGTERM)
        assert daemon.exit_status() == 0
    assert not os.path.exists(path)


def test_service_manager_is_told(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(5.0)
        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000000"}
        with Daemon(tmp_path, environment=environment) as daemon:
            assert manager.recv(1000) == b"READY=1\nSTATUS=serving"
            assert manager.recv(1000) == b"WATCHDOG=1"
            daemon.signal(signal.SIGHUP)
            assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(1000) == b"READY=1\nSTATUS=serving"
            daemon.signal(signal.SIGTERM)
            assert manager.recv(1000).startswith(b"STOPPING=1\n")


def test_port_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with Daemon(tmp_path, addresses=[["tcp", "127.0.0.1", taken.getsockname()[1]]]) as daemon:
            assert daemon.exit_status() != 0
        assert daemon.facts == []


# The worker in the loop of a test


class Recorder(Notifier):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []

    def _send(self, *states: str) -> None:
        self.states.append(states[0])


class House:
    """A worker with its plan, in the running loop. plans: what a reload finds, one after the other."""

    def __init__(self, plan: Plan) -> None:
        self.superior = Recorder()
        self.table = SocketTable(InheritedSockets({})).rebind(plan.sockets)
        loop = asyncio.get_running_loop()
        self.worker = Worker(plan, self.table, Counts(1).worker(0), self.superior, loop)
        self.serving = loop.create_task(self.worker.serve())

    @property
    def address(self) -> tuple[str, int]:
        (address,) = self.worker.sockets
        host, port = self.worker.sockets.get(address)[0].getsockname()
        return host, port

    async def end(self) -> None:
        self.worker.end_now()
        await self.serving
        self.worker.sockets.close_all_but()


def plan_with(log: Facts, sink: MemorySink, reload: Callable[[], Plan] | None = None, **options: object) -> Plan:
    more = {"reload": reload} if reload else {}
    return make_plan(make_door(sink, log), sink, log, **more, **options)


def test_old_sinks_stop_after_their_last_session() -> None:
    async def go() -> None:
        log, old, new = Facts(), MemorySink(), MemorySink()
        house = House(plan_with(log, old, lambda: plan_with(log, new)))
        async with Guest.connected(house.address) as guest:
            await guest.greet()
            house.worker.reload()
            await until(lambda: log.named("reloaded"))
            assert new.steps == ["prepare", "start"]
            assert old.steps == ["start"]
            await guest.begin_message()
            assert (await guest.ask("text\r\n."))[:3] == "250"
            assert len(old.messages) == 1
            assert not new.messages
        await until(lambda: old.steps == ["start", "stop"])
        await until(lambda: not house.worker._old)
        await house.end()
        assert new.steps == ["prepare", "start", "stop"]
        assert house.superior.states[:3] == ["READY=1", "RELOADING=1", "READY=1"]

    run_loop(go())


def test_reload_during_a_reload_follows_it() -> None:
    async def go() -> None:
        log, sink = Facts(), MemorySink()

        def read_slowly() -> Plan:
            time.sleep(0.02)
            return plan_with(log, sink, read_slowly)

        house = House(plan_with(log, sink, read_slowly))
        await until(lambda: house.superior.states)
        for _ in range(5):
            house.worker.reload()
            await asyncio.sleep(0)
        await until(lambda: len(log.named("reloaded")) == 2)
        house.worker.reload()
        await asyncio.sleep(0.005)
        await house.end()  # in the middle of one, which comes to nothing
        assert len(log.named("reloaded")) == 2
        house.worker.reload()
        assert house.worker._reloading is None

    run_loop(go())


def test_sink_that_does_not_start_refuses_the_reload() -> None:
    async def go() -> None:
        log, old, new = Facts(), MemorySink(), MemorySink()

        def fail(post: object) -> None:
            raise OSError(28, "No space left on device")

        new.start = fail  # type: ignore[method-assign]
        house = House(plan_with(log, old, lambda: plan_with(log, new)))
        async with Guest.connected(house.address) as guest:
            house.worker.reload()
            await until(lambda: log.named("reload_refused"))
            assert log.named("reload_refused")[0]["cause"] == "[Errno 28] No space left on device"
            await guest.greet()
        assert new.steps == ["prepare"]  # what was not started is not stopped
        await house.end()

    run_loop(go())


def test_retired_sessions_end_in_peace_and_then_drain() -> None:
    async def go() -> None:
        log, sink = Facts(), MemorySink()
        house = House(plan_with(log, sink, retire_seconds=0.1, drain_seconds=5.0))
        async with Guest.connected(house.address) as guest:
            await guest.greet()
            house.worker.retire()
            house.worker.retire()
            assert (await guest.ask("NOOP"))[:3] == "250"
            await asyncio.sleep(0.15)
            assert (await guest.ask("NOOP"))[:3] == "421"
        await house.serving
        house.worker.sockets.close_all_but()
        assert not log.named("draining")

    run_loop(go())


def test_what_is_being_stored_is_answered_before_the_end() -> None:
    async def go() -> None:
        log, sink = Facts(), MemorySink()
        sink.holds = True
        house = House(plan_with(log, sink, drain_seconds=0.05))
        async with Guest.connected(house.address) as guest:
            await guest.greet()
            await guest.begin_message()
            guest.send("text", ".")
            await until(lambda: sink._waiting)
            house.worker.drain()
            # MemorySink.stop() finishes, as all sinks do; the answer comes before the farewell.
            assert [(await guest.reply())[:3] for _ in range(2)] == ["250", "421"]
        await house.serving
        house.worker.sockets.close_all_but()
        assert len(sink.messages) == 1

    run_loop(go())


def test_failing_sweep_is_logged_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpmaild.server.worker._SWEEP_SECONDS", 0.01)

    def fail(self: Listener, now: float) -> None:
        raise ZeroDivisionError

    async def go() -> None:
        log = Facts()
        house = House(plan_with(log, MemorySink()))
        with monkeypatch.context() as patch:
            patch.setattr(Listener, "sweep", fail)
            await until(lambda: len(log.named("sweep_failed")) == 2)
        await until(lambda: house.superior.states)
        await house.end()

    run_loop(go())


def test_deaf_listener_is_revived_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpmaild.server.worker._SWEEP_SECONDS", 0.01)

    async def go() -> None:
        log = Facts()
        house = House(plan_with(log, MemorySink()))
        await until(lambda: house.superior.states)
        (listener,) = house.worker._current.listeners
        listener._ears[0].server.close()
        await until(lambda: log.named("listening_again"))
        async with Guest.connected(house.address) as guest:
            await guest.greet()
        await house.end()

    run_loop(go())


@LOOPS
def test_failures_in_callbacks_are_logged_once_a_second_and_end_nothing(loop: str) -> None:
    log = Facts()
    running = new_loop(plan_with(log, MemorySink(), event_loop=loop))
    try:
        for _ in range(5):
            running.call_soon(lambda: 1 // 0)
        running.call_exception_handler({"message": "no exception, only words"})
        running.run_until_complete(asyncio.sleep(0.01))
    finally:
        running.close()
    first, second = [facts for name, facts in log.all if name == "loop_failure"]
    assert first == {"cause": "no exception, only words"}
    assert "ZeroDivisionError" in str(second["traceback"])


def test_log_is_written_out_when_a_worker_cannot_even_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(plan: Plan) -> asyncio.AbstractEventLoop:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(worker, "new_loop", fail)
    steps: list[str] = []
    plan = plan_with(
        Facts(), MemorySink(), log_start=lambda: steps.append("start"), log_stop=lambda: steps.append("stop")
    )
    table = SocketTable(InheritedSockets({}))
    with pytest.raises(PermissionError):
        worker.serve(plan, table, Counts(1).worker(0), Recorder(), lambda *_: None)
    assert steps == ["start", "stop"]


def test_plan_knows_what_to_bind() -> None:
    sink = MemorySink()
    plan = plan_with(Facts(), sink)
    assert plan.sockets == [("mx", TcpAddress("127.0.0.1", 0), 100)]


# What is started and stopped with a plan


class Beside:
    """A companion that writes down what is done with it."""

    def __init__(self, steps: list[str], name: str) -> None:
        self._steps = steps
        self._name = name

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop is asyncio.get_running_loop()
        self._steps.append(f"{self._name} starts")

    async def stop(self) -> None:
        self._steps.append(f"{self._name} stops")


@LOOPS
def test_companions_are_there_as_long_as_sessions_are(loop: str) -> None:
    log, sink = Facts(), MemorySink()
    companions = [Beside(sink.steps, "one"), Beside(sink.steps, "two")]
    plan = make_plan(make_door(sink, log), sink, log, companions=companions)
    sockets = SocketTable(InheritedSockets.from_environment({})).rebind(plan.sockets)

    async def work() -> None:
        running = asyncio.get_running_loop()
        generation = worker.Generation(plan, Counts(1).worker(0), Room.of_this_process(), running)
        await generation.open(sockets)
        (sock,) = sockets.get(plan.listeners[0].addresses[0])
        async with Guest.connected(sock.getsockname()) as guest:
            await guest.greet()
            assert sink.steps == ["start", "one starts", "two starts"]
            ending = asyncio.ensure_future(generation.end(60.0))
            assert (await guest.ask("NOOP")).startswith("250 ")
            assert "one stops" not in sink.steps
        await ending
        assert sink.steps[3:] == ["stop", "two stops", "one stops"]

    run_loop(work(), loop)
    sockets.close_all_but()
