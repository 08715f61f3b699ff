"""The TLS handshakes of one worker: so many at a time, in the order they came.

The first answer to a client is the dear part of a handshake, 1 ms of CPU. One is given in each turn of the loop, and
sessions that are open have their turn between: a flood of clients can take half of the worker, not all of it.

A handshake is in flight from that answer until it is finished, or failed, or was for so long the client's turn that it
no longer counts: clients that begin and fall silent would otherwise keep all others out. Their connection ends by its
own time limit, as that of those who wait.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

# A round trip to the other end of the world and one lost packet.
_SECONDS_THAT_COUNT = 1.0


class Handshake(Protocol):
    """What waits here."""

    def begin(self) -> None:
        """Answer the client's first message; leave() when all is over."""


class Handshakes:
    """limit: how many may be in flight."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int = 16) -> None:
        self._loop = loop
        self._limit = limit
        # In order, and each is found at once when it goes.
        self._waiting: dict[Handshake, None] = {}
        self._in_flight: dict[Handshake, float] = {}
        self._next: asyncio.Handle | None = None

    def join(self, handshake: Handshake) -> None:
        """The client has sent its first message: begin() is called when it is its turn, not before the next turn of
        the loop."""
        self._waiting[handshake] = None
        if self._next is None:
            self._schedule()

    def leave(self, handshake: Handshake) -> None:
        """It is over, or will never be; more than once does no harm."""
        self._waiting.pop(handshake, None)
        if self._in_flight.pop(handshake, None) is not None and self._waiting:
            self._schedule()

    def _schedule(self, delay: float = 0.0) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._loop.call_later(delay, self._begin_one) if delay else self._loop.call_soon(self._begin_one)

    def _begin_one(self) -> None:
        self._next = None
        if not self._waiting:
            return
        now = self._loop.time()
        if len(self._in_flight) >= self._limit:
            oldest, since = next(iter(self._in_flight.items()))
            if now < since + _SECONDS_THAT_COUNT:
                self._schedule(since + _SECONDS_THAT_COUNT - now)
                return
            del self._in_flight[oldest]
        handshake = next(iter(self._waiting))
        del self._waiting[handshake]
        self._in_flight[handshake] = now
        handshake.begin()
        if self._waiting and self._next is None:
            self._schedule()
