"""The TLS handshakes of one worker: so many at a time, in the order they came.

A handshake costs 1 ms of CPU, nearly all of it for one answer to the client. One answer is given in each turn of the
loop, and sessions that are open have their turn between: a flood of clients can take half of the worker, not all of it.

A handshake is in flight from the first answer until it is finished, or failed, or was for so long the client's turn
that it no longer counts: clients that begin and fall silent would otherwise keep all others out. Their connection ends
by its own time limit, as that of those who wait.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

# A round trip to the other end of the world and one lost packet.
_SECONDS_THAT_COUNT = 1.0


class Handshake(Protocol):
    """What waits here."""

    def proceed(self) -> None:
        """Answer what the client has sent; then join() for its next message, or leave() when all is over."""


class Handshakes:
    """limit: how many may be in flight."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int = 16) -> None:
        self._loop = loop
        self._limit = limit
        # In order, and each is found at once when it goes.
        self._waiting: dict[Handshake, None] = {}  # to begin
        self._answering: dict[Handshake, None] = {}  # in flight, and the client has sent something
        self._in_flight: dict[Handshake, float] = {}  # since when
        self._next: asyncio.Handle | None = None

    def join(self, handshake: Handshake) -> None:
        """The client has sent something: proceed() is called when it is its turn, not before the next turn of the
        loop."""
        if handshake in self._in_flight:
            self._answering[handshake] = None
            self._schedule()
        else:
            self._waiting[handshake] = None
            if self._next is None:
                self._schedule()

    def leave(self, handshake: Handshake) -> None:
        """It is over, or will never be; more than once does no harm."""
        self._waiting.pop(handshake, None)
        self._answering.pop(handshake, None)
        if self._in_flight.pop(handshake, None) is not None and self._waiting:
            self._schedule()

    def _schedule(self, delay: float = 0.0) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._loop.call_later(delay, self._turn) if delay else self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._next = None
        handshake = _first(self._answering) or self._begun()
        if handshake is not None:
            handshake.proceed()
            if (self._answering or self._waiting) and self._next is None:
                self._schedule()

    def _begun(self) -> Handshake | None:
        """The first of those who wait, now in flight; None where none may begin yet."""
        now = self._loop.time()
        if self._waiting and len(self._in_flight) >= self._limit:
            oldest, since = next(iter(self._in_flight.items()))
            if now < since + _SECONDS_THAT_COUNT:
                self._schedule(since + _SECONDS_THAT_COUNT - now)
                return None
            del self._in_flight[oldest]
        handshake = _first(self._waiting)
        if handshake is not None:
            self._in_flight[handshake] = now
        return handshake


def _first(queue: dict[Handshake, None]) -> Handshake | None:
    """Taken out of it."""
    handshake = next(iter(queue), None)
    if handshake is not None:
        del queue[handshake]
    return handshake
