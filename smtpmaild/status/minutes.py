"""What was counted in each minute of the last day: a ring of small rows, kept where the next attendant finds it.

A row is the difference between what the counters were at the beginning of a minute and at its end. The counters add up
all workers and never go down, so no row depends on who counted. The ring is written to memory that the supervisor has
made (`Ledger`) whenever a minute is over: a reload, or the death of an attendant, costs nothing but the seconds since.
After a restart the history knows what was before, if one is kept (recalling.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from smtpmaild.metrics import Metrics

#: What is kept of each minute, in this order.
COLUMNS = ("accepted", "refused", "deferred", "delivered", "failed", "sessions", "bytes")
#: A day, and the minute that is not over.
MOST_ROWS = 24 * 60 + 1
#: Seconds.
MINUTE = 60


class Keeper(Protocol):
    """Memory that outlives us; `Ledger` of server/sums.py."""

    def read(self) -> bytes: ...
    def write(self, data: bytes) -> bool: ...


class Minutes:
    """The ring. Who uses it calls note() every few seconds."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        kept: Mapping[str, Any] = json.loads(keeper.read() or b"{}")
        #: [minute, values of COLUMNS ...], the oldest first; the last one is still growing.
        self.rows: list[list[int]] = kept.get("rows", [])
        self._begin: list[int] = kept.get("begin", [])
        #: Nobody has counted before, since the daemon began.
        self.is_new = not self.rows

    def note(self, now: float, metrics: Metrics) -> None:
        """What the counters say now."""
        minute = int(now // MINUTE)
        values = _values(metrics)
        if not self._begin:
            self._begin = values
        if not self.rows or self.rows[-1][0] < minute:
            if self.rows:
                self._fill(values)
                self._begin = values
            self.rows.append([minute, *([0] * len(COLUMNS))])
            del self.rows[:-MOST_ROWS]
            self.save()
        self._fill(values)

    def put_before(self, rows: Sequence[list[int]]) -> None:
        """What was counted before our first minute, by others. rows: the oldest first."""
        first = self.rows[0][0] if self.rows else math.inf
        self.rows[:0] = [row for row in rows if row[0] < first]
        del self.rows[:-MOST_ROWS]
        self.save()

    def save(self) -> None:
        """Keep it for who comes after us."""
        self._keeper.write(json.dumps({"rows": self.rows, "begin": self._begin}, separators=(",", ":")).encode())

    def _fill(self, values: list[int]) -> None:
        self.rows[-1][1:] = [max(0, value - begin) for value, begin in zip(values, self._begin, strict=True)]


def _values(metrics: Metrics) -> list[int]:
    results: dict[str, int] = {}
    for (_, result), count in metrics.deliveries.names.items():
        results[result] = results.get(result, 0) + count
    return [
        metrics.messages_accepted,
        metrics.messages_refused + metrics.recipients_refused,
        metrics.messages_deferred + metrics.recipients_deferred,
        results.get("delivered", 0),
        results.get("bounced", 0) + results.get("expired", 0),
        metrics.sessions_opened,
        metrics.bytes_received,
    ]
