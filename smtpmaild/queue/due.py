"""What is due, by destination and flow: so that a claim finds its work by one look-up, whatever waits in the queue.

A lane is the mail of one flow to one destination. It stands here once: ready, or asleep until its earliest mail is
due; a lane without mail does not stand here at all. `lanes()` goes around the ready destinations and takes one lane
from each in turn, and the flows of a destination take turns too: a newsletter to ten thousand recipients of one
domain delays neither other domains nor the letter of somebody else to that one.

A flow says how urgent its mail is (MT-PRIORITY). Of what is ready the more urgent comes first, three times out of four;
the fourth goes by turns, so that nothing waits for ever, however much that is urgent comes in.

A lane whose earliest mail is due AT_ONCE gives its destination one turn even where there is no room for it: so who asks
for a retry gets one probe of a destination that counts as dead, and no more.

Pure bookkeeping: knows no mail and no clock, and is asked by one thread at a time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator

from smtpmaild.queue import AT_ONCE, Room, priority_of

Lane = tuple[str, str]
_READY = float("-inf")
#: One turn of so many goes to whoever's it is, not to the most urgent.
_FAIR = 4


class _Flows:
    """The ready flows of one destination, by how urgent they are; those of one urgency take turns."""

    __slots__ = ("_by_priority", "_turns")

    def __init__(self) -> None:
        self._by_priority: dict[int, deque[str]] = {}
        self._turns = 0

    def __bool__(self) -> bool:
        return bool(self._by_priority)

    @property
    def most_urgent(self) -> int:
        return max(self._by_priority)

    def add(self, flow: str) -> None:
        self._by_priority.setdefault(priority_of(flow), deque()).append(flow)

    def take(self) -> str:
        """The next flow."""
        self._turns += 1
        first, *others = sorted(self._by_priority, reverse=True)
        if others and self._turns % _FAIR == 0:
            first = others[self._turns // _FAIR % len(others)]
        flows = self._by_priority[first]
        flow = flows.popleft()
        if not flows:
            del self._by_priority[first]
        return flow


class DueIndex:
    """The lanes of a queue."""

    def __init__(self, lanes: Iterable[tuple[str, str, float]] = ()) -> None:
        """lanes: (destination, flow, when the earliest is due)."""
        self._earliest: dict[Lane, float] = {(destination, flow): at for destination, flow, at in lanes}
        self._asleep = [(at, lane) for lane, at in self._earliest.items()]
        heapq.heapify(self._asleep)
        self._ring: deque[str] = deque()  # destinations with ready flows, the next one first
        self._ready: dict[str, _Flows] = {}
        self._urgent: set[str] = set()  # destinations that had something urgent
        self._asked_for = {destination for (destination, _), at in self._earliest.items() if at == AT_ONCE}
        self._calls = 0

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
        for lane in self._urgent_lanes(limit, room, left):
            limit -= 1
            yield lane
        while limit > 0:
            taken = 0
            for _ in range(len(self._ring)):
                destination = self._ring.popleft()
                self._ring.append(destination)
                if not self._has_turn(destination, room, left):
                    continue
                yield self._take(destination, left)
                taken += 1
                if taken == limit:
                    break
            limit -= taken
            self._wake(now)
            if not taken:
                break
        self._forget_empty()

    def _urgent_lanes(self, limit: int, room: Room, left: dict[str, int]) -> Iterator[Lane]:
        """What is more urgent than most, wherever it goes; of all that may be taken a part is left to the others."""
        self._calls += 1
        most = limit - (limit // _FAIR or self._calls % _FAIR == 0)
        while self._urgent and most > 0:
            self._urgent = {one for one in self._urgent if self._ready.get(one) and self._ready[one].most_urgent > 0}
            able = [one for one in self._urgent if self._has_turn(one, room, left)]
            for destination in sorted(able, key=lambda one: -self._ready[one].most_urgent)[:most]:
                most -= 1
                yield self._take(destination, left)
            if not able:
                break

    def _has_turn(self, destination: str, room: Room, left: dict[str, int]) -> bool:
        if destination not in left:
            left[destination] = self._room_for(destination, room)
        return left[destination] > 0 and bool(self._ready[destination])

    def _room_for(self, destination: str, room: Room) -> int:
        own = room.of.get(destination, room.other)
        if destination in self._asked_for and self._ready[destination]:
            self._asked_for.discard(destination)
            return max(own, 1)
        return own

    def _take(self, destination: str, left: dict[str, int]) -> Lane:
        left[destination] -= 1
        flow = self._ready[destination].take()
        del self._earliest[destination, flow]
        return destination, flow

    def _wake(self, now: float) -> None:
        while self._asleep and self._asleep[0][0] <= now:
            at, lane = heapq.heappop(self._asleep)
            if self._earliest.get(lane) != at:
                continue  # it was noted for an earlier time since, and that came
            self._earliest[lane] = _READY
            destination, flow = lane
            if destination not in self._ready:
                self._ready[destination] = _Flows()
                self._ring.append(destination)
            self._ready[destination].add(flow)
            if priority_of(flow) > 0:
                self._urgent.add(destination)

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
