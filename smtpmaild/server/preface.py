"""A connection before its PROXY header is complete: nobody has been greeted, and the client is not known yet.

On a listener with proxy_protocol every connection begins as a `Preface`. It reads the header and not one octet more,
since what follows may be a TLS handshake, then hands the transport to a `Connection` that knows the client. Whoever is
not a trusted proxy, sends no header, a broken one or half of one until its time is up, is disconnected without a
banner, and the log says why. A connection that comes and goes without a word is somebody's health check: no news.

Until then it counts as a connection of the listener, not yet as one of any client.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from smtpmaild.envelope import Peer
from smtpmaild.server.connection import is_gone, peer_of
from smtpmaild.server.proxy_protocol import SHORTEST, Header, Malformed, parse

if TYPE_CHECKING:
    from smtpmaild.server.listener import Listener


class Preface(asyncio.BufferedProtocol):
    """The protocol object of a transport until a Connection takes its place. deadline: on the loop's clock."""

    __slots__ = ("_data", "_listener", "_proxy", "_transport", "_wanted", "deadline")

    _transport: asyncio.Transport
    _proxy: Peer

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._data = b""
        self._wanted = SHORTEST
        self.deadline = math.inf

    @property
    def ip(self) -> None:
        """Of whom it will be, nobody has said yet."""
        return None

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self._listener
        self._transport = cast("asyncio.Transport", transport)
        self._proxy = peer_of(transport)
        self.deadline = listener.loop.time() + listener.door.timeouts.proxy_header
        has_room = listener.welcome(self, None)
        if is_gone(transport, self._proxy):
            self._transport.abort()
        elif not listener.door.trusts(self._proxy):
            self._refuse("it is not one of trusted_proxies")
        elif not has_room:
            self._refuse("there are too many connections")

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.buffer[: self._wanted]

    def buffer_updated(self, nbytes: int) -> None:
        self._data += self._listener.buffer[:nbytes]
        parsed = parse(self._data)
        if isinstance(parsed, Header):
            self._hand_over(parsed)
        elif isinstance(parsed, Malformed):
            self._refuse(parsed.cause)
        else:
            self._wanted = parsed.octets

    def eof_received(self) -> bool:
        if self._data:
            self._refuse("the connection ended within the PROXY header")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.forget(self, None)

    # The two ways it ends

    def _hand_over(self, header: Header) -> None:
        listener, transport = self._listener, self._transport
        if self._proxy.host and header.source == self._proxy:
            # Version 1 knows no LOCAL: HAProxy's checks name the two ends of the connection itself.
            header = replace(header, is_probe=True)
        listener.forget(self, None)
        connection = listener.connection()
        transport.set_protocol(connection)
        connection.open(transport, self._proxy if header.source is None else header.source, self._proxy, header)

    def _refuse(self, cause: str) -> None:
        if self._transport.is_closing():
            return
        service = self._listener.door.service
        service.metrics.proxies_refused += 1
        service.log.warning("proxy_refused", listener=service.listener, peer=str(self._proxy), cause=cause)
        self._transport.abort()

    # What the listener calls, as for a Connection

    def is_overdue(self, now: float) -> bool:
        """The header should have been here."""
        return self.deadline <= now

    def expire(self, now: float) -> None:
        """is_overdue() was true."""
        if self._data:
            self._refuse("the PROXY header was not complete in time")
        else:
            self._refuse("no PROXY header came")

    def drain(self) -> None:
        """The session that begins here, if one does, ends at its first command."""

    def abort(self) -> None:
        """End now: there is nobody to say it to."""
        self._transport.abort()

    kill = abort
