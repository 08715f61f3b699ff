"""A web application in a loop that is not its own: addresses, signals, its end, and clients that behave badly."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
from pathlib import Path

import pytest
import uvloop
from browsing import LOOPBACK, ask, connect, parsed, served
from receiving import RecordingLog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from smtpmaild.server.sockets import InheritedAddress, SocketError, TcpAddress, UnixAddress
from smtpmaild.web import presence, serving
from smtpmaild.web.serving import WebServer, is_loopback


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def fail(request: Request) -> PlainTextResponse:
    raise LookupError("nothing to be seen")


APP = Starlette(routes=[Route("/", hello), Route("/fail", fail)])


def test_port_is_chosen_and_told() -> None:
    async def main() -> None:
        log = RecordingLog()
        async with served(APP, log=log) as server:
            [address] = server.addresses
            assert address.startswith("127.0.0.1:")
            assert not address.endswith(":0")
            assert server.urls == [f"http://{address}/"]
            answer = await ask(server)
            assert (answer.status, answer.body) == (200, b"hello")
            assert "server" not in answer.headers
        assert server.addresses == []
        assert log.named("listening") == [{"listener": "status", "address": address}]

    asyncio.run(main())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_unix_socket(new_loop: type, tmp_path: Path) -> None:
    path = tmp_path / "status.sock"

    async def main() -> None:
        async with served(APP, UnixAddress(str(path), mode=0o600)) as server:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert server.urls == []
            assert (await ask(server)).body == b"hello"
        assert not path.exists()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def test_signals_stay_with_the_daemon() -> None:
    async def main() -> None:
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        async with served(APP) as server:
            await ask(server)
            assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before

    asyncio.run(main())


def test_address_in_use_is_an_error_at_once() -> None:
    async def main() -> None:
        async with served(APP) as server:
            port = int(server.addresses[0].rpartition(":")[2])
            second = WebServer(APP, TcpAddress("127.0.0.1", port), RecordingLog(), name="dev")
            with pytest.raises(SocketError, match=r"listener dev: cannot listen on 127\.0\.0\.1:"):
                second.start(asyncio.get_running_loop())
            await second.stop()

    asyncio.run(main())


def test_sockets_of_somebody_else_stay_open() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            log = RecordingLog()
            for _ in range(2):  # one after the other, as attendants come and go
                server = WebServer(APP, LOOPBACK, log, sockets=[listening])
                server.start(asyncio.get_running_loop())
                assert server.addresses == [f"127.0.0.1:{listening.getsockname()[1]}"]
                assert (await ask(server)).status == 200
                await server.stop()
            assert log.facts == []

    asyncio.run(main())


def test_a_server_that_fails_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail_to_tick(self: object, counter: int) -> bool:
        raise LookupError("no time")

    monkeypatch.setattr("uvicorn.Server.on_tick", fail_to_tick)

    async def main() -> None:
        log = RecordingLog()
        async with served(APP, log=log):
            await asyncio.sleep(0.01)
        assert "no time" in str(log.only("web_server_failed")["traceback"])

    asyncio.run(main())


def test_exception_is_logged_and_tells_nothing() -> None:
    async def main() -> None:
        log = RecordingLog()
        async with served(APP, log=log) as server:
            answer = await ask(server, "/fail")
            assert answer.status == 500
            assert b"nothing to be seen" not in answer.body
            assert (await ask(server)).status == 200
        [fact] = log.named("web_request_failed")
        assert fact["cause"] == "Exception in ASGI application"

    asyncio.run(main())


def test_nonsense_is_refused_without_a_line() -> None:
    async def main() -> None:
        log = RecordingLog()
        async with served(APP, log=log) as server:
            reader, writer = await connect(server)
            writer.write(b"EHLO client.example\r\n\r\n")
            assert parsed(await reader.read()).status == 400
            writer.close()
            reader, writer = await connect(server)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            assert (await reader.readline()).split()[1] == b"200"
            writer.close()
        assert {name for name, _ in log.facts} == {"listening"}

    asyncio.run(main())


def test_idle_clients_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_IDLE_SECONDS", -1.0)

    async def main() -> None:
        async with served(APP) as server:
            reader, writer = await connect(server)
            writer.write(b"GET / HTT")
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_clients_that_do_not_send_what_they_announced_are_cut_off_without_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def count(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    app = Starlette(routes=[Route("/", count, methods=["POST"])])

    async def main() -> None:
        log = RecordingLog()
        async with served(app, log=log) as server:
            _, gone = await connect(server)
            gone.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
            await gone.drain()
            await asyncio.sleep(0.05)
            gone.close()
            monkeypatch.setattr(serving, "_IDLE_SECONDS", -1.0)
            reader, writer = await connect(server)
            writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()
        assert log.named("web_request_failed") == []

    asyncio.run(main())


def test_end_waits_for_nobody() -> None:
    started = asyncio.Event()

    async def hang(request: Request) -> PlainTextResponse:
        started.set()
        await asyncio.Event().wait()
        return PlainTextResponse("")

    async def main() -> None:
        log = RecordingLog()
        async with served(Starlette(routes=[Route("/", hang)]), log=log) as server:
            _, writer = await connect(server)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await started.wait()
        writer.close()
        assert log.named("web_server_warned")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (LOOPBACK, True),
        (TcpAddress("127.8.8.8", 80), True),
        (TcpAddress("::1", 80), True),
        (TcpAddress("LocalHost", 80), True),
        (UnixAddress("/run/status.sock"), True),
        (InheritedAddress("status"), True),
        (TcpAddress("0.0.0.0", 80), False),
        (TcpAddress("::", 80), False),
        (TcpAddress("mx.example.com", 80), False),
    ],
    ids=str,
)
def test_loopback(address: TcpAddress | UnixAddress | InheritedAddress, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_presence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert presence.missing() == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else socket)
    assert presence.missing() == "uvicorn"
