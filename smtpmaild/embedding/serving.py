"""Listening for a program: a session object for each connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from smtpmaild.embedding.session import Smtp
from smtpmaild.server.connection import peer_of
from smtpmaild.server.streams import close, hear_out


async def serve(
    make_session: Callable[[], Smtp], host: str | None = "127.0.0.1", port: int = 2525, **arguments: Any
) -> asyncio.Server:
    """Listen, and process each connection with a session of its own: `await serve(make_session, "127.0.0.1", 2525)`.

    make_session: builds a session with its callbacks.  arguments: for asyncio.start_server. Returns its server, which
    is serving already.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await make_session().converse(reader, writer, peer_of(writer.transport))
            await hear_out(reader, writer)
        finally:
            await close(writer)

    return await asyncio.start_server(connected, host, port, **arguments)
