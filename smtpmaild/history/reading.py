"""Reads the history while the daemon writes it: by name, by text, the latest, and what came since.

A `Reading` never writes and never makes a writer wait. Its methods block for as long as the disk takes: an event loop
calls them in a thread, one at a time. With 100,000 messages a name is found in 10 ms and any text in 0.1 s.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import Self
from urllib.parse import quote

from smtpmaild.history import Event
from smtpmaild.history.events import MESSAGES, VERSION, events_of, events_with, key_of, mentions, names_of, needle_of

#: How long a reader waits for a writer that makes the file anew.
_PATIENCE = 2.0


class Reading:
    """The file of a history. Raises OSError where there is none, or it cannot be read."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.stat(path)  # SQLite would only say that it cannot open it
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(path)}?mode=ro",
                uri=True,
                timeout=_PATIENCE,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                (version,) = self._connection.execute("PRAGMA user_version").fetchone()
                if version != VERSION:
                    raise OSError(0, f"it has version {version}, this program reads {VERSION}", path)
            except BaseException:
                self.close()
                raise
        except sqlite3.Error as error:
            raise OSError(0, str(error), path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    # What is asked

    def reach(self) -> tuple[int, float]:
        """How many events there are, and when the oldest of them happened; (0, 0.0) for none."""
        with self._snapshot():
            count, oldest = self._connection.execute("SELECT sum(count), min(begins) FROM chunk").fetchone()
        return count or 0, oldest or 0.0

    def named(self, *names: str, since: float = 0.0) -> Iterator[Event]:
        """Events that one of these names belongs to, the newest first. since: chunks that ended before are not read.

        A name is an id, an address, a message-id, an IP address or a user, in whatever case.
        """
        wanted = {name.lower() for name in names}
        keys = [key_of(name) for name in wanted]
        with self._snapshot():
            chunks = self._connection.execute(
                "SELECT first, keys FROM chunk WHERE ends >= ? ORDER BY first DESC", (since,)
            ).fetchall()
            for first, kept in chunks:
                if any(key in kept for key in keys):
                    for event in reversed(self._events(first)):
                        if wanted & names_of(event):
                            yield event

    def latest(self, limit: int, names: Collection[str] = MESSAGES) -> list[Event]:
        """The last events of these names, the newest first."""
        found: list[Event] = []
        with self._snapshot():
            for first, text in self._bodies():
                found += (event for event in reversed([*events_of(text, first)]) if event.name in names)
                if len(found) >= limit:
                    break
        return found[:limit]

    def search(self, text: str, limit: int, names: Collection[str] = MESSAGES) -> list[Event]:
        """The last events of these names that mention a text, in whatever case, the newest first."""
        return [*islice(self.mentioning(text, names), limit)]

    def mentioning(self, text: str, names: Collection[str]) -> Generator[Event]:
        """All of these, the newest first."""
        wanted, needle = text.lower(), needle_of(text)
        with self._snapshot():
            for first, body in self._bodies():
                found = events_with(body, needle, first) if needle else reversed([*events_of(body, first)])
                for event in found:
                    if event.name in names and mentions(event, wanted):
                        yield event

    def cursor(self) -> int:
        """Where since() begins for whoever wants only what comes from now on."""
        last = self._connection.execute("SELECT first + count FROM chunk ORDER BY first DESC LIMIT 1").fetchone()
        return int(last[0]) if last else 1

    def since(self, cursor: int, limit: int = 1000) -> tuple[list[Event], int]:
        """Events from this number on, the oldest first, and the number to go on from."""
        found: list[Event] = []
        with self._snapshot():
            chunks = self._connection.execute(
                "SELECT first, count FROM chunk WHERE first >= "
                "coalesce((SELECT max(first) FROM chunk WHERE first <= ?), 0) ORDER BY first",
                (cursor,),
            ).fetchall()
            for first, count in chunks:
                if first + count > cursor:
                    found += (event for event in self._events(first) if event.number >= cursor)
                if len(found) >= limit:
                    break
        found = found[:limit]
        return found, found[-1].number + 1 if found else cursor

    # How

    def _events(self, first: int) -> list[Event]:
        (body,) = self._connection.execute("SELECT events FROM body WHERE first = ?", (first,)).fetchone()
        return [*events_of(body, first)]

    def _bodies(self) -> Iterator[tuple[int, bytes]]:
        return self._connection.execute("SELECT first, events FROM body ORDER BY first DESC")

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """What is read within it is of one moment: no chunk is merged or deleted meanwhile."""
        if self._connection.in_transaction:  # within another one, which is not read to its end yet
            yield
            return
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")
