"""Sessions over streams: whatever standard input and output may be, on both event loops."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import subprocess
import sys
import termios
import textwrap
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from smtpmaild.envelope import Peer, Route, Rule, Session, Transaction
from smtpmaild.metrics import Metrics
from smtpmaild.policy.chain import Chain, Event, Step
from smtpmaild.server.stream_session import StreamSession
from smtpmaild.server.streams import close, hear_out, open_streams
from smtpmaild.service import Service
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.extension import Dialect, ServerOptions
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
LINES = b"EHLO client.example\r\nNOOP\r\nQUIT\r\n"
GOODBYE = b"\r\n250 2.0.0 Ok\r\n221 2.0.0 mx.example Service closing transmission channel\r\n"


class Facts:
    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, /, **facts: object) -> None:
        self.all.append((event, facts))

    warning = error = exception = info

    @property
    def reason(self) -> object:
        """Why the session ended."""
        return dict(self.all)["session_closed"]["reason"]


class TakesAll:
    def route(self, transaction: Transaction, forward_path: Address) -> Route:
        return Route(Rule("all"), RECIPIENT_OK)


def service(log: Facts | None = None, **steps: Callable[..., Any]) -> Service:
    """steps: by the name of an event with "_" for "-"."""
    log = log or Facts()
    events = {event.name: event for event in Event}
    by_event = {events[name]: (Step(name, ask),) for name, ask in steps.items()}
    return Service(
        listener="test",
        dialect=Dialect(ServerOptions("mx.example", listens=frozenset(name for name in steps))),
        chain=Chain(by_event, log),
        router=TakesAll(),
        sinks={},
        log=log,
        metrics=Metrics(),
    )


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """asyncio.run on one of the two loops."""

    def run_on(coroutine: Any) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(asyncio.wait_for(coroutine, 5))

    return run_on


async def converse(fd_in: int, fd_out: int, log: Facts | None = None, **options: Any) -> Peer:
    async with open_streams(fd_in, fd_out) as (reader, writer, peer):
        await StreamSession(service(log), peer, **options).run(reader, writer)
    return peer


# What descriptors may be. Each gives (in, out, what reads the output once the session is over).

Ends = tuple[int, int, Callable[[], bytes]]


def received(sock: socket.socket) -> bytes:
    sock.settimeout(5)
    output = b""
    while not output.endswith(b"channel\r\n"):
        more = sock.recv(65536)
        assert more, output
        output += more
    return output


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        return client, listening.accept()[0]


@contextmanager
def tcp_connection(_path: Path) -> Iterator[Ends]:
    client, accepted = connected()
    with client, accepted:
        client.sendall(LINES)
        yield accepted.fileno(), accepted.fileno(), lambda: received(client)


@contextmanager
def socket_under_two_numbers(path: Path) -> Iterator[Ends]:
    with tcp_connection(path) as (fd, _, output):
        other = os.dup(fd)
        yield fd, other, output
        os.close(other)


@contextmanager
def unix_socket(_path: Path) -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(LINES)
        yield theirs.fileno(), theirs.fileno(), lambda: received(ours)


@contextmanager
def two_sockets(_path: Path) -> Iterator[Ends]:
    ours_in, theirs_in = socket.socketpair()
    ours_out, theirs_out = socket.socketpair()
    with ours_in, theirs_in, ours_out, theirs_out:
        ours_in.sendall(LINES)
        yield theirs_in.fileno(), theirs_out.fileno(), lambda: received(ours_out)


@contextmanager
def pipes(_path: Path) -> Iterator[Ends]:
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    os.write(in_write, LINES)
    yield in_read, out_write, lambda: os.read(out_read, 65536)
    for fd in (in_read, in_write, out_read, out_write):
        os.close(fd)


@contextmanager
def files(path: Path) -> Iterator[Ends]:
    (path / "in").write_bytes(LINES)
    with open(path / "in", "rb") as input_file, open(path / "out", "wb") as output_file:
        yield input_file.fileno(), output_file.fileno(), (path / "out").read_bytes


@contextmanager
def file_and_pipe(path: Path) -> Iterator[Ends]:
    with files(path) as (fd_in, _, _), pipes(path) as (_, fd_out, output):
        yield fd_in, fd_out, output


@contextmanager
def pipe_and_file(path: Path) -> Iterator[Ends]:
    with files(path) as (_, fd_out, output), pipes(path) as (fd_in, _, _):
        yield fd_in, fd_out, output


@contextmanager
def terminal(_path: Path) -> Iterator[Ends]:
    master, slave = pty.openpty()
    tty.setraw(slave, termios.TCSANOW)
    os.write(master, LINES)
    yield slave, slave, lambda: os.read(master, 65536)
    os.close(master)
    os.close(slave)


KINDS = (
    tcp_connection, socket_under_two_numbers, unix_socket, two_sockets, pipes, files, file_and_pipe, pipe_and_file,
    terminal,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_session_over(kind: Any, run: Callable[..., Any], tmp_path: Path) -> None:
    with kind(tmp_path) as (fd_in, fd_out, output):
        were_blocking = os.get_blocking(fd_in), os.get_blocking(fd_out)
        peer = run(converse(fd_in, fd_out))
        assert (os.get_blocking(fd_in), os.get_blocking(fd_out)) == were_blocking  # the shell shares the flag
        answer = output()
        while kind is terminal and not answer.endswith(GOODBYE):  # it hands over what it has so far
            answer += output()
        assert answer.startswith(b"220 mx.example ")
        assert answer.endswith(GOODBYE)
        assert peer.host == ("127.0.0.1" if kind in (tcp_connection, socket_under_two_numbers) else "")


def test_input_that_is_nothing(run: Callable[..., Any]) -> None:
    with open(os.devnull, "rb") as nothing, ExitStack() as stack:
        out_read, out_write = os.pipe()
        stack.callback(os.close, out_read)
        log = Facts()
        run(converse(nothing.fileno(), out_write, log))
        os.close(out_write)
        assert os.read(out_read, 1000) == b"220 mx.example ESMTP smtpmaild Service ready\r\n"
        assert log.reason == "connection lost"


def test_input_that_cannot_be_read(run: Callable[..., Any], tmp_path: Path) -> None:
    log = Facts()
    folder = os.open(tmp_path, os.O_RDONLY)
    with open(tmp_path / "out", "wb") as output:
        run(converse(folder, output.fileno(), log))
    os.close(folder)
    assert log.reason == "[Errno 21] Is a directory"


def test_silent_terminal_does_not_keep_the_session(run: Callable[..., Any]) -> None:
    """The thread that reads it waits on; when input comes at last nobody is interested."""
    log = Facts()
    master, slave = pty.openpty()
    tty.setraw(slave, termios.TCSANOW)
    run(converse(slave, slave, log, idle_timeout=0.05))
    answer = b""
    while b"421 4.4.2 mx.example Timeout exceeded, " not in answer:
        answer += os.read(master, 1000)
    os.write(master, b"NOOP\r\n")
    time.sleep(0.05)
    os.close(master)
    os.close(slave)
    assert str(log.reason).startswith("421 ")


def test_end_of_input_without_quit(run: Callable[..., Any]) -> None:
    """`printf ... | nc` closes its half and still wants the replies."""
    log = Facts()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"EHLO x\r\nNOOP\r\nNOO")
        ours.shutdown(socket.SHUT_WR)
        run(converse(theirs.fileno(), theirs.fileno(), log))
        assert ours.recv(65536).endswith(b"\r\n250 2.0.0 Ok\r\n")
    assert log.reason == "connection lost"


def test_peer_that_is_gone(run: Callable[..., Any]) -> None:
    log = Facts()
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    os.close(out_read)
    os.write(in_write, b"NOOP\r\n" * 100)
    run(converse(in_read, out_write, log))
    for fd in (in_read, in_write, out_write):
        os.close(fd)
    assert log.reason


def test_peer_that_never_reads(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its replies fill the socket and no more; then it has as long as a silent one."""
    monkeypatch.setattr("smtpmaild.server.streams._FLUSH_SECONDS", 0.05)
    log = Facts()
    ours, theirs = socket.socketpair()
    sent = 0

    async def chatter() -> int:
        nonlocal sent
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            while True:
                await loop.sock_sendall(ours, b"EHLO x\r\n" * 1000)
                sent += 8000
        except OSError:
            return sent

    async def main() -> None:
        task = asyncio.create_task(chatter())
        await converse(theirs.fileno(), theirs.fileno(), log, idle_timeout=0.2)
        task.cancel()

    with ours, theirs:
        run(main())
    assert log.reason == "timeout while sending"
    assert sent < 4_000_000


