"""The connection to Dovecot: against a socket that does what Dovecot does, or less."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from house import Facts, run_loop, until

from smtpmaild.auth.dovecot import Accepted, Continue, Refused
from smtpmaild.auth.relayed import Unavailable
from smtpmaild.server.dovecot import DovecotSocket, mechanisms_of

GREETING = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tSCRAM-SHA-256\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n"
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


class Fake:
    """A server on a Unix socket. greeting: what it says to everybody.  answers: line without id -> what it says."""

    def __init__(self, path: Path, greeting: bytes = GREETING) -> None:
        self.path = path
        self.greeting = greeting
        self.heard: list[str] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.hold = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        writer.write(self.greeting)
        while line := (await reader.readline()).decode():
            self.heard.append(line.rstrip("\n"))
            command, number, *fields = line.rstrip("\n").split("\t")
            if command in ("AUTH", "CONT") and not self.hold:
                answer = {"resp=Z29vZA==": "OK\t{}\tuser=alice", "resp=bW9yZQ==": "CONT\t{}\tbW9yZQ=="}.get(
                    fields[-1], "FAIL\t{}\tuser=alice"
                )
                writer.write((answer.format(number) + "\n").encode())
        writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        self.path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self.serve, str(self.path))
        try:
            yield
        finally:
            server.close()
            for writer in self.writers:
                writer.transport.abort()
            self.path.unlink(missing_ok=True)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def connection(path: Path, log: Facts | None = None) -> AsyncIterator[DovecotSocket]:
    dovecot = DovecotSocket(str(path), log or Facts())
    dovecot.start(asyncio.get_running_loop())
    try:
        yield dovecot
    finally:
        await dovecot.stop()
        await asyncio.sleep(0.01)


@LOOPS
def test_requests(tmp_path: Path, loop: str) -> None:
    fake, log = Fake(tmp_path / "auth"), Facts()

    async def work() -> None:
        async with fake.listening(), connection(fake.path, log) as dovecot:
            asked = [dovecot.ask("PLAIN", ["service=smtp"], initial) for initial in (b"good", b"bad", b"more")]
            requests, answers = zip(*await asyncio.gather(*asked), strict=True)
            assert answers == (Accepted("alice"), Refused("Dovecot says no", "alice"), Continue(b"more"))
            assert await requests[2].proceed(b"") == Refused("Dovecot says no", "alice")
            for request in requests:
                request.cancel()  # all of them are answered
        assert len(fake.writers) == 1
        assert [line.partition("\t")[0] for line in fake.heard] == ["VERSION", "CPID", "AUTH", "AUTH", "AUTH", "CONT"]

    run_loop(work(), loop)
    assert log.named("dovecot_connected") == [{"path": str(fake.path), "mechanisms": ["PLAIN", "SCRAM-SHA-256"]}]


@LOOPS
def test_dovecot_that_goes_and_comes(tmp_path: Path, loop: str) -> None:
    fake, log = Fake(tmp_path / "auth"), Facts()

    async def work() -> None:
        async with connection(fake.path, log) as dovecot:
            for _ in range(3):  # away: every request is answered at once, and the log has one line
                with pytest.raises(Unavailable, match="No such file or directory"):
                    await dovecot.ask("PLAIN", [], b"good")
            await asyncio.sleep(0.12)
            async with fake.listening():
                assert (await dovecot.ask("PLAIN", [], b"good"))[1] == Accepted("alice")
                fake.hold = True
                waiting = asyncio.ensure_future(dovecot.ask("PLAIN", [], b"good"))
                await until(lambda: len(fake.heard) == 4)
                fake.writers[0].transport.abort()  # with a request under way
                with pytest.raises(Unavailable, match="the connection broke"):
                    await waiting
                fake.hold = False
                assert (await dovecot.ask("PLAIN", [], b"good"))[1] == Accepted("alice")

    run_loop(work(), loop)
    assert len(log.named("dovecot_unavailable")) == 1
    assert len(log.named("dovecot_connected")) == 2


def test_each_failure_waits_longer_before_the_next(tmp_path: Path) -> None:
    dovecot = DovecotSocket(str(tmp_path / "auth"), Facts())
    waits = []
    for _ in range(10):
        dovecot._failed("away", 100.0)
        waits.append(round(dovecot._retry_at - 100.0, 1))
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0]


@pytest.mark.parametrize(
    ("greeting", "cause"),
    [(b"VERSION\t2\t0\n", "another version"), (b"HTTP/1.1 400\n" * 9000, "does not greet"), (b"", "does not greet")],
)
def test_what_is_no_dovecot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greeting: bytes, cause: str) -> None:
    monkeypatch.setattr("smtpmaild.server.dovecot._CONNECT_SECONDS", 0.1)
    fake = Fake(tmp_path / "auth", greeting)

    async def work() -> None:
        async with fake.listening(), connection(fake.path) as dovecot:
            with pytest.raises(Unavailable, match=cause):
                await dovecot.ask("PLAIN", [], b"good")

    run_loop(work())


def test_nonsense_in_mid_connection_ends_it(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "auth")

    async def work() -> None:
        async with fake.listening(), connection(fake.path) as dovecot:
            await dovecot.ask("PLAIN", [], b"good")
            fake.hold = True
            waiting = asyncio.ensure_future(dovecot.ask("PLAIN", [], b"good"))
            await until(lambda: len(fake.heard) == 4)
            fake.writers[0].write(b"OK\t2\n")
            with pytest.raises(Unavailable, match="OK names no user"):
                await waiting

    run_loop(work())


def test_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpmaild.server.dovecot._ANSWER_SECONDS", 0.05)
    fake = Fake(tmp_path / "auth")
    fake.hold = True

    async def work() -> None:
        async with fake.listening(), connection(fake.path) as dovecot:
            with pytest.raises(Unavailable, match="no answer within"):
                await dovecot.ask("PLAIN", [], b"good")
            await until(lambda: fake.heard[-1:] == ["CANCEL\t1"])
            fake.writers[0].write(b"OK\t1\tuser=alice\n")  # too late: nobody hears it
            fake.hold = False
            assert (await dovecot.ask("PLAIN", [], b"bad"))[1] == Refused("Dovecot says no", "alice")

    run_loop(work())


def test_cancel_tells_dovecot(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "auth")

    async def work() -> None:
        async with fake.listening(), connection(fake.path) as dovecot:
            request, _ = await dovecot.ask("SCRAM-SHA-256", [], b"more")
            request.cancel()
            request.cancel()
            await until(lambda: fake.heard[-1:] == ["CANCEL\t1"])
            fake.writers[0].transport.abort()
            await asyncio.sleep(0.02)
            with pytest.raises(Unavailable, match="the connection broke"):
                await request.proceed(b"x")
            request.cancel()  # nobody is there to be told
        assert fake.heard.count("CANCEL\t1") == 1

    run_loop(work())


def test_stop_while_connecting(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "auth", b"")

    async def work() -> None:
        async with fake.listening(), connection(fake.path) as dovecot:
            waiting = asyncio.ensure_future(dovecot.ask("PLAIN", [], b"good"))
            await until(lambda: fake.writers)
            await dovecot.stop()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run_loop(work())


# What is offered is asked for when the configuration is read, without a loop.


def beside(server: Callable[[], Coroutine[Any, Any, None]]) -> threading.Thread:
    thread = threading.Thread(target=lambda: asyncio.run(server()))
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("greeting", "mechanisms"),
    [(GREETING, ("PLAIN", "SCRAM-SHA-256")), (b"VERSION\t2\t0\n", ()), (b"MECH\tPLAIN\n", ())],
)
def test_mechanisms(tmp_path: Path, greeting: bytes, mechanisms: tuple[str, ...]) -> None:
    fake = Fake(tmp_path / "auth", greeting)
    is_listening, is_asked = threading.Event(), threading.Event()

    async def serve() -> None:
        async with fake.listening():
            is_listening.set()
            await asyncio.to_thread(is_asked.wait, 5.0)

    thread = beside(serve)
    try:
        assert is_listening.wait(5.0)
        assert mechanisms_of(str(fake.path), 0.2) == mechanisms
    finally:
        is_asked.set()
        thread.join()


def test_mechanisms_of_nobody(tmp_path: Path) -> None:
    assert mechanisms_of(str(tmp_path / "nobody")) == ()
