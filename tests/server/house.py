"""What the tests of sockets and processes share: a plan with a store in memory, and ways to run it.

`listening(door)` opens one listener in the loop of a test; `Daemon` runs `python tests/server/house.py` as a process of
its own, with its log on standard output, one JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

from smtpmaild.envelope import Destination, Envelope, Route, Rule, Transaction
from smtpmaild.metrics import Metrics
from smtpmaild.policy import Mode, Policy
from smtpmaild.policy.chain import Chain
from smtpmaild.server.counts import Counts
from smtpmaild.server.daemon import run
from smtpmaild.server.listener import ConnectionLimits, Door, Listener, Room, Timeouts
from smtpmaild.server.plan import ListenerPlan, Plan
from smtpmaild.server.sockets import Address, InheritedAddress, TcpAddress, UnixAddress
from smtpmaild.service import LookUp, Service
from smtpmaild.sink import Outcome, Post
from smtpmaild.smtp.address import Address as MailAddress
from smtpmaild.smtp.extension import Dialect, ServerOptions
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply

#: Longer than anything takes that works; what fails fails by this.
PATIENCE = 5.0


class Facts:
    """A log that remembers: (event, its facts)."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, /, **facts: object) -> None:
        self.all.append((event, facts))

    warning = error = info

    def exception(self, event: str, /, **facts: object) -> None:
        self.all.append((event, {**facts, "traceback": traceback.format_exc()}))

    def named(self, event: str) -> list[dict[str, object]]:
        return [facts for name, facts in self.all if name == event]


class JsonLines:
    """A log on standard output that another process reads."""

    def info(self, event: str, /, **facts: object) -> None:
        line = json.dumps({"event": event, "pid": os.getpid(), **facts}, default=str) + "\n"
        os.write(1, line.encode())

    warning = error = info

    def exception(self, event: str, /, **facts: object) -> None:
        self.info(event, **facts, traceback=traceback.format_exc())


class MemoryDelivery:
    """One message on its way into a MemorySink."""

    def __init__(self, sink: MemorySink, drained: Callable[[], None]) -> None:
        self._sink = sink
        self._drained = drained
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> bool:
        self._chunks.append(chunk)
        if self._sink.takes_breaks and len(self._chunks) % 2 == 0:
            self._sink.post(self._drained)
            return False
        return True

    def commit(self, done: Callable[[Outcome], None]) -> None:
        self._sink.commit(b"".join(self._chunks), done)

    def abort(self) -> None:
        self._sink.aborted += 1


