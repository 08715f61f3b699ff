"""One session over a pair of streams: standard input and output (inetd), a pipe, or a socket a program opened.

Slower than connection.py and simpler: one task that reads, decides and writes in turn. Memory is bounded the same way,
as nothing more is read while a decision is on its way or replies wait to be written.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Coroutine
from typing import Any

from smtpmaild.dialogue import CONNECTION_LOST, Dialogue
from smtpmaild.envelope import Peer
from smtpmaild.server.streams import Reader, Writer, open_streams
from smtpmaild.server.tls_streams import TlsStreams
from smtpmaild.service import Service
from smtpmaild.tls.handshake import channel_binding, facts_of

_READ_SIZE = 64 * 1024
# The last line of a 4yz or 5yz reply.
_ERROR = re.compile(rb"^[45]\d\d ", re.MULTILINE)
# How long a client may take to begin TLS.
_HANDSHAKE_SECONDS = 30.0


class StreamSession:
    """One session.

    idle_timeout: seconds for the peer to send something or to take what we send, 0 for ever.  error_sleep_time:
    seconds to wait before each 4yz and 5yz, in this session only.  context: what TLS begins with; None where there is
    none.  is_implicit: it comes before the banner, not after STARTTLS.
    """

    def __init__(
        self,
        service: Service,
        peer: Peer,
        *,
        idle_timeout: float = 300.0,
        error_sleep_time: float = 0.0,
        context: ssl.SSLContext | None = None,
        is_implicit: bool = False,
    ) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._idle_timeout = idle_timeout or None
        self._error_sleep_time = error_sleep_time
        self._context = context
        self._converse_first = self._converse_within_tls if is_implicit else self._converse
        self.dialogue = Dialogue(service, peer, self._spawn, self._changed.set)

    async def run(self, reader: Reader, writer: Writer) -> None:
        """Send the banner and serve until the session ends; the caller closes the streams.

        Streams that are within TLS already say so themselves, where they are asyncio's.
        """
        reason = CONNECTION_LOST
        try:
            if isinstance(writer, asyncio.StreamWriter) and (tls := writer.get_extra_info("ssl_object")) is not None:
                self.dialogue.secure(facts_of(tls), channel_binding(tls))
            await self._converse_first(reader, writer)
        except OSError as error:  # TimeoutError too: the peer does not read its replies
            reason = str(error) or "timeout while sending"
        finally:
            self.dialogue.stop(reason)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _converse(self, reader: Reader, writer: Writer) -> None:
        dialogue = self.dialogue
        dialogue.advance()
        is_open = True
        while True:
            await self._write(writer)
            if dialogue.is_busy:
                self._changed.clear()
                await self._changed.wait()
            elif dialogue.protocol.is_closed or not is_open:
                return
            elif dialogue.is_upgrading:
                await self._converse_within_tls(reader, writer)
                return
            else:
                is_open = await self._read(reader)

    async def _converse_within_tls(self, reader: Reader, writer: Writer) -> None:
        assert self._context is not None, "a service without TLS offers no STARTTLS"
        streams = TlsStreams(reader, writer, self._context)
        await streams.handshake(_HANDSHAKE_SECONDS)
        self.dialogue.secure(facts_of(streams.tls), channel_binding(streams.tls))
        await self._converse(streams, streams)
        await streams.say_goodbye()

    async def _read(self, reader: Reader) -> bool:
        """Take the next input, or the lack of it, to the dialogue. False: there will be no more."""
        try:
            async with asyncio.timeout(self._idle_timeout):
                data = await reader.read(_READ_SIZE)
        except TimeoutError:
            self.dialogue.time_out()
            return True
        self.dialogue.receive_data(data)
        return bool(data)

    async def _write(self, writer: Writer) -> None:
        """Send all there is to send, and decide what had to wait for that."""
        protocol = self.dialogue.protocol
        while output := protocol.data_to_send():
            if self._error_sleep_time:
                await asyncio.sleep(self._error_sleep_time * len(_ERROR.findall(output)))
            async with asyncio.timeout(self._idle_timeout):
                writer.write(output)
                await writer.drain()
            self.dialogue.advance()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def serve_standard_io(
    service: Service, idle_timeout: float, context: ssl.SSLContext | None = None, *, is_implicit: bool = False
) -> None:
    """One session on standard input and output, as inetd starts them; its peer is that of the socket on them, if any.

    Whoever calls starts the stores of the service before and stops them after.
    """
    async with open_streams(0, 1) as (reader, writer, peer):
        session = StreamSession(service, peer, idle_timeout=idle_timeout, context=context, is_implicit=is_implicit)
        await session.run(reader, writer)
