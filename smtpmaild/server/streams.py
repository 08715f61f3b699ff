"""Streams of whatever file descriptors are.

The loop watches sockets and pipes; regular files, terminals and devices, which it cannot watch or must not touch (a
terminal is shared with the shell, and with it the flag that makes it non-blocking), are read and written in threads.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from smtpmaild.envelope import Peer
from smtpmaild.server.connection import peer_of

_READ_SIZE = 64 * 1024
# How long a peer that goes on sending after our last reply is heard out.
_LINGER_SECONDS = 2.0
# How long the last replies may take to leave, once the session is over.
_FLUSH_SECONDS = 30.0


class Reader(Protocol):
    """What of asyncio.StreamReader is used."""

    async def read(self, n: int, /) -> bytes: ...


class Writer(Protocol):
    """What of asyncio.StreamWriter is used."""

    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...


@asynccontextmanager
async def open_streams(fd_in: int, fd_out: int) -> AsyncIterator[tuple[Reader, Writer, Peer]]:
    """Streams over two file descriptors, or twice the same; they stay open and as they were.

    In the end what was written is flushed, as long as the other side takes it.
    """
    was_blocking = {fd: os.get_blocking(fd) for fd in (fd_in, fd_out)}
    try:
        async with AsyncExitStack() as stack:
            if _is_socket(fd_in):
                reader, both = await stack.enter_async_context(_socket_streams(fd_in))
                # inetd passes one socket under three numbers. A second transport on it would take its input away.
                if os.path.sameopenfile(fd_in, fd_out):
                    yield reader, both, peer_of(both.transport)
                else:
                    yield reader, await stack.enter_async_context(_writer(fd_out)), peer_of(both.transport)
            else:
                writer = await stack.enter_async_context(_writer(fd_out))
                yield await stack.enter_async_context(_reader(fd_in)), writer, Peer("")
    finally:
        # The flag belongs to the open file, which others may use after us: the shell, the caller of process().
        for fd, blocking in was_blocking.items():
            os.set_blocking(fd, blocking)


def _is_socket(fd: int) -> bool:
    return stat.S_ISSOCK(os.fstat(fd).st_mode)


def _is_pipe(fd: int) -> bool:
    return stat.S_ISFIFO(os.fstat(fd).st_mode)


@asynccontextmanager
async def _socket_streams(fd: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    sock = socket.socket(fileno=os.dup(fd))
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield reader, writer
    finally:
        await close(writer)


@asynccontextmanager
async def _reader(fd: int) -> AsyncIterator[Reader]:
    if not _is_pipe(fd):
        yield _FileReader(fd)
        return
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(fd), "rb", buffering=0)
    )
    try:
        yield reader
    finally:
        transport.close()


@asynccontextmanager
async def _writer(fd: int) -> AsyncIterator[Writer]:
    if _is_socket(fd):
        async with _socket_streams(fd) as (_, writer):
            yield writer
    elif not _is_pipe(fd):
        yield _FileWriter(fd)
    else:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(os.dup(fd), "wb", buffering=0)
        )
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        try:
            yield writer
        finally:
            await close(writer)


async def hear_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Half-close a connection and drop what still comes in for a moment.

    Closing with input unread would make the kernel reset the connection, and the reset can overtake our last reply.
    """
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            writer.write_eof()
            while await reader.read(_READ_SIZE):
                pass
    except OSError:  # gone before us, or TimeoutError
        pass


async def close(writer: asyncio.StreamWriter) -> None:
    """Close when all is sent; a peer that does not take it in time loses it."""
    try:
        async with asyncio.timeout(_FLUSH_SECONDS):
            writer.close()
            await writer.wait_closed()
    except OSError:  # gone before us, or TimeoutError
        writer.transport.abort()


class _FileReader:
    """Reads what the loop cannot watch. One thread for each read, a daemon: a terminal that stays silent must not
    keep the process from ending."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def read(self, n: int, /) -> bytes:
        octets: Future[bytes] = Future()
        octets.set_running_or_notify_cancel()  # from here on the thread alone ends it
        threading.Thread(target=self._read_into, args=(n, octets), daemon=True).start()
        return await asyncio.wrap_future(octets)

    def _read_into(self, n: int, octets: Future[bytes]) -> None:
        try:
            octets.set_result(os.read(self._fd, n))
        except OSError as error:
            octets.set_exception(error)


class _FileWriter:
    """Writes what the loop cannot watch."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = b""

    def write(self, data: bytes, /) -> None:
        self._data += data

    async def drain(self) -> None:
        data, self._data = self._data, b""
        await asyncio.to_thread(self._write_all, data)

    def _write_all(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]
