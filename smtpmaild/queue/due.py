"""What is due, by destination and flow: so that a claim finds its work by one look-up, whatever waits in the queue.

A lane is the mail of one flow to one destination. It stands here once: ready, or asleep until its earliest mail is
due; a lane without mail does not stand here at all. `lanes()` goes around the ready destinations and takes one lane
from each in turn, and the flows of a destination take turns too: a newsletter to ten thousand recipients of one
domain delays neither other domains nor the letter of somebody else to that one.

Pure bookkeeping: knows no mail and no clock, and is asked by one thread at a time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator

from smtpmaild.queue import Room

Lane = tuple[str, str]
_READY = float("-inf")


class DueIndex:
    """The lanes of a queue."""

    def __init__(self, lanes: Iterable[tuple[str, str, float]] = ()) -> None:
        """lanes: (destination, flow, when the earliest is due)."""
        self._earliest: dict[Lane, float] = {(destination, flow): at for destination, flow, at in lanes}
        self._asleep = [(at, lane) for lane, at in self._earliest.items()]
        heapq.heapify(self._asleep)
        self._ring: deque[str] = deque()  # destinations with ready flows, the next one first
        self._ready: dict[str, deque[str]] = {}

    def __len__(self) -> int:
        return len(self._earliest)

    def note(self, destination: str, flow: str, at: float) -> None:
        """There is mail in this lane that is due then."""
        lane = (destination, flow)
        known = self._earliest.get(lane)
        if known is None or at < known:
            self._earliest[lane] = at
            heapq.heappush(self._asleep, (at, lane))

    def lanes(self, now: float, limit: int, room: Room) -> Iterator[Lane]:
        """At most `limit` lanes to take one message from. Each is forgotten: note() it again if more waits there."""
        self._wake(now)
        left: dict[str, int] = {}
        while limit > 0:
            taken = 0
            for _ in range(len(self._ring)):
                destination = self._ring.popleft()
                self._ring.append(destination)
                rest = left.setdefault(destination, room.of.get(destination, room.other))
                if rest <= 0 or not self._ready[destination]:
                    continue
                left[destination] = rest - 1
                flow = self._ready[destination].popleft()
                del self._earliest[destination, flow]
                yield destination, flow
                taken += 1
                if taken == limit:
                    break
            limit -= taken
            self._wake(now)
            if not taken:
                break
        self._forget_empty()

    def _wake(self, now: float) -> None:
        while self._asleep and self._asleep[0][0] <= now:
            at, lane = heapq.heappop(self._asleep)
            if self._earliest.get(lane) != at:
                continue  # it was noted for an earlier time since, and that came
            self._earliest[lane] = _READY
            destination, flow = lane
            if destination not in self._ready:
                self._ready[destination] = deque()
                self._ring.append(destination)
            self._ready[destination].append(flow)

    def _forget_empty(self) -> None:
        for _ in range(len(self._ring)):
            destination = self._ring.popleft()
            if self._ready[destination]:
                self._ring.append(destination)
            else:
                del self._ready[destination]
        if len(self._asleep) > 2 * len(self._earliest) + 1000:
            self._asleep = [(at, lane) for lane, at in self._earliest.items() if at != _READY]
            heapq.heapify(self._asleep)
