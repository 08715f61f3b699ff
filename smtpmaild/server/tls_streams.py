"""TLS over a pair of streams, whatever they are: for sessions on standard input, pipes, and sockets of a program.

What encryption.py is to a transport, this is to streams.py: a Reader and a Writer over another Reader and Writer. The
work is OpenSSL's, by way of ssl.SSLObject.
"""

from __future__ import annotations

import asyncio
import ssl

from smtpmaild.server.streams import Reader, Writer

_READ_SIZE = 32 * 1024


class TlsStreams:
    """Both directions, once handshake() has returned.

    The Reader must have nothing of before TLS in its buffer: with asyncio's streams that is so when the client waits
    for the 220, as it must, and the engine has refused what came before it.
    """

    def __init__(self, reader: Reader, writer: Writer, context: ssl.SSLContext) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self, seconds: float) -> None:
        """Let TLS begin. Raises OSError (ssl.SSLError, TimeoutError) where it does not, within so many seconds."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    self.tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self.drain()
                    await self._fill()
                except ssl.SSLError:
                    await self.drain()  # the alert that tells the client why
                    raise
                else:
                    await self.drain()
                    return

    async def read(self, n: int, /) -> bytes:
        """At most `n` bytes; b"" when the client has ended, with a word or without."""
        while True:
            try:
                return self.tls.read(n)
            except ssl.SSLWantReadError:
                await self.drain()  # OpenSSL's own words: new keys that the client asked for
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def write(self, data: bytes, /) -> None:
        self.tls.write(data)

    async def drain(self) -> None:
        """Send what there is."""
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())
            await self._writer.drain()

    async def say_goodbye(self) -> None:
        """close_notify: what was sent is all of it (RFC 8446 §6.1). The client's own is not waited for."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        await self.drain()

    async def _fill(self) -> None:
        data = await self._reader.read(_READ_SIZE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
