"""The minutes before a restart, as the history tells them: what the counters of a daemon that is gone would have said.

Bounded: of a day, and of so many events. A thread reads them, some 20 us for each; no loop waits for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from itertools import islice
from types import MappingProxyType
from typing import Any

from smtpmaild.history import Event
from smtpmaild.history.reading import Reading
from smtpmaild.status.minutes import COLUMNS, MINUTE

#: How many are read at most. What was before them on a busy day is not shown.
MOST_EVENTS = 100_000

_Counts = Mapping[str, int]


def _message(column: str) -> Callable[[Mapping[str, Any]], _Counts]:
    return lambda facts: {column: 1, "bytes": facts.get("size") or 0}


def _session(facts: Mapping[str, Any]) -> _Counts:
    deferred = sum(
        one["command"] == "RCPT" and one["reply"].startswith("4") for one in facts.get("refusals") or ()
    )  # of those that are on record; the others were refused more likely than not
    return {"sessions": 1, "deferred": deferred, "refused": (facts.get("refused_recipients") or 0) - deferred}


#: Event -> what it adds to its minute.
_COUNTED: Mapping[str, Callable[[Mapping[str, Any]], _Counts]] = MappingProxyType(
    {
        "message_accepted": _message("accepted"),
        "message_refused": _message("refused"),
        "message_deferred": _message("deferred"),
        "session_closed": _session,
        "delivered": lambda _: {"delivered": 1},
        "bounced": lambda _: {"failed": 1},
        "expired": lambda _: {"failed": 1},
    }
)


def recalled(read: Callable[[], Reading], since: float) -> list[list[int]]:
    """Rows for the ring, the oldest first. since: seconds since the epoch. Blocks; raises OSError."""
    rows: dict[int, list[int]] = {}
    count = 0
    with read() as reading, closing(reading.mentioning("", frozenset(_COUNTED))) as events:
        for event in islice(_until(events, since), MOST_EVENTS):
            count += 1
            row = rows.setdefault(int(event.at // MINUTE), [0] * len(COLUMNS))
            for column, more in _COUNTED[event.name](event.facts).items():
                row[COLUMNS.index(column)] += more
    if count == MOST_EVENTS:
        del rows[min(rows)]  # of which only the end was read
    return [[minute, *rows[minute]] for minute in sorted(rows)]


def _until(events: Iterable[Event], since: float) -> Iterable[Event]:
    """The newest first. Workers write what happened half a second ago, so they are not quite in order."""
    for event in events:
        if event.at < since - MINUTE:
            return
        if event.at >= since:
            yield event