def test_decisions_that_wait(run: Callable[..., Any]) -> None:
    async def helo(_session: Session) -> None:
        await asyncio.sleep(0.01)

    ends: list[str] = []

    async def stop(_session: Session, reason: str) -> None:
        await asyncio.sleep(0.01)
        ends.append(reason)

    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"EHLO x\r\nNOOP\r\nQUIT\r\n")
            async with open_streams(theirs.fileno(), theirs.fileno()) as (reader, writer, peer):
                await StreamSession(service(EHLO=helo, STOP_SESSION=stop), peer).run(reader, writer)
            return received(ours)

    assert run(main()).endswith(GOODBYE)
    assert ends == [""]  # run() waits for the end of what it began


def test_each_error_is_slept_on() -> None:
    async def main() -> float:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"ONE\r\nTWO\r\nEHLO x\r\nQUIT\r\n")
            begun = time.monotonic()
            await converse(theirs.fileno(), theirs.fileno(), error_sleep_time=0.05)
            return time.monotonic() - begun

    assert asyncio.run(main()) >= 0.1


def test_refusal_of_the_session_is_sent() -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            async with open_streams(theirs.fileno(), theirs.fileno()) as (reader, writer, peer):
                refuse = service(BANNER=lambda _session: Reply(421, "4.3.2", "Not now"))
                await StreamSession(refuse, peer).run(reader, writer)
            return ours.recv(1000)

    assert asyncio.run(main()) == b"421 Not now\r\n"


