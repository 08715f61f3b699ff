"""Server-sent events: one `Broadcast` tells many pages what is new (WHATWG HTML, 9.2).

Whoever has news calls send(), which never waits: each page has a short queue of its own, and one that does not read
is cut off when that is full. A comment now and then shows both sides that the other is there. All in the thread of the
loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would collect what should be there at once
}
_HEARTBEAT = b":\n\n"
_FAREWELL_SECONDS = 1.0


class Broadcast:
    """Many pages, one source.

    subscribers: pages at once, more are answered 503.  waiting: events that a page may be behind.  heartbeat: seconds
    of silence.  patience: seconds that a page may take to read what was sent.
    """

    def __init__(
        self, subscribers: int = 50, waiting: int = 100, heartbeat: float = 15.0, patience: float = 30.0
    ) -> None:
        self._most = subscribers
        self._waiting = waiting
        self._heartbeat = heartbeat
        self._patience = patience
        self._streams: set[_Stream] = set()
        self._is_closed = False

    @property
    def subscribers(self) -> int:
        """Pages that listen now: nothing need be made for nobody."""
        return len(self._streams)

    def send(self, event: str, data: object) -> None:
        """Tell every page. data: becomes JSON."""
        if not self._streams:
            return
        message = encoded(event, data)
        for stream in list(self._streams):
            stream.put(message)

    def stream(self, first: Iterable[tuple[str, object]] = ()) -> ASGIApp:
        """The answer to a page that wants to listen. first: (event, data) for it alone, before all else."""
        if self._is_closed or len(self._streams) >= self._most:
            return PlainTextResponse("Too many pages listen already.\n", 503, {"retry-after": "10"})
        stream = _Stream(self._streams, self._waiting, self._heartbeat, self._patience)
        for event, data in first:
            stream.put(encoded(event, data))
        return stream

    def close(self) -> None:
        """Let every page go; they come again by themselves, to whoever serves then."""
        self._is_closed = True
        for stream in list(self._streams):
            stream.end()


def encoded(event: str, data: object) -> bytes:
    """One event as it is sent. JSON has no line feed, so no data can make an event of its own."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class _Stream(Response):
    """What one page is told."""

    def __init__(self, streams: set[_Stream], waiting: int, heartbeat: float, patience: float) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._streams = streams
        self._news: asyncio.Queue[bytes] = asyncio.Queue(waiting)
        self._heartbeat = heartbeat
        self._patience = patience
        self._task: asyncio.Task[None] | None = None
        streams.add(self)

    def put(self, message: bytes) -> None:
        """One more for this page; one too many ends it."""
        try:
            self._news.put_nowait(message)
        except asyncio.QueueFull:
            self.end()

    def end(self) -> None:
        """Let go of the page, in the middle of whatever is being sent."""
        self._streams.discard(self)
        if self._task is not None:
            self._task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self not in self._streams:
            return
        self._task = asyncio.create_task(self._tell(send))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait((self._task, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.end()
            gone.cancel()
            await asyncio.gather(self._task, gone, return_exceptions=True)
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            pass  # it does not read; the server closes the connection over it

    async def _tell(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while True:
            try:
                async with asyncio.timeout(self._heartbeat):
                    message = await self._news.get()
            except TimeoutError:
                message = _HEARTBEAT
            async with asyncio.timeout(self._patience):
                await send({"type": "http.response.body", "body": message, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
