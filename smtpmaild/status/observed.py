"""What the desk says of the daemon at one moment, all that is shown anywhere.

Reading it takes a look at disks and the queue, so a moment lasts a second: of a hundred who ask at once one reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from smtpmaild.control.desk import Desk
from smtpmaild.control.queue_files import Record
from smtpmaild.metrics import Metrics

#: How long what was read is good for.
_FRESH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Observed:
    """at: seconds since the epoch.  lag: how late the loop of the attendant was last, in seconds.  metrics: of all
    workers.  The rest is as the desk says it."""

    at: float
    lag: float
    metrics: Metrics
    summary: Record
    networks: Mapping[str, int] = field(default_factory=dict)
    destinations: list[Record] = field(default_factory=list)
    stores: list[Record] = field(default_factory=list)
    certificates: list[Record] = field(default_factory=list)


class Observer:
    """Reads the desk for everybody. lag: set by who measures it.  queue_limits: messages and bytes that the queue may
    hold; 0 for any number."""

    def __init__(
        self, desk: Desk, queue_limits: tuple[int, int] = (0, 0), clock: Callable[[], float] = time.time
    ) -> None:
        self.desk = desk
        self.queue_limits = queue_limits
        self.lag = 0.0
        self._clock = clock
        self._last: Observed | None = None
        self._reading = asyncio.Lock()

    def metrics(self) -> Metrics:
        """What all workers have counted, now; reads no disk."""
        metrics = Metrics()
        metrics.add(self.desk.numbers())
        return metrics

    def now(self) -> float:
        """The time of everything here."""
        return self._clock()

    async def waiting(self, destination: str, most: int) -> list[Record]:
        """Messages in the queue, with the recipients of this destination, the oldest first; all for ""."""
        return await asyncio.to_thread(self.desk.waiting, destination, most)

    async def look(self) -> Observed:
        """How it is now, or was a moment ago."""
        async with self._reading:
            if self._last is None or self._clock() - self._last.at >= _FRESH_SECONDS:
                self._last = await self._read()
            return self._last

    async def _read(self) -> Observed:
        desk = self.desk
        summary, destinations, stores, certificates = await asyncio.gather(
            desk.summary(), desk.destinations(), desk.stores(), desk.certificates()
        )
        return Observed(
            self._clock(),
            self.lag,
            self.metrics(),
            summary,
            desk.networks(),
            destinations,
            stores,
            certificates,
        )


def as_json(observed: Observed) -> dict[str, Any]:
    """For the page: everything but the counters of sessions and their times, which no page shows."""
    metrics, summary = observed.metrics, dict(observed.summary)
    del summary["numbers"]
    refusals = sorted(metrics.refusals.names.items(), key=lambda item: -item[1])
    return {
        **summary,
        "at": observed.at,
        "lag": observed.lag,
        "networks": observed.networks,
        "destinations": observed.destinations,
        "stores": observed.stores,
        "certificates": observed.certificates,
        "refusals": [[*name, count] for name, count in refusals[:_MOST_REFUSALS]],
        "totals": {name: getattr(metrics, name) for name in _TOTALS},
    }


_MOST_REFUSALS = 50
_TOTALS = (
    "messages_accepted",
    "messages_refused",
    "messages_deferred",
    "recipients_accepted",
    "recipients_refused",
    "recipients_deferred",
    "sessions_opened",
    "sessions_refused",
    "bytes_received",
)
