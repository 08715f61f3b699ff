"""One session over a pair of streams: standard input and output (inetd), a pipe, or a socket a program opened.

Slower than connection.py and simpler: a task that reads, decides and writes in turn. Memory is bounded the same way,
as nothing more is read while replies wait to be written.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from smtpmaild.dialogue import Dialogue
from smtpmaild.envelope import Peer
from smtpmaild.receiver import Service

_READ_SIZE = 64 * 1024
_ERROR_LINE = re.compile(rb"^[45]\d\d ", re.MULTILINE)


class Writer(Protocol):
    """What of asyncio.StreamWriter is used."""

    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...


class StreamSession:
    """One session. idle_timeout: seconds without input before it ends, 0 for never.  error_sleep_time: seconds to wait
    before each write that holds a 4yz or 5yz, in this session only."""

    def __init__(
        self, service: Service, peer: Peer, *, idle_timeout: float = 300.0, error_sleep_time: float = 0.0
    ) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._idle_timeout = idle_timeout or None
        self._error_sleep_time = error_sleep_time
        self.dialogue = Dialogue(service, peer, self._spawn, self._changed.set)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        """Send the banner and serve until the session ends; the caller closes the streams."""
        dialogue = self.dialogue
        reason = "connection lost"
        dialogue.advance()
        try:
            while await self._write(writer) and not dialogue.protocol.is_closed:
                if dialogue.is_busy:
                    self._changed.clear()
                    await self._changed.wait()
                elif not await self._read(reader):
                    break
        except OSError as error:
            reason = str(error)
        finally:
            dialogue.stop(reason)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _read(self, reader: asyncio.StreamReader) -> bool:
        try:
            async with asyncio.timeout(self._idle_timeout):
                data = await reader.read(_READ_SIZE)
        except TimeoutError:
            self.dialogue.time_out()
            return True
        self.dialogue.receive_data(data)
        return bool(data)

    async def _write(self, writer: Writer) -> bool:
        """Send all there is to send, and decide what had to wait for that."""
        protocol = self.dialogue.protocol
        while output := protocol.data_to_send():
            if self._error_sleep_time and _ERROR_LINE.search(output):
                await asyncio.sleep(self._error_sleep_time)
            writer.write(output)
            await writer.drain()
            self.dialogue.advance()
        return True


async def standard_streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Standard input and output of this process as streams; sockets, pipes and terminals alike."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    make: Callable[[], asyncio.streams.FlowControlMixin] = asyncio.streams.FlowControlMixin
    transport, protocol = await loop.connect_write_pipe(make, sys.stdout.buffer)
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)