class MemorySink:
    """Keeps messages in a list, and answers when it is told to.

    holds: commits wait for release() or stop().  takes_breaks: asks to stop reading at every second piece.  directory:
    where accepted messages are written to as well, for tests with processes.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.messages: list[bytes] = []
        self.aborted = 0
        self.holds = False
        self.takes_breaks = False
        self.steps: list[str] = []
        self.directory = directory
        self._waiting: list[tuple[bytes, Callable[[Outcome], None]]] = []
        self.post: Post = lambda function: function()

    def prepare(self) -> None:
        self.steps.append("prepare")
        if self.directory is not None:
            os.listdir(self.directory)

    def start(self, post: Post) -> None:
        self.steps.append("start")
        self.post = post

    def stop(self) -> None:
        self.steps.append("stop")
        self.release()

    def unhealthy(self) -> Reply | None:
        return None

    def begin(
        self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]
    ) -> MemoryDelivery:
        return MemoryDelivery(self, drained)

    def locate(self, destination: Destination) -> str:
        return "memory"

    def commit(self, message: bytes, done: Callable[[Outcome], None]) -> None:
        self._waiting.append((message, done))
        if not self.holds:
            self.release()

    def release(self) -> None:
        while self._waiting:
            message, done = self._waiting.pop(0)
            self.messages.append(message)
            if self.directory is not None:
                (self.directory / f"{os.getpid()}-{time.monotonic_ns()}").write_bytes(message)
            self.post(lambda done=done: done(MESSAGE_ACCEPTED))  # type: ignore[misc]


class Everybody:
    """A router that takes mail for every domain but `refused.example`."""

    def route(self, transaction: Transaction, forward_path: MailAddress) -> Route:
        if forward_path.domain == "refused.example":
            return Route(Rule("test"), Reply(550, "5.7.1", "no"))
        to = Destination("memory", forward_path.domain, "box", "", forward_path)
        return Route(Rule("test"), Reply(250, "2.1.5", "yes"), (to,))


def make_door(
    sink: MemorySink,
    log: Any,
    *,
    name: str = "mx",
    policies: Sequence[Policy] = (),
    options: Mapping[str, Any] | None = None,
    client_names: LookUp | None = None,
    **door: Any,
) -> Door:
    """A door as app/doors.py would make it."""
    metrics = Metrics()
    service = Service(
        listener=name,
        dialect=Dialect(ServerOptions("mx.example", **(options or {}))),
        chain=Chain.compile([(policy, Mode.ENFORCE) for policy in policies], log, metrics),
        router=Everybody(),
        sinks={"memory": sink},
        log=log,
        metrics=metrics,
        client_names=client_names,
    )
    return Door(service, **door)


def no_reload() -> Plan:
    raise ValueError("smtp.yaml:1:1: there is nothing new")


def make_plan(door: Door, sink: MemorySink, log: Any, *addresses: Address, **plan: Any) -> Plan:
    """A plan with one listener."""
    listener = ListenerPlan(door.name, addresses or (TcpAddress("127.0.0.1", 0),), door, 100)
    return Plan((listener,), [sink], log, plan.pop("reload", no_reload), **plan)


@asynccontextmanager
async def listening(
    door: Door, *, room: Room | None = None, counts: Counts | None = None, buffer: int = 0
) -> AsyncIterator[tuple[Listener, tuple[str, int]]]:
    """A listener on a port of its own, swept more often than a worker does it. buffer: the kernel's."""
    loop = asyncio.get_running_loop()
    sock = socket.create_server(("127.0.0.1", 0))
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    counts = counts or Counts(1)
    listener = Listener(door, counts.worker(0), room or Room(1000), loop, lambda: None)
    for sink in door.service.sinks.values():
        sink.start(loop.call_soon_threadsafe)
    await listener.open(sock, 100)

    async def sweep() -> None:
        while True:
            await asyncio.sleep(0.02)
            listener.sweep(loop.time())

    sweeping = loop.create_task(sweep())
    try:
        yield listener, sock.getsockname()
    finally:
        listener.close()
        listener.kill()
        async with asyncio.timeout(PATIENCE):
            while listener.connections:
                await asyncio.sleep(0.001)
        await listener.finish_tasks(0.1)
        sweeping.cancel()
        sock.close()


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def run_loop(work: Coroutine[Any, Any, None], loop: str = "uvloop") -> None:
    """asyncio.run() in a loop of this kind."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(work, 2 * PATIENCE))


class Guest:
    """A client in the loop of the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, address: tuple[str, int], source: str = "127.0.0.1") -> AsyncIterator[Self]:
        guest = cls(*await asyncio.open_connection(*address, local_addr=(source, 0)))
        try:
            yield guest
        finally:
            guest.writer.transport.abort()
            try:
                await guest.writer.wait_closed()
            except OSError:
                pass

    def send(self, *lines: str) -> None:
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def reply(self) -> str:
        """The next reply, its lines joined; "" at the end of the connection."""
        lines: list[str] = []
        while True:
            line = (await self.reader.readline()).decode()
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return "\n".join(lines)

    async def ask(self, line: str) -> str:
        self.send(line)
        return await self.reply()

    async def greet(self) -> None:
        assert (await self.reply()).startswith("220 ")
        assert (await self.ask("HELO client.example")).startswith("250 ")

    async def begin_message(self) -> None:
        self.send("MAIL FROM:<a@client.example>", "RCPT TO:<b@local.example>", "DATA")
        assert [(await self.reply())[:3] for _ in range(3)] == ["250", "250", "354"]

    async def is_closed(self) -> bool:
        return await self.reader.read(1) == b""


async def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


