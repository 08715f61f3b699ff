"""One client connection: the transport on one side, the dialogue on the other.

Reads into a buffer that all connections share, writes all replies of a wake-up at once, and keeps a single deadline
that the listener's sweep looks at: no timer and no task of its own. Input that comes while a decision is on its way,
or while the client does not read our replies, waits: one read of it, then the transport stops reading. With TLS the
transport is an Encryption, put over the real one before the greeting or after STARTTLS; nothing else is different.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, cast

from smtpmaild.auth import ChannelBinding
from smtpmaild.dialogue import Dialogue
from smtpmaild.envelope import IpAddress, Peer, Session, Tls
from smtpmaild.server.encryption import Encryption
from smtpmaild.server.proxy_protocol import Header
from smtpmaild.smtp import reply as replies
from smtpmaild.smtp.reply import Reply

if TYPE_CHECKING:
    from smtpmaild.server.listener import Door, Listener

# After our last reply a client may still be sending. Closing then would make the kernel answer with a reset, which
# can overtake the reply; so we close our half and listen to the rest of it for a moment.
_LINGER_SECONDS = 2.0
# A body is only held to its minimum rate after this long: a slow start is no attack.
_RATE_GRACE_SECONDS = 30.0


class Wire(Protocol):
    """What of a transport is used: that of the loop, or an Encryption on top of it."""

    def write(self, data: bytes, /) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """The protocol object of one transport.

    deadline: on the loop's clock, when `expire` is to be called.
    """

    __slots__ = (
        "_at_eof", "_body_bytes", "_body_since", "_dialogue", "_door", "_ends_at", "_handshake", "_ip",
        "_is_lingering", "_is_paused", "_is_stalled", "_listener", "_transport", "_writes_are_paused", "deadline",
    )  # fmt: skip

    _dialogue: Dialogue
    _transport: Wire

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._door: Door = listener.door
        self._ip: IpAddress | None = None
        self._is_paused = False
        self._is_stalled = False  # the session goes on in the next turn of the loop: other clients are served between
        self._writes_are_paused = False
        self._is_lingering = False
        self._at_eof = False
        self._handshake: Encryption | None = None  # under way
        self._body_since = 0.0
        self._body_bytes = 0
        self._ends_at = math.inf
        self.deadline = math.inf

    @property
    def ip(self) -> IpAddress | None:
        """Of the client it is counted for."""
        return self._ip

    @property
    def session(self) -> Session:
        """The session as policies know it."""
        return self._dialogue.receiver.session

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = peer_of(transport)
        if is_gone(transport, peer):
            cast("asyncio.Transport", transport).set_protocol(asyncio.Protocol())
            cast("asyncio.Transport", transport).abort()
        else:
            self.open(cast("asyncio.Transport", transport), peer)  # uvloop's do not inherit from it

    def open(
        self, transport: asyncio.Transport, peer: Peer, proxy: Peer | None = None, header: Header | None = None
    ) -> None:
        """Begin the session of this client: count it, and greet it unless it is one too many.

        proxy, header: who told us of the client, and what.
        """
        listener, door = self._listener, self._door
        self._transport = transport
        self._ip = peer.ip
        self._dialogue = Dialogue(door.service_for(peer), peer, self._spawn, self._changed)
        if header is not None:
            session = self._dialogue.receiver.session
            session.proxy, session.is_probe, session.proxy_facts = proxy, header.is_probe, header.facts
        if door.xclient_networks:
            self._dialogue.receiver.admit = self._admit
        now = listener.loop.time()
        if door.timeouts.session:
            self._ends_at = now + door.timeouts.session
        if door.tls is not None and door.tls.is_implicit:
            self._encrypt(transport)
        if not listener.welcome(self, self._ip):
            self._turn_away()
            return
        if door.service.client_names is not None and self._ip is not None:
            door.service.client_names(self._ip)  # so that it is there when the banner is due
        if self._handshake is None:
            self._greet()

    def _greet(self) -> None:
        door = self._door
        if door.greeting_delay:
            self.deadline = self._listener.loop.time() + door.greeting_delay
        else:
            self._dialogue.advance()

    # TLS

    def _encrypt(self, transport: asyncio.Transport) -> None:
        """From here on all is TLS: what comes in is a handshake, what goes out waits until that is finished."""
        listener, offer = self._listener, self._door.tls
        assert offer is not None, "there is no STARTTLS without certificates"
        self._resume_reading()
        self._transport = self._handshake = Encryption(
            self, transport, offer.context, listener.handshakes, listener.loop, listener.encrypted
        )
        self.deadline = min(listener.loop.time() + self._door.timeouts.tls_handshake, self._ends_at)

    def encrypted(self, tls: Tls, binding: ChannelBinding | None) -> None:
        """The handshake is finished."""
        self._handshake = None
        self._dialogue.receiver.service.metrics.tls_handshakes += 1
        self._dialogue.secure(tls, binding)
        if self._dialogue.protocol.has_begun:
            self._set_deadline(has_progress=True)
        else:
            self._greet()

    def encryption_failed(self, reason: str) -> None:
        """The handshake will not be finished; the connection is being closed."""
        self._handshake = None
        service, session = self._dialogue.receiver.service, self._dialogue.receiver.session
        service.metrics.tls_handshakes_failed += 1
        service.log.info(
            "tls_handshake_failed",
            session_id=session.session_id,
            listener=self._door.name,
            peer=str(session.peer),
            reason=reason,
        )

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_lingering:
            return
        data = bytes(self._listener.buffer[:nbytes])
        dialogue = self._dialogue
        if dialogue.is_busy or self._is_stalled or self._writes_are_paused or not dialogue.protocol.has_begun:
            # Clients that wait for their replies never come here, so the two system calls of pausing are rare.
            dialogue.protocol.receive_data(data)
            self._pause_reading()
            if not dialogue.protocol.has_begun:
                dialogue.receiver.session.talked_early = True
            return
        self._body_bytes += nbytes
        dialogue.receive_data(data)

    def eof_received(self) -> bool:
        # The client may have closed its half only: `printf ... | nc` still waits for the replies.
        self._at_eof = True
        if self._is_lingering or not (self._dialogue.is_busy or self._writes_are_paused):
            self._transport.close()
        return True

    def pause_writing(self) -> None:
        self._writes_are_paused = True

    def resume_writing(self) -> None:
        self._writes_are_paused = False
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline = math.inf
        self._dialogue.stop(str(exc) if exc else "connection lost")
        self._listener.forget(self, self._ip)

    # What the dialogue calls

    def _admit(self, client: Peer) -> Reply | None:
        """Count this client in place of the one before."""
        before, self._ip = self._ip, client.ip
        return None if self._listener.exchange(before, self._ip) else self._too_many()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        tasks = self._listener.tasks
        task = self._listener.loop.create_task(work)
        tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(tasks.discard)

    def _changed(self) -> None:
        """There may be something to send, the session may be over, the next deadline may be another."""
        dialogue, transport = self._dialogue, self._transport
        protocol = dialogue.protocol
        was_stalled = protocol.is_stalled
        output = protocol.data_to_send()
        if transport.is_closing():
            return
        if output:
            transport.write(output)  # one system call for all replies of a pipelined group
        if protocol.is_closed:
            self._hang_up()
            return
        if protocol.is_upgrading:
            if self._handshake is None:
                self._encrypt(cast("asyncio.Transport", transport))
            return
        self._set_deadline(has_progress=bool(output))
        if dialogue.is_busy or self._writes_are_paused:
            return
        if was_stalled:
            self._is_stalled = True
            self._listener.loop.call_soon(self._go_on)
        elif self._at_eof:
            transport.close()
        else:
            self._resume_reading()

    def _go_on(self) -> None:
        """What held the session up may be over."""
        self._is_stalled = False
        if not self._writes_are_paused and self._handshake is None and not self._transport.is_closing():
            self._dialogue.advance()

    def _set_deadline(self, *, has_progress: bool) -> None:
        timeouts = self._door.timeouts
        protocol = self._dialogue.protocol
        if self._dialogue.is_busy:
            self.deadline = math.inf  # ours to wait for, not the peer's fault
            return
        if protocol.is_reading_body:
            now = self._listener.loop.time()
            if not self._body_since:
                self._body_since, self._body_bytes = now, 0
            seconds = timeouts.data_block
        elif has_progress:
            now = self._listener.loop.time()
            self._body_since = 0.0
            seconds = timeouts.command if self._dialogue.receiver.session.hello else timeouts.greeting
        else:
            return  # half a command line: the deadline stays, or a byte a minute would hold the session for ever
        self.deadline = min(now + seconds, self._ends_at)

    # The end

    def expire(self, now: float) -> None:
        """is_overdue() was true."""
        dialogue = self._dialogue
        if self._is_lingering or self._transport.is_closing():
            self._transport.abort()
        elif self._handshake is not None:
            self._handshake.fail("the client took too long")
        elif not dialogue.protocol.has_begun:
            self.deadline = now + self._door.timeouts.greeting
            self._resume_reading()
            dialogue.advance()
        else:
            self.deadline = math.inf
            dialogue.time_out()

    def is_overdue(self, now: float) -> bool:
        """The deadline has passed, or a body comes in under the minimum rate."""
        if self.deadline <= now:
            return True
        if not self._body_since or not self._door.body_rate or self._dialogue.is_busy:
            return False
        seconds = now - self._body_since
        return seconds > _RATE_GRACE_SECONDS and self._body_bytes < seconds * self._door.body_rate

    def drain(self) -> None:
        """End at the next command."""
        self._dialogue.protocol.shut_down()

    def abort(self) -> None:
        """End now, with a word of it to a client that listens; one whose message is being stored hears of that first.

        Call it again when the stores have answered.
        """
        if self._dialogue.is_storing:
            self.drain()
        elif not (self._is_lingering or self._transport.is_closing()):
            self._dialogue.refuse(replies.SHUTTING_DOWN)

    def kill(self) -> None:
        """End without a word."""
        self._transport.abort()

    def _turn_away(self) -> None:
        service = self._dialogue.receiver.service
        service.metrics.sessions_refused += 1
        service.log.warning(
            "connection_limit_reached", listener=self._door.name, peer=str(self._dialogue.receiver.session.peer)
        )
        self._dialogue.refuse(self._too_many())

    def _too_many(self) -> Reply:
        # In place of the greeting, so without an enhanced code (RFC 2034 §4).
        hostname = self._door.service.dialect.options.hostname
        return Reply(421, "", f"{hostname} Too many connections, try again later")

    def _hang_up(self) -> None:
        farewell = self._dialogue.protocol.farewell
        if self._at_eof or farewell is None or farewell.is_positive:
            self._transport.close()
            return
        self._is_lingering = True
        self.deadline = self._listener.loop.time() + _LINGER_SECONDS
        self._resume_reading()
        try:
            self._transport.write_eof()
        except OSError:  # asyncio's transport shuts down at once, and finds the client gone; uvloop's does it later
            self._transport.abort()

    def _pause_reading(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()


def is_gone(transport: asyncio.BaseTransport, peer: Peer) -> bool:
    """A TCP connection that was reset has no peer any more, though what it sent can still be read: from whom was it?"""
    return not peer.host and transport.get_extra_info("socket").family != socket.AF_UNIX


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """Who is at the other end; Peer("") for a Unix socket."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return Peer("")
    host = name[0].partition("%")[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return Peer(host, name[1])
