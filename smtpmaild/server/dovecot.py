"""The connection to Dovecot's authentication socket: one for each worker, made when it is first needed.

Where Dovecot is away every request fails at once until it is time to try again, a little later each time; what was
waiting for an answer when the connection broke fails too. Nothing is ever asked twice: the client does that.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Any, cast

from smtpmaild.auth.dovecot import Answer, Continue, Conversation, DovecotError
from smtpmaild.auth.relayed import Unavailable
from smtpmaild.facts import Log

# How long the connection and Dovecot's greeting may take, and an answer: PAM and LDAP take their time, and Dovecot
# answers wrong passwords two seconds late.
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_FIRST_RETRY, _LAST_RETRY = 0.1, 15.0


class DovecotSocket:
    """A Companion, and what auth/relayed.py asks. In the loop's thread."""

    def __init__(self, path: str, log: Log) -> None:
        self._path = path
        self._log = log
        self._link: _Link | None = None
        self._connecting: asyncio.Task[_Link | None] | None = None
        self._trouble = ""
        self._retry_at = 0.0
        self._retry_after = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """As the seam says: nothing. Dovecot may come up after us."""

    async def stop(self) -> None:
        """As the seam says."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.abort("we are stopping")

    async def ask(self, mechanism: str, parameters: Sequence[str], initial: bytes | None) -> tuple[_Request, Answer]:
        """As the seam says."""
        request = _Request(await self._connected())
        return request, await request.begin(mechanism, parameters, initial)

    async def _connected(self) -> _Link:
        if self._link is not None and not self._link.is_lost:
            return self._link
        loop = asyncio.get_running_loop()
        if self._connecting is None:
            if loop.time() < self._retry_at:
                raise Unavailable(self._trouble)
            self._connecting = loop.create_task(self._connect(loop))
        # Several sessions may wait for it; when one of them gives up, the others still do.
        link = await asyncio.shield(self._connecting)
        if link is None:
            raise Unavailable(self._trouble)
        return link

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _Link | None:
        link = _Link()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.create_unix_connection(lambda: link, self._path)
                await link.ready
        except (OSError, Unavailable) as error:  # TimeoutError too
            link.abort("it does not greet")
            self._failed(_cause(error), loop.time())
            return None
        finally:
            self._connecting = None
        self._link, self._trouble, self._retry_after = link, "", 0.0
        self._log.info("dovecot_connected", path=self._path, mechanisms=[*link.conversation.mechanisms])
        return link

    def _failed(self, cause: str, now: float) -> None:
        self._retry_after = min(max(2 * self._retry_after, _FIRST_RETRY), _LAST_RETRY)
        self._retry_at = now + self._retry_after
        trouble = f"{self._path}: {cause}"
        if trouble != self._trouble:  # once for each new trouble
            self._trouble = trouble
            self._log.error("dovecot_unavailable", path=self._path, cause=cause)


class _Link(asyncio.Protocol):
    """One connection. ready: done when Dovecot has said all of its greeting."""

    def __init__(self) -> None:
        self.conversation = Conversation(os.getpid())
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_lost = False
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's do not inherit from it
        self._transport.write(self.conversation.hello())

    def data_received(self, data: bytes) -> None:
        try:
            answers = self.conversation.receive_data(data)
        except DovecotError as error:
            self.abort(str(error))
            return
        if self.conversation.is_ready and not self.ready.done():
            self.ready.set_result(None)
        for request, answer in answers:
            waiting = self._waiting.pop(request, None)  # None: cancelled
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._lose("the connection broke")

    def abort(self, cause: str) -> None:
        """Close it; whoever waits is told why."""
        if self._transport is not None:
            self._transport.abort()
        self._lose(cause)

    def _lose(self, cause: str) -> None:
        self.is_lost = True
        futures: list[asyncio.Future[Any]] = [self.ready, *self._waiting.values()]
        for future in futures:
            if not future.done():
                future.set_exception(Unavailable(cause))
                future.exception()  # nobody may wait for it any more
        self._waiting.clear()

    async def answer_to(self, request: int, line: bytes) -> Answer:
        """Send a line and wait for what comes back."""
        if self.is_lost or self._transport is None:
            raise Unavailable("the connection broke")
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request] = waiting
        self._transport.write(line)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await waiting
        except TimeoutError:
            self.forget(request)
            raise Unavailable(f"no answer within {_ANSWER_SECONDS:g} seconds") from None
        finally:
            self._waiting.pop(request, None)

    def forget(self, request: int) -> None:
        """Tell Dovecot that nobody wants to know any more."""
        if not self.is_lost and self._transport is not None:
            self._transport.write(self.conversation.cancel(request))


class _Request:
    """As the seam says."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._number = 0
        self._is_open = False

    async def begin(self, mechanism: str, parameters: Sequence[str], initial: bytes | None) -> Answer:
        self._number, line = self._link.conversation.request(mechanism, parameters, initial)
        return await self._answer(line)

    async def proceed(self, data: bytes) -> Answer:
        """As the seam says."""
        return await self._answer(self._link.conversation.proceed(self._number, data))

    async def _answer(self, line: bytes) -> Answer:
        self._is_open = True
        answer = await self._link.answer_to(self._number, line)
        self._is_open = isinstance(answer, Continue)
        return answer

    def cancel(self) -> None:
        """As the seam says."""
        if self._is_open:
            self._is_open = False
            self._link.forget(self._number)


def mechanisms_of(path: str, seconds: float = 1.0) -> tuple[str, ...]:
    """What Dovecot offers now; nothing if it does not answer. Blocks for so long at most."""
    conversation = Conversation(os.getpid())
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(path)
            connection.sendall(conversation.hello())
            while not conversation.is_ready and (data := connection.recv(4096)):
                conversation.receive_data(data)
    except (OSError, DovecotError):
        return ()
    return conversation.mechanisms if conversation.is_ready else ()


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not greet"
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