class Client:
    """A blocking client that reads line by line."""

    def __init__(self, address: tuple[str, int] | str, source: str = "") -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, PATIENCE, (source, 0) if source else None)
        self.socket.settimeout(PATIENCE)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, *lines: str) -> None:
        self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def reply(self) -> str:
        """The next reply, its lines joined; "" at the end of the connection."""
        lines: list[str] = []
        while True:
            line = self._file.readline().decode()
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return "\n".join(lines)

    def ask(self, line: str) -> str:
        self.send(line)
        return self.reply()

    def greet(self) -> None:
        assert self.reply().startswith("220 ")
        assert self.ask("HELO client.example").startswith("250 ")

    def begin_message(self) -> None:
        self.send("MAIL FROM:<a@client.example>", "RCPT TO:<b@local.example>", "DATA")
        assert [self.reply()[:3] for _ in range(3)] == ["250", "250", "354"]

    def send_message(self, text: str = "Subject: x\r\n\r\nhello") -> str:
        self.begin_message()
        return self.ask(f"{text}\r\n.")


def main() -> int:
    """A daemon for Daemon below: what it serves is told by its arguments, and again at each reload by a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    log = JsonLines()

    def read_plan() -> Plan:
        settings = json.loads(file.read_text())
        if "mistake" in settings:
            raise ValueError(settings["mistake"])
        sink = MemorySink(Path(settings["directory"]))
        timeouts = Timeouts(**settings.get("timeouts", {}))
        addresses = [_ADDRESSES[kind](*arguments) for kind, *arguments in settings["addresses"]]
        options = {"banner": settings.get("banner", "hello")}
        door = make_door(
            sink, log, options=options, timeouts=timeouts, limits=ConnectionLimits(**settings.get("limits", {}))
        )
        return make_plan(door, sink, log, *addresses, reload=read_plan, **settings.get("plan", {}))

    plan = read_plan()
    return run(plan)


_ADDRESSES: dict[str, Callable[..., Address]] = {
    "tcp": TcpAddress,
    "unix": UnixAddress,
    "systemd": InheritedAddress,
}


class Daemon:
    """A running daemon. settings: what main() reads; change and write() them before a SIGHUP."""

    def __init__(self, directory: Path, *, environment: Mapping[str, str] | None = None, **settings: Any) -> None:
        self.mail = directory / "mail"
        self.mail.mkdir(exist_ok=True)
        self.settings: dict[str, Any] = {
            "directory": str(self.mail),
            "addresses": [["tcp", "127.0.0.1", 0]],
            **settings,
        }
        self.settings["plan"] = {"allow_root": True, "drain_seconds": 2.0, **settings.get("plan", {})}
        self._file = directory / "settings.json"
        self.write()
        self.facts: list[dict[str, Any]] = []
        self._unread = b""
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__, str(self._file)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(environment or {})},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGQUIT)
            try:
                self.process.wait(3.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._read(0.0)
        if error is not None:
            print(*self.facts, sep="\n")
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait()

    def write(self) -> None:
        self._file.write_text(json.dumps(self.settings))

    def signal(self, number: int, pid: int = 0) -> None:
        os.kill(pid or self.process.pid, number)

    def _read(self, seconds: float) -> bool:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return False
        data = os.read(self.process.stdout.fileno(), 65536)
        *lines, self._unread = (self._unread + data).split(b"\n")
        self.facts += [json.loads(line) for line in lines]
        return bool(data)

    def wait_for(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Facts of this name, once there are so many."""
        end = time.monotonic() + PATIENCE
        while len(found := [fact for fact in self.facts if fact["event"] == event]) < count:
            assert time.monotonic() < end, f"waited in vain for {count} {event}, there are {self.facts}"
            if not self._read(0.1) and self.process.poll() is not None:
                assert self._read(0.0), f"ended before {event}: {self.facts}"
        return found

    def address(self) -> tuple[str, int]:
        host, _, port = self.wait_for("listening")[0]["address"].rpartition(":")
        return host.strip("[]"), int(port)

    def client(self) -> Client:
        return Client(self.address())

    def wait_until_refused(self) -> None:
        """New connections are refused: the fact "draining" comes a moment before every process has closed its copy."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                self.client().close()
            except ConnectionRefusedError:
                return
            time.sleep(0.01)
        raise AssertionError("new connections are still accepted")

    def exit_status(self) -> int:
        return self.process.wait(PATIENCE)

    def messages(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.mail.iterdir())]


if __name__ == "__main__":
    sys.exit(main())
