"""The control socket, in the attendant: a line of JSON comes in, lines of JSON go out (__init__.py says which).

Who may connect is up to the permissions of the file; who did is what the kernel says (SO_PEERCRED). Everything is
bounded: connections, the length of a request, the time it may take to come, and that of a client to read its answer.
A client that went away ends what it asked for, even if that had nothing to say for the moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from smtpmaild.control.desk import Desk
from smtpmaild.control.verbs import STATUS_OF, VERBS, Done, RefusedError, Request, Verb
from smtpmaild.facts import Log
from smtpmaild.queue.shards import Who, account_name
from smtpmaild.server.sockets import KEEP_FILE

_CONNECTIONS = 50
_LONGEST_REQUEST = 256 * 1024
_REQUEST_SECONDS = 10.0
#: For a client to read some of what we have to say, or to send some of a message.
_IDLE_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_BODY_AT_ONCE = 64 * 1024
_CREDENTIALS = struct.Struct("3i")
EX_USAGE, EX_SOFTWARE, EX_TEMPFAIL = 64, 70, 75


class ControlSocket:
    """A companion of the attendant. sockets: listening ones, which stay the caller's."""

    def __init__(self, desk: Desk, sockets: Sequence[socket.socket], log: Log) -> None:
        self._desk = desk
        self._sockets = sockets
        self._log = log
        self._servers: list[asyncio.Server] = []
        self._opening: asyncio.Task[None] | None = None
        self._talks: set[asyncio.Task[None]] = set()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept connections soon."""
        self._opening = loop.create_task(self._open())

    async def _open(self) -> None:
        for sock in self._sockets:
            # The loop closes what it was given; the duplicate is its own.
            server = await asyncio.start_unix_server(self._accept, sock=sock.dup(), limit=_LONGEST_REQUEST, **KEEP_FILE)
            self._servers.append(server)

    async def stop(self) -> None:
        """Accept no more, give the answers that are under way."""
        if self._opening is not None:
            await self._opening
        for server in self._servers:
            server.close()
        try:
            if self._talks:
                await asyncio.wait(self._talks)
        finally:  # who waits for us has no more patience: end the rest, and let each put away what it has begun
            for talk in self._talks:
                talk.cancel()
            await asyncio.gather(*self._talks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            await self._talk(reader, writer)
            writer.close()
            async with asyncio.timeout(_IDLE_SECONDS):  # who does not read the rest keeps no descriptor
                await writer.wait_closed()
        except (OSError, TimeoutError):
            pass  # it is gone, or does not read
        except Exception:
            self._log.exception("control_failed")
        finally:
            self._talks.discard(task)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = _Wire(writer)
        if len(self._talks) > _CONNECTIONS:
            await wire.fail("too many commands at a time; try again", EX_TEMPFAIL)
            return
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                line = await reader.readline()
        except TimeoutError:
            await wire.fail("no request came in time", EX_USAGE)
            return
        except ValueError:
            await wire.fail(f"a request is a line of at most {_LONGEST_REQUEST} bytes", EX_USAGE)
            return
        if not line:
            return
        asked = _understood(line)
        if isinstance(asked, str):
            await wire.fail(asked, EX_USAGE)
            return
        verb, arguments = asked
        who = _who(writer.get_extra_info("socket"))
        with contextlib.ExitStack() as stack:
            body = stack.enter_context(_scratch_file()) if verb.has_body else ""
            if body and not await _receive(reader, body, arguments["size"]):
                await wire.fail("the message ended too early", EX_USAGE)
                return
            answering = asyncio.ensure_future(self._answer(verb, Request(self._desk, who, arguments, body), wire))
            await _unless_gone(answering, writer)

    async def _answer(self, verb: Verb, request: Request, wire: _Wire) -> None:
        try:
            async with contextlib.aclosing(verb.run(request)) as rows:
                async for row in rows:
                    await wire.send({"done": row.record} if isinstance(row, Done) else {"row": row})
        except RefusedError as refused:
            await wire.fail(str(refused), refused.status)
        except ConnectionError:
            raise
        except tuple(STATUS_OF) as error:
            status = next(status for kind, status in STATUS_OF.items() if isinstance(error, kind))
            await wire.fail(_words(error), status)
        except Exception:  # a mistake of ours: who asked is told, the next one is served
            self._log.exception("control_failed")
            await wire.fail("an error of smtpmaild; its log has it", EX_SOFTWARE)


class _Wire:
    """Where the answer goes."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, line: dict[str, Any]) -> None:
        self._writer.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        async with asyncio.timeout(_IDLE_SECONDS):
            await self._writer.drain()

    async def fail(self, text: str, status: int) -> None:
        await self.send({"error": text, "status": status})


def _understood(line: bytes) -> tuple[Verb, dict[str, Any]] | str:
    """The verb and its arguments, or what is wrong."""
    try:
        asked = json.loads(line)
    except ValueError:
        return 'a request is a line of JSON: {"verb": "status"}'
    except RecursionError:
        return "a request is not nested so deep"
    name = asked.get("verb") if isinstance(asked, dict) else None
    verb = VERBS.get(name) if isinstance(name, str) else None
    if verb is None:
        return f"there is no verb {name!r}; there are: {', '.join(VERBS)}"
    arguments = asked.get("arguments", {})
    if not isinstance(arguments, dict):
        return "arguments are a mapping"
    try:
        verb.check(arguments)
    except ValueError as error:
        return f"{name}: {error}"
    if verb.has_body and arguments.get("size", -1) < 0:
        return f"{name}: size is missing"
    return verb, arguments


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _who(sock: socket.socket) -> Who:
    """Who connected, by the word of the kernel."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Who(account_name(uid), uid)


@contextlib.contextmanager
def _scratch_file() -> Iterator[str]:
    with tempfile.NamedTemporaryFile(prefix="smtpmaild-", suffix=".eml") as file:
        yield file.name


async def _receive(reader: asyncio.StreamReader, path: str, size: int) -> bool:
    """Write so many bytes that come into a file; False where they end before."""
    left = size
    with open(path, "wb") as file:
        while left:
            async with asyncio.timeout(_IDLE_SECONDS):
                block = await reader.read(min(left, _BODY_AT_ONCE))
            if not block:
                return False
            await asyncio.to_thread(file.write, block)
            left -= len(block)
    return True


async def _unless_gone(answering: asyncio.Future[None], writer: asyncio.StreamWriter) -> None:
    """Wait for the answer to be given; give up when nobody is left to hear it."""
    descriptor = os.dup(writer.get_extra_info("socket").fileno())
    poll = select.poll()
    # Not POLLRDHUP: a client that only said that it has no more to ask (shutdown) still reads.
    poll.register(descriptor, 0)
    try:
        while not (await asyncio.wait([answering], timeout=_LOOK_SECONDS))[0]:
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
                answering.cancel()
        if not answering.cancelled():
            answering.result()
    finally:
        answering.cancel()
        os.close(descriptor)
        await asyncio.wait([answering])
