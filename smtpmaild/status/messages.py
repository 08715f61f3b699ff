"""The last messages, a search among them, and the life of one: from the history, where the configuration has one.

The file is read in a thread, opened anew each time: it may not be there yet, and may be made anew at any time. A row is
what a list shows; a life is what `smtpmaild trace` tells in words, event by event (history/lives.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from smtpmaild.history import Event
from smtpmaild.history.lives import life_of
from smtpmaild.history.reading import Reading
from smtpmaild.status.recalling import recalled

#: How many a page is given at most, and how long a text may be that is looked for.
MOST = 200
LONGEST_TEXT = 200
#: What a list shows. A session is shown where it was refused something.
_LISTED = frozenset(("message_accepted", "message_refused", "message_deferred", "session_closed"))
#: Sessions without any refusal are most of them: so many more are read than are shown.
_READ = 5 * MOST
#: Events of one life: the last ones.
_LONGEST_LIFE = 500
_OUTCOMES = {"message_accepted": "accepted", "message_refused": "refused", "message_deferred": "deferred"}

Row = dict[str, Any]


class Messages:
    """What pages ask. read: opens the history; raises OSError."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read
        self._cursor = 0

    async def latest(self, text: str = "") -> list[Row]:
        """The last rows that mention this text, the newest first. Raises OSError."""
        return await asyncio.to_thread(self._latest, text[:LONGEST_TEXT].strip())

    async def life(self, name: str) -> list[Row]:
        """Every event of a message, or of a session, the oldest first; nothing where none is known. Raises OSError."""
        return await asyncio.to_thread(self._life, name)

    async def news(self) -> list[Row]:
        """The rows that came since the last call, the newest first; none at the first one. Raises OSError."""
        return await asyncio.to_thread(self._news)

    async def minutes(self, since: float) -> list[list[int]]:
        """What was counted in each minute since then; see Minutes.put_before(). Raises OSError."""
        return await asyncio.to_thread(recalled, self._read, since)

    def _latest(self, text: str) -> list[Row]:
        with self._read() as reading:
            if not text:
                return [*_rows(reading.latest(_READ, _LISTED))][:MOST]
            # As far as it must: a name that is everywhere is found everywhere.
            with closing(reading.mentioning(text, _LISTED)) as found:
                return [*islice(_rows(found), MOST)]

    def _life(self, name: str) -> list[Row]:
        with self._read() as reading:
            life = life_of(reading, name)
        return [_told(event) for event in life.events[-_LONGEST_LIFE:]] if life is not None else []

    def _news(self) -> list[Row]:
        with self._read() as reading:
            if not self._cursor:
                self._cursor = reading.cursor()
                return []
            events, self._cursor = reading.since(self._cursor)
            return [*_rows(reversed([*events]))][:MOST]


def _told(event: Event) -> Row:
    return {"at": event.at, "name": event.name, "facts": dict(event.facts)}


def _rows(events: Iterable[Event]) -> Iterator[Row]:
    for event in events:
        if event.name in _OUTCOMES:
            yield _message(event)
        elif event.name == "session_closed" and event.facts.get("refusals"):
            yield _session(event)


def _message(event: Event) -> Row:
    facts = event.facts
    recipients = facts.get("recipients") or []
    return {
        "at": event.at,
        "id": facts.get("queue_id", ""),
        "outcome": _OUTCOMES[event.name],
        "from": facts.get("reverse_path", ""),
        "to": recipients[0] if recipients else "",
        "more": max(0, len(recipients) - 1),
        "client": facts.get("peer", ""),
        "listener": facts.get("listener", ""),
        "subject": facts.get("subject") or "",
        "size": facts.get("size", 0),
        "reply": facts.get("reply", ""),
        "rule": facts.get("decided_by", ""),
    }


def _session(event: Event) -> Row:
    """A session that was refused something: what came last tells best."""
    facts = event.facts
    refusals = facts["refusals"]
    last = refusals[-1]
    code = last.get("reply", "")[:1]
    return {
        "at": event.at,
        "id": facts.get("session_id", ""),
        "outcome": "deferred" if code == "4" else "refused",
        "from": last.get("reverse_path", ""),
        "to": last["argument"] if last.get("command") == "RCPT" else "",
        "more": len(refusals) - 1,
        "client": facts.get("peer", ""),
        "listener": facts.get("listener", ""),
        "subject": "",
        "size": 0,
        "reply": last.get("reply", ""),
        "rule": last.get("rule", ""),
    }
