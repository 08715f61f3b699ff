"""One connection to a server: moves the octets of a ClientSession, with a time limit for whatever it waits for.

A limit is for one reply, not for one packet: a server that sends an octet a minute is as late as one that sends none.
Bodies are read in threads, in blocks, the next one when the network has taken the last. Nothing here raises but
CancelledError, after which the connection is gone; what went wrong is in the replies.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import BinaryIO, cast

from smtpmaild.delivery.endpoint import Endpoint
from smtpmaild.delivery.options import TimeoutOptions
from smtpmaild.queue import Body
from smtpmaild.queue.body import BytesBody
from smtpmaild.smtp.client import BodyDue, ClientSession, Closed, Event, Phase, Sent
from smtpmaild.smtp.mailing import Mailing
from smtpmaild.smtp.reply import Reply

#: What is read and written at a time: large enough for one thread job per message of the usual size.
BLOCK = 256 * 1024
#: Replies that we did not ask for are not kept without bound.
_MOST_UNREAD = 1_000_000


def limits(timeouts: TimeoutOptions) -> Mapping[Phase, float]:
    """Seconds for each phase of a session."""
    return {
        **dict.fromkeys(Phase, timeouts.command),
        Phase.GREETING: timeouts.greeting,
        Phase.DATA: timeouts.data,
        Phase.BODY: timeouts.block,
        Phase.END_OF_DATA: timeouts.end_of_data,
        Phase.QUIT: timeouts.quit,
    }


class Channel(asyncio.Protocol):
    """A connection and its session. messages: that were sent over it.  is_secure: TLS stands, is_verified: and the
    certificate is the server's."""

    def __init__(self, session: ClientSession, endpoint: Endpoint, limits: Mapping[Phase, float]) -> None:
        self.session = session
        self.endpoint = endpoint
        self.messages = 0
        self.is_secure = False
        self.is_verified = False
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # those of uvloop are no instances of it

    def data_received(self, data: bytes) -> None:
        self.session.receive_data(data)
        if self.session.unread > _MOST_UNREAD:
            self.abort()
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.connection_lost()
        self._gone.set()
        self._arrived.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What is done over it

    async def event(self) -> Event:
        """The next thing that happens; that nothing does in time is one of them."""
        session = self.session
        loop = asyncio.get_running_loop()
        answered, deadline = session.answered, loop.time() + self._limits[session.phase]
        while True:
            self._arrived.clear()
            event = session.next_event()
            self._flush()
            if event is not None:
                return event
            if not session.is_sound:
                raise RuntimeError("nothing is asked for that could still happen")
            if session.answered != answered:
                answered, deadline = session.answered, loop.time() + self._limits[session.phase]
            if not await _set_before(self._arrived, deadline):
                session.timed_out()

    async def send(self, mailing: Mailing, body: Body) -> tuple[Reply, ...]:
        """One transaction: the reply for each of its recipients."""
        self.messages += 1
        self.session.send(mailing)
        event = await self.event()
        if isinstance(event, BodyDue):
            event = await self._write(body)
        assert isinstance(event, Sent)
        return event.replies

    async def _write(self, body: Body) -> Event:
        """What comes of the body, or of the way to its end."""
        try:
            if isinstance(body, BytesBody):  # a thread costs more than there is to do
                stream, block = _open(body)
            else:
                stream, block = await asyncio.to_thread(_open, body)
        except OSError as error:
            self.session.abandon("4.3.0", f"Cannot read the message: {error.strerror}")
            return await self.event()
        try:
            return await self._write_blocks(stream, block)
        except OSError as error:
            self.session.abandon("4.3.0", f"Cannot read the message: {error.strerror}")
            return await self.event()
        finally:
            stream.close()

    async def _write_blocks(self, stream: BinaryIO, block: bytes) -> Event:
        session, loop = self.session, asyncio.get_running_loop()
        while session.wants_body:
            session.write(block)
            if len(block) < BLOCK:  # the last, in one write with the end of data
                session.end_body()
                break
            self._flush()
            if not await _set_before(self._writable, loop.time() + self._limits[Phase.BODY]):
                session.timed_out()
            # A server may refuse before it has seen everything.
            if (event := session.next_event()) is not None:
                return event
            block = await asyncio.to_thread(stream.read, BLOCK)
        return await self.event()

    async def start_tls(self, context: ssl.SSLContext, seconds: float) -> None:
        """The handshake that is due; raises OSError or ValueError where it fails, and the connection is gone."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                self._transport, self, context, server_hostname=self.endpoint.name, ssl_handshake_timeout=seconds
            )
            assert transport is not None
        except BaseException:
            self.abort()
            raise
        self._transport = transport
        self.note_tls(context)

    def note_tls(self, context: ssl.SSLContext) -> None:
        """TLS stands."""
        self.is_secure = True
        self.is_verified = context.verify_mode is ssl.CERT_REQUIRED

    @property
    def is_reusable(self) -> bool:
        """Another message can be sent: the server has neither gone nor said anything since the last."""
        return self.session.is_sound and not self.session.unread and not self._gone.is_set()

    async def quit(self) -> None:
        """Take leave, and wait until the connection is closed."""
        try:
            self.session.quit()
            while not isinstance(await self.event(), Closed):
                pass
            if self._transport is not None and not self._gone.is_set():
                self._transport.close()
                await _set_before(self._gone, asyncio.get_running_loop().time() + self._limits[Phase.QUIT])
        finally:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None and not self._gone.is_set():
            self._transport.abort()

    def _flush(self) -> None:
        data = self.session.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _open(body: Body) -> tuple[BinaryIO, bytes]:
    """With the first block, which is all there is of most messages: one thread job for both."""
    stream = body.open()
    try:
        return stream, stream.read(BLOCK)
    except BaseException:
        stream.close()
        raise


async def _set_before(event: asyncio.Event, deadline: float) -> bool:
    """True as soon as it is set, False at the deadline (of the loop's clock)."""
    if event.is_set():
        return True
    try:
        async with asyncio.timeout_at(deadline):
            await event.wait()
    except TimeoutError:
        return False
    return True
