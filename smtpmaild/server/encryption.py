"""TLS of one connection: the protocol of its transport, and the transport of its Connection.

    socket ─▶ transport ─▶ Encryption ─▶ Connection          what the client sends, decrypted on the way
    socket ◀─ transport ◀─ Encryption ◀─ Connection          what we send, encrypted on the way

It is put between the two when TLS begins, before the greeting or after STARTTLS, and is then all there is: no task, no
timer, and nothing that came before it is ever decrypted, nor what comes within it taken for clear text. The Connection
cannot tell it from a transport: it pauses, closes and half-closes as ever.

Not the loop's own start_tls: that keeps a task for each handshake and a buffer of 256 KiB for each connection, and may
deliver the first bytes before it says that TLS stands. Here all connections of a listener share their buffers, and a
handshake waits for its turn (handshakes.py). The work itself is OpenSSL's, by way of ssl.SSLObject.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

from smtpmaild.server.handshakes import Handshakes
from smtpmaild.tls.contexts import TlsObject
from smtpmaild.tls.handshake import channel_binding, facts_of

if TYPE_CHECKING:
    from smtpmaild.server.connection import Connection

# OpenSSL's memory for what it has not decrypted yet grows to what it is given at once, and stays: little enough for
# thousands of sessions, and enough that a record (16 KiB) is seldom cut.
_PIECE = 32 * 1024
# While the client is a stranger: a ClientHello has 0.2 to 2 KiB, a client's chain of certificates seldom 10.
_HANDSHAKE_PIECE = 16 * 1024


class _State(Enum):
    SHAKING = "hands are being shaken"
    OPEN = "TLS stands"
    CLOSED = "what still comes is dropped"


class Encryption(asyncio.BufferedProtocol):
    """Begins with the first bytes of a handshake that the client sends; tells the connection how it ends.

    buffer: where the loop reads to, shared by many; nothing is kept in it.
    """

    __slots__ = (
        "_buffer", "_connection", "_error", "_handshakes", "_has_ended", "_incoming", "_is_clogged", "_is_paused",
        "_is_raw_paused", "_loop", "_outgoing", "_state", "_tls", "_transport",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        transport: asyncio.Transport,
        context: ssl.SSLContext,
        handshakes: Handshakes,
        loop: asyncio.AbstractEventLoop,
        buffer: memoryview,
    ) -> None:
        self._connection: Connection | None = connection
        self._transport = transport
        self._handshakes = handshakes
        self._loop = loop
        self._buffer = buffer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        assert isinstance(tls, TlsObject)
        self._tls = tls
        self._state = _State.SHAKING
        self._error: Exception | None = None
        self._has_ended = False  # the client says that it sends no more; it may still be waiting for replies
        self._is_paused = False  # as the connection wants it
        self._is_clogged = False  # the client does not read
        self._is_raw_paused = False
        transport.set_protocol(self)

    # What the loop calls

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer if self._state is _State.OPEN else self._buffer[:_HANDSHAKE_PIECE]

    def buffer_updated(self, nbytes: int) -> None:
        state = self._state
        if state is _State.OPEN:
            self._receive(nbytes)
        elif state is _State.SHAKING:
            is_next = not self._incoming.pending
            self._incoming.write(self._buffer[:nbytes])
            if is_next:
                self._handshakes.join(self)
            else:  # it is waiting for its turn already
                self._pause_raw()

    def eof_received(self) -> bool:
        connection = self._connection
        if connection is None:
            return False
        if self._state is _State.SHAKING:
            self.fail("the client closed the connection")
            return False
        return connection.eof_received()

    def pause_writing(self) -> None:
        # A client that has its keys changed over and over, and never reads what we say to it, costs no more than this.
        self._is_clogged = True
        self._pause_raw()
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._is_clogged = False
        if self._connection is not None:
            self._connection.resume_writing()
        self._resume_raw()

    def connection_lost(self, exc: Exception | None) -> None:
        connection = self._connection
        if self._state is _State.SHAKING:
            self.fail(str(exc) if exc else "connection lost")
        self._state = _State.CLOSED
        self._connection = None  # it holds us; such circles wait for the collector
        if connection is not None:
            connection.connection_lost(self._error or exc)

    # The handshake

    def proceed(self) -> None:
        """It is our turn: answer what the client has sent."""
        self._shake()
        self._resume_raw()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()  # the alert that tells the client why
            self.fail(_words(error))
            return
        self._state = _State.OPEN
        self._handshakes.leave(self)
        # What OpenSSL has to say at the end, a session ticket, leaves together with the greeting: of two small writes
        # Nagle's algorithm would hold the second back for 40 ms.
        if self._connection is not None:
            self._connection.encrypted(facts_of(self._tls), channel_binding(self._tls))
        self._decrypt(_NOTHING)

    def fail(self, reason: str) -> None:
        """TLS does not come to stand: end the connection."""
        if self._state is not _State.SHAKING:
            return
        self._state = _State.CLOSED
        self._error = ConnectionError(f"TLS handshake: {reason}")
        self._handshakes.leave(self)
        if self._connection is not None:
            self._connection.encryption_failed(reason)
        self._transport.close()

    # What comes in

    def _receive(self, nbytes: int) -> None:
        buffer = self._buffer
        if nbytes <= _PIECE:
            self._incoming.write(buffer[:nbytes])
            self._decrypt(_NOTHING)
            return
        pieces = iter([buffer[start : min(start + _PIECE, nbytes)] for start in range(0, nbytes, _PIECE)])
        self._decrypt(pieces)
        for piece in pieces:  # the connection said stop; the buffer is not ours to keep
            self._incoming.write(piece)

    def _decrypt(self, pieces: Iterator[memoryview]) -> None:
        """Hand over what is there, as much at a time as the connection's buffer holds, until it says stop.

        pieces: of what came in, for OpenSSL to take one after the other.
        """
        connection, is_drained = self._connection, False
        while not (is_drained or self._is_paused or self._has_ended) and self._state is _State.OPEN:
            assert connection is not None, "it is there until the state is another"
            try:
                filled, is_drained = self._fill(connection.get_buffer(-1), pieces)
            except ssl.SSLError as error:
                self._break_off(error)
                return
            if filled:
                connection.buffer_updated(filled)
            elif not is_drained:
                self._has_ended = True
                connection.eof_received()
        if self._outgoing.pending:  # OpenSSL's own words: new keys that the client asked for
            self._flush()

    def _fill(self, buffer: memoryview, pieces: Iterator[memoryview]) -> tuple[int, bool]:
        """Octets that were put into the buffer, and whether that was all there is. (0, False): close_notify."""
        tls, incoming = self._tls, self._incoming
        filled, size = 0, len(buffer)
        while filled < size:
            try:
                # A command is a record: when it was read nothing is left, and the exception would cost as much again.
                if incoming.pending or not filled:
                    count = tls.read(size - filled, buffer[filled:])
                    if not count:
                        return filled, False
                    filled += count  # type: ignore[operator]  # into a buffer it is the number
                    continue
            except ssl.SSLWantReadError:
                pass
            piece = next(pieces, None)
            if piece is None:
                return filled, True
            incoming.write(piece)
        return filled, False

    def _break_off(self, error: ssl.SSLError) -> None:
        """What came in is no TLS, or what goes out cannot be: nothing more can be said but OpenSSL's alert."""
        self._flush()
        self._error = ConnectionError(f"TLS: {_words(error)}")
        self._state = _State.CLOSED
        self._transport.close()

    # What the connection calls

    def write(self, data: bytes) -> None:
        """Dropped before TLS stands: nothing is ever sent in clear."""
        if self._state is not _State.OPEN:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self._break_off(error)
            return
        self._transport.write(self._outgoing.read())

    def write_eof(self) -> None:
        """We send no more; what the client still sends is dropped."""
        self._say_goodbye()
        self._transport.write_eof()

    def close(self) -> None:
        self._say_goodbye()
        self._transport.close()

    def _say_goodbye(self) -> None:
        if self._state is _State.OPEN:
            try:
                self._tls.unwrap()
            except ssl.SSLError:  # it would wait for the client's; RFC 8446 §6.1 lets us go without
                pass
            self._flush()
        self._handshakes.leave(self)
        self._state = _State.CLOSED

    def abort(self) -> None:
        self._handshakes.leave(self)
        self._state = _State.CLOSED
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._is_paused = True
        self._pause_raw()

    def resume_reading(self) -> None:
        self._is_paused = False
        if self._state is _State.OPEN and (self._incoming.pending or self._tls.pending()):
            self._loop.call_soon(self._go_on)  # not from here: we are called from amidst a decision
        else:
            self._resume_raw()

    def _go_on(self) -> None:
        self._decrypt(_NOTHING)
        self._resume_raw()

    # The transport below

    def _flush(self) -> None:
        if self._outgoing.pending and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    def _pause_raw(self) -> None:
        if not self._is_raw_paused:
            self._is_raw_paused = True
            self._transport.pause_reading()

    def _resume_raw(self) -> None:
        if self._is_raw_paused and not (self._is_paused or self._is_clogged or self._transport.is_closing()):
            self._is_raw_paused = False
            self._transport.resume_reading()


_NOTHING: Iterator[memoryview] = iter(())


def _words(error: ssl.SSLError) -> str:
    """OpenSSL's reason as words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate of the client: {error.verify_message}"
    return error.reason.replace("_", " ").lower() if error.reason else str(error)
