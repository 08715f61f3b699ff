"""Connections that are written down as transcripts, while somebody has ordered that.

A listener that records makes RecordedConnections in place of others, which pass everything on as it is and let a
Scrubber look at it (transcripts/scrubbing.py). When the session is over, a file is written into the directory of the
order, complete when it has its name; who ordered it takes it away. Sessions that were open before are not recorded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from smtpmaild.envelope import IpAddress, IpNetwork, Peer, Session
from smtpmaild.server.connection import Connection, Wire
from smtpmaild.server.proxy_protocol import Header
from smtpmaild.transcripts.scrubbing import Scrubber
from smtpmaild.transcripts.writing import text_of

if TYPE_CHECKING:
    from smtpmaild.server.listener import Listener


class Recording:
    """An order, as one worker carries it out.

    networks: of clients; all where there are none.  listener, rule: "" for any.  most: sessions of this worker.  until:
    seconds since the epoch.
    """

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.listener: str = order["listener"]
        self._networks: list[IpNetwork] = [ipaddress.ip_network(one) for one in order["networks"]]
        self._rule: str = order["rule"]
        self._directory: str = order["directory"]
        self._left: int = order["most"]
        self._until: float = order["until"]
        self.with_bodies: bool = order["bodies"]

    def wants(self, ip: IpAddress | None) -> bool:
        """The session of this client, which begins now."""
        if self._left <= 0 or time.time() >= self._until:
            return False
        return not self._networks or (ip is not None and any(ip in network for network in self._networks))

    def connection(self, listener: Listener) -> Connection:
        """One that is recorded, if its client is wanted."""
        return RecordedConnection(listener, self)

    def keep(self, session: Session, rules: Mapping[str, None], text: str) -> None:
        """A session is over."""
        names = {rule.removesuffix(f" ({rule.rpartition(' (')[2]}") for rule in rules}
        if self._left <= 0 or (self._rule and self._rule not in names):
            return
        self._left -= 1
        path = f"{self._directory}/{session.session_id}"
        try:
            with open(f"{path}.tmp", "x", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            os.rename(f"{path}.tmp", f"{path}.smtp")
        except OSError:
            self._left = 0  # the directory is gone: nobody wants it any more


class _TapedWire:
    """A Wire that tells what is written to it."""

    def __init__(self, wire: Wire, said: Callable[[bytes], None]) -> None:
        self.wire = wire
        self._said = said

    def write(self, data: bytes, /) -> None:
        self._said(data)
        self.wire.write(data)

    def write_eof(self) -> None:
        self.wire.write_eof()

    def close(self) -> None:
        self.wire.close()

    def abort(self) -> None:
        self.wire.abort()

    def is_closing(self) -> bool:
        return self.wire.is_closing()

    def pause_reading(self) -> None:
        self.wire.pause_reading()

    def resume_reading(self) -> None:
        self.wire.resume_reading()


class RecordedConnection(Connection):
    """A Connection that is written down."""

    def __init__(self, listener: Listener, recording: Recording) -> None:
        super().__init__(listener)
        self._recording = recording
        self._scrubber: Scrubber | None = None
        self._rules: dict[str, None] = {}

    def open(
        self, transport: asyncio.Transport, peer: Peer, proxy: Peer | None = None, header: Header | None = None
    ) -> None:
        """See Connection."""
        if self._recording.wants(peer.ip):
            self._scrubber = Scrubber(self._user, with_bodies=self._recording.with_bodies)
            transport = cast("asyncio.Transport", _TapedWire(transport, self._said))
        super().open(transport, peer, proxy, header)

    def _user(self) -> str:
        return self.session.user

    def _encrypt(self, transport: asyncio.Transport) -> None:
        taped: object = transport
        if not isinstance(taped, _TapedWire):
            super()._encrypt(transport)
            return
        super()._encrypt(cast("asyncio.Transport", taped.wire))
        self._transport = _TapedWire(self._transport, self._said)

    def buffer_updated(self, nbytes: int) -> None:
        """See Connection."""
        if self._scrubber is not None and not self._is_lingering:
            self._scrubber.heard(bytes(self._listener.buffer[:nbytes]))
        super().buffer_updated(nbytes)

    def _said(self, data: bytes) -> None:
        if self._scrubber is None:
            return
        self._scrubber.said(data)
        receiver = self._dialogue.receiver
        if receiver.session.decided_by:
            self._rules[receiver.session.decided_by] = None
        if receiver.transaction is not None:
            for recipient in receiver.transaction.envelope.recipients:
                rule = recipient.route.rule
                self._rules[f"{rule.name} ({rule.where})" if rule.where else rule.name] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See Connection."""
        super().connection_lost(exc)
        if self._scrubber is None:
            return
        door = self._door
        text = text_of(
            self.session,
            self._scrubber.lines,
            rules=self._rules,
            is_implicit_tls=door.tls is not None and door.tls.is_implicit,
            is_closed=self._dialogue.protocol.farewell is not None,
        )
        self._recording.keep(self.session, self._rules, text)
