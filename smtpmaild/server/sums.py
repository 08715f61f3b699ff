"""What all workers of the daemon have counted, the ended ones included: numbers that never go down while it lives.

A worker says with each pulse what it has counted since it began. The sums are what the ended ones said last, plus what
the living ones said last. The attendant may be replaced too, so the sums lie in memory that the supervisor has made and
its children inherit: a `Ledger` with two pages. The one that is not in use is written, then they change places, so who
dies while writing leaves the page before.

What is told is what was written, so the next attendant never knows less than this one told.

What is lost: of a worker that is killed, what it counted after its last pulse.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Collection, Mapping
from typing import Any

#: Numbers by name: a number, a list of numbers (a histogram), or a mapping of more.
Counters = Mapping[str, Any]

#: Bytes for each of the two pages; taken from the machine only as they are used.
_PAGE_SIZE = 4 * 1024 * 1024
#: Which page is in use, and how much is on it.
_HEADER = struct.Struct("=II")


def added(one: Any, other: Any) -> Any:
    """Numbers are added, lists element by element, mappings name by name. None is nothing."""
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, Mapping):
        return {name: added(one.get(name), other.get(name)) for name in {**one, **other}}
    if isinstance(one, list):
        longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
        return [added(*pair) for pair in zip(longer, [*shorter, *[None] * (len(longer) - len(shorter))], strict=True)]
    return one + other


class Ledger:
    """A text in memory that outlives who wrote it. Made before the fork; one process writes at a time."""

    def __init__(self, page_size: int = _PAGE_SIZE) -> None:
        self._page_size = page_size
        self._memory = mmap.mmap(-1, _HEADER.size + 2 * page_size)

    def write(self, data: bytes) -> bool:
        """False where it is too large: what was written before stays."""
        if len(data) > self._page_size:
            return False
        page = 1 - _HEADER.unpack_from(self._memory)[0]
        begin = _HEADER.size + page * self._page_size
        self._memory[begin : begin + len(data)] = data
        _HEADER.pack_into(self._memory, 0, page, len(data))
        return True

    def read(self) -> bytes:
        """What was written last; b"" for nothing."""
        page, size = _HEADER.unpack_from(self._memory)
        begin = _HEADER.size + page * self._page_size
        return self._memory[begin : begin + size]


class Sums:
    """What the workers have counted."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        kept = json.loads(ledger.read() or b"{}")
        self._ended: Counters = kept.get("ended", {})
        self._last: dict[int, Counters] = {int(worker): counters for worker, counters in kept.get("last", {}).items()}
        self._is_changed = False
        self.total: Counters = self._sum()  # of all of it, as it was saved last

    def note(self, worker: int, counters: Counters) -> None:
        """What this worker has counted in its life."""
        self._last[worker] = counters
        self._is_changed = True

    def keep_only(self, living: Collection[int]) -> None:
        """These workers live; what others counted stays as they left it."""
        for worker in [one for one in self._last if one not in living]:
            self._ended = added(self._ended, self._last.pop(worker))
            self._is_changed = True

    def save(self) -> None:
        """Write what has changed to the ledger, for who comes after us; then it is the total."""
        if self._is_changed:
            self._is_changed = False
            self._ledger.write(json.dumps({"ended": self._ended, "last": self._last}).encode())
            self.total = self._sum()

    def _sum(self) -> Counters:
        total = self._ended
        for counters in self._last.values():
            total = added(total, counters)
        return total