def test_close_gives_up_on_a_peer_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpmaild.server.streams._FLUSH_SECONDS", 0.05)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            _, writer = await asyncio.open_connection(sock=theirs)
            writer.write(b"x" * 10_000_000)
            await close(writer)
            assert writer.transport.is_closing()

    asyncio.run(main())


def test_peer_that_never_stops_is_heard_out_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpmaild.server.streams._LINGER_SECONDS", 0.05)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            reader, writer = await asyncio.open_connection(sock=theirs)
            ours.sendall(b"NOOP\r\n")
            await hear_out(reader, writer)
            assert ours.recv(100) == b""  # our half is closed, theirs is not
            ours.sendall(b"NOOP\r\n")
            await close(writer)

    asyncio.run(main())


def test_standard_io_as_inetd_has_it() -> None:
    """serve_standard_io in a process of its own, with one TCP socket as standard input, output and error."""
    program = textwrap.dedent("""
        import asyncio, sys
        sys.path.insert(0, "tests/server")
        from test_streams import Facts, service
        from smtpmaild.server.stream_session import serve_standard_io
        log = Facts()
        asyncio.run(serve_standard_io(service(log), 5.0))
        sys.exit(dict(log.all)["session_closed"]["peer"].startswith("127.0.0.1:") + 41)
    """)
    root = Path(__file__).resolve().parent.parent.parent
    client, accepted = connected()
    with client:
        with accepted:
            process = subprocess.Popen(
                [sys.executable, "-c", program], cwd=root, stdin=accepted.fileno(), stdout=accepted.fileno(),
                stderr=accepted.fileno(),
            )  # fmt: skip
        client.sendall(LINES)
        answer = received(client)
        assert process.wait(10) == 42
    assert answer.startswith(b"220 mx.example ")
    assert answer.endswith(GOODBYE)
