"""What the tests of HTTP share: a server for a while, and requests written by hand, so that any may be wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from receiving import RecordingLog
from starlette.types import ASGIApp

from smtpmaild.server.sockets import TcpAddress, UnixAddress
from smtpmaild.web.serving import Ends, WebServer

LOOPBACK = TcpAddress("127.0.0.1", 0)
PATIENCE = 10.0
_LONGEST = 4 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What a server said: status, headers with lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def served(
    app: ASGIApp,
    address: TcpAddress | UnixAddress = LOOPBACK,
    log: RecordingLog | None = None,
    streams: tuple[Ends, ...] = (),
) -> AsyncIterator[WebServer]:
    """The application at an address, until the block ends."""
    server = WebServer(app, address, log or RecordingLog(), streams=streams)
    server.start(asyncio.get_running_loop())
    try:
        yield server
    finally:
        await server.stop()


async def connect(server: WebServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = server.addresses[0]
    if where.startswith("/"):
        return await asyncio.open_unix_connection(where, limit=_LONGEST)
    host, _, port = where.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port), limit=_LONGEST)


async def ask(
    server: WebServer,
    path: str = "/",
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own."""
    reader, writer = await connect(server)
    every = {"Host": "127.0.0.1", "Connection": "close", **(headers or {})}
    if body and "Transfer-Encoding" not in every:
        every.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in every.items())
    writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    async with asyncio.timeout(PATIENCE):
        whole = await reader.read()
    writer.close()
    return parsed(whole)


def parsed(whole: bytes) -> Answer:
    top, _, body = whole.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(status.split(" ")[1]), headers, body)
