"""How many connections are open, in all and from where, counted together by all worker processes without a lock.

The counters lie in memory that the workers inherit: `Counts` is made before they are forked. Each worker has a column
in which only it writes, and reads the sum over all columns. Writing a cell is one aligned store, so a reader sees the
number before or after it, never a mixture; two workers that let clients in at the same moment may both miss the
other's, and a limit is then passed by one.

Where clients come from is kept in a count-min sketch of fixed size: an address adds to one cell of each of two
tables, and the smaller of the two counts. Others that share both cells make the count too high, never too low; with
10,000 addresses connected that befalls one in fifteen, and nearly always by one. The hash is keyed at random at each
start, so that nobody can choose addresses that share the cells of a victim.

What counts as one address: in IPv4 the address, in IPv6 its /64, for that is the least that any host is given, and a
client could otherwise take a new address for each connection.

A listener with limits of its own counts by itself, under a name: its connections in all, and each address and network
as it is seen there. In the total of the daemon they count as all others do.
"""

from __future__ import annotations

import ipaddress
import mmap
import secrets
from collections.abc import Iterator
from typing import NamedTuple

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Cells of each of the two tables. With its two tables a worker has 512 KiB, touched only as they are used.
CELLS = 1 << 16
_CELL_SIZE = 4
#: Clients whose cells a worker remembers, never more: working them out takes 2 us, at each coming and going.
_KNOWN = 4096
#: IPv4 and IPv6: how many leading bits make one client.
_ONE_CLIENT_V4, _ONE_CLIENT_V6 = 32, 64


class Occupancy(NamedTuple):
    """Connections that are open: in all, from the same address, from the same network, and under the same name. 0
    where there is none."""

    total: int
    address: int
    network: int
    named: int = 0


class Counts:
    """The counters of all workers. Made before they are forked; the prefixes stay what they are for its life."""

    def __init__(self, workers: int, prefix_v4: int = 24, prefix_v6: int = 56) -> None:
        self.workers = workers
        # Line 0 is the total, then come the lines of the two tables; a line has a cell for each worker.
        self.cells = memoryview(mmap.mmap(-1, _CELL_SIZE * workers * (1 + 2 * CELLS))).cast("I")
        # bytes are hashed by SipHash; its own key is forked with the process, but may have been set from outside.
        key = self.key = secrets.token_bytes(16)
        # IP version -> for the address and for the network: what the hash begins with, and the bits to leave out.
        self.levels = {
            4: ((key + b"a4", 32 - _ONE_CLIENT_V4), (key + b"n4", 32 - prefix_v4)),
            6: ((key + b"a6", 128 - _ONE_CLIENT_V6), (key + b"n6", 128 - prefix_v6)),
        }

    def worker(self, row: int) -> WorkerCounts:
        """What worker number `row`, from 0, counts with."""
        if not 0 <= row < self.workers:
            raise ValueError(f"there is no worker {row} of {self.workers}")
        return WorkerCounts(self, row)

    def clear(self, row: int) -> None:
        """Forget the connections of a worker that has died, before another takes its place."""
        self.cells[row :: self.workers] = memoryview(bytes(_CELL_SIZE * (1 + 2 * CELLS))).cast("I")


class WorkerCounts:
    """One worker's column: every connection enters once and leaves once."""

    __slots__ = ("_cells", "_key", "_known", "_levels", "_row", "_workers")

    def __init__(self, counts: Counts, row: int) -> None:
        self._cells = counts.cells
        self._levels = counts.levels
        self._key = counts.key
        self._workers = counts.workers
        self._row = row
        self._known: dict[IpAddress | tuple[str, IpAddress | None] | None, tuple[tuple[int, int], ...]] = {}

    def enter(self, ip: IpAddress | None, name: str = "") -> Occupancy:
        """Count a connection; the answer includes it. None: a client without an address, on a Unix socket.

        name: of a listener that counts by itself.
        """
        total = self._add(0)
        counted = [min(self._add(first), self._add(second)) for first, second in self._lines(ip, name)]
        named = counted.pop() if name else 0
        address, network = counted or (0, 0)
        return Occupancy(total, address, network, named)

    def leave(self, ip: IpAddress | None, name: str = "") -> None:
        """The connection is closed. ip, name: those it came in with."""
        cells, row = self._cells, self._row
        cells[row] -= 1
        for first, second in self._lines(ip, name):
            cells[first + row] -= 1
            cells[second + row] -= 1

    def _add(self, line: int) -> int:
        """Count one more in our cell of a line; the sum over all of its cells."""
        self._cells[line + self._row] += 1
        return sum(self._cells[line : line + self._workers])

    def _lines(self, ip: IpAddress | None, name: str) -> tuple[tuple[int, int], ...]:
        """Where the lines of this client begin: (first table, second table) for its address, for its network and, where
        there is one, for the name."""
        client = (name, ip) if name else ip
        lines = self._known.get(client)
        if lines is None:
            lines = tuple(self._work_out(ip, name.encode()))
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[client] = lines
        return lines

    def _work_out(self, ip: IpAddress | None, name: bytes) -> Iterator[tuple[int, int]]:
        if ip is not None:
            number = int(ip)
            for key, bits in self._levels[ip.version]:
                yield self._places(key + (number >> bits).to_bytes(16, "big") + name)
        if name:
            yield self._places(self._key + b"l" + name)

    def _places(self, what: bytes) -> tuple[int, int]:
        digest = hash(what)
        return (1 + digest % CELLS) * self._workers, (1 + CELLS + (digest >> 16) % CELLS) * self._workers
