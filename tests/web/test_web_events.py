"""Server-sent events: told to all, waited for by nobody, ended for who does not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from browsing import ask, connect, parsed, served
from receiving import RecordingLog
from starlette.types import ASGIApp, Receive, Scope, Send

from smtpmaild.web import events
from smtpmaild.web.events import Broadcast, encoded
from smtpmaild.web.serving import WebServer


def app_of(broadcast: Broadcast) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await broadcast.stream([("hello", {"n": 0})])(scope, receive, send)

    return app


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def open_page(server: WebServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await connect(server)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert parsed(head).headers["content-type"] == "text/event-stream; charset=utf-8"
    return reader, writer


def test_one_event_is_one_event() -> None:
    assert encoded("x", {"s": "a\n\ndata: evil\r\n"}) == b'event: x\ndata: {"s":"a\\n\\ndata: evil\\r\\n"}\n\n'


def test_pages_are_told() -> None:
    async def main() -> None:
        broadcast = Broadcast(heartbeat=0.02)
        broadcast.send("before", 1)  # nobody listens
        async with served(app_of(broadcast), streams=(broadcast,)) as server:
            reader, writer = await open_page(server)
            assert b'event: hello\ndata: {"n":0}\n\n' in await reader.readuntil(b"\n\n\r\n")
            assert broadcast.subscribers == 1
            broadcast.send("news", [1, "zwei"])
            assert b'event: news\ndata: [1,"zwei"]\n\n' in await reader.readuntil(b"\n\n\r\n")
            assert b":\n\n" in await reader.readuntil(b"\n\n\r\n")
            writer.close()
            await until(lambda: broadcast.subscribers == 0)

    asyncio.run(main())


def test_there_are_not_more_pages_than_may_be() -> None:
    async def main() -> None:
        broadcast = Broadcast(subscribers=1)
        async with served(app_of(broadcast), streams=(broadcast,)) as server:
            reader, writer = await open_page(server)
            answer = await ask(server)
            assert (answer.status, answer.headers["retry-after"]) == (503, "10")
        assert b"0\r\n\r\n" in await reader.read()  # ended in order, when the server was stopped
        writer.close()
        assert broadcast.subscribers == 0

    asyncio.run(main())


def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_FAREWELL_SECONDS", 0.01)

    async def main() -> None:
        log = RecordingLog()
        broadcast = Broadcast(waiting=3)
        async with served(app_of(broadcast), streams=(broadcast,), log=log) as server:
            _, writer = await open_page(server)
            reader, good = await open_page(server)
            async with asyncio.timeout(20):
                while broadcast.subscribers == 2:
                    broadcast.send("news", "x" * 1_000_000)
                    await reader.readuntil(b'"\n\n\r\n')
            assert broadcast.subscribers == 1
            writer.close()
            good.close()
        assert {name for name, _ in log.facts} == {"listening"}

    asyncio.run(main())
