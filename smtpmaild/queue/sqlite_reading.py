"""What is in a shard's file, for people and for sums: nothing here changes it."""

from __future__ import annotations

import errno
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from smtpmaild.queue import BY_MX, Body, Entry, Query, Usage
from smtpmaild.queue.body import FileBody, LazyBody
from smtpmaild.queue.depth import Depth
from smtpmaild.queue.rows import (
    MESSAGE_COLUMNS,
    MESSAGE_WIDTH,
    NUMBER,
    RECIPIENT_COLUMNS,
    STATE,
    to_message,
    to_recipient,
)
from smtpmaild.queue.sqlite_file import opened
from smtpmaild.smtp.reply import Reply

_COUNT = "SELECT count(*), coalesce(sum(size), 0) FROM message"
_ALL = "FROM message CROSS JOIN recipient ON recipient.message = message.id WHERE {}"
_DEPTHS = (
    "SELECT destination, count(*), sum(size), min(received_at) "  # noqa: S608  constants
    f"FROM (SELECT DISTINCT destination, message.id, size, received_at {_ALL}) GROUP BY destination"
)
_STATES = (
    "SELECT destination, state, count(*), min(CASE WHEN state < 2 THEN next_attempt END) "
    f"{_ALL} GROUP BY destination, state"
)
# SQLite: with max() the other columns are those of the row that has it.
_LAST_SAID = (
    f"SELECT destination, max(attempted_at), code, enhanced, text, address {_ALL} AND code > 0 GROUP BY destination"
)


def find(connection: sqlite3.Connection, path: str, bodies: str, query: Query) -> Iterator[Entry]:
    """Messages with those of their recipients that the query asks for, oldest first.

    path: of the file; a small body is read only when it is asked for, by a connection of its own.  bodies: where large
    ones are.
    """
    where, values = _conditions(query)
    recipient = ", ".join(f"recipient.{name}" for name in RECIPIENT_COLUMNS.split(", "))
    message = ", ".join(f"message.{name}" for name in MESSAGE_COLUMNS.split(", "))
    rows = connection.execute(
        f"SELECT {message}, {recipient} FROM message CROSS JOIN recipient ON recipient.message = message.id "  # noqa: S608
        f"WHERE {where} ORDER BY message.received_at, message.id, recipient.number",
        values,
    )
    for count, (_, together) in enumerate(groupby(rows, itemgetter(0)), 1):
        lines = list(together)
        recipients = [to_recipient(line[MESSAGE_WIDTH:]) for line in lines]
        yield to_message(lines[0], _body(lines[0], path, bodies)), recipients
        if count == query.limit:
            return


def _body(row: Sequence[Any], path: str, bodies: str) -> Body:
    number, queue_id, size, in_file = row[0], row[1], row[5], row[6]
    if in_file:
        return FileBody(f"{bodies}/{queue_id}", size)

    def read() -> bytes:
        with opened(path) as connection:
            found = connection.execute(
                "SELECT data FROM body JOIN message USING (id) WHERE id = ? AND queue_id = ?", (number, queue_id)
            ).fetchone()
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "the message has left the queue", queue_id)
            data: bytes = found[0]
            return data

    return LazyBody(size, read)


def depths(connection: sqlite3.Connection, query: Query) -> dict[str, Depth]:
    """What the query asks for, by destination."""
    where, values = _conditions(query)
    found: defaultdict[str, Depth] = defaultdict(Depth)
    for name, messages, size, oldest in connection.execute(_DEPTHS.format(where), values):
        found[name] = Depth(messages, size, oldest=oldest)
    for name, state, count, next_attempt in connection.execute(_STATES.format(where), values):
        found[name].states[STATE[state]] = count
        if next_attempt is not None:
            found[name].next_attempt = min(next_attempt, found[name].next_attempt)
    for name, at, code, enhanced, text, address in connection.execute(_LAST_SAID.format(where), values):
        depth = found[name]
        depth.attempted_at, depth.last, depth.last_to = at, str(Reply(code, enhanced, text)), address
    return dict(found)


def usage(connection: sqlite3.Connection) -> Usage:
    """How much there is, exactly."""
    return Usage(*connection.execute(_COUNT).fetchone())


def _conditions(query: Query) -> tuple[str, list[object]]:
    given: list[tuple[str, Sequence[object]]] = []
    if query.queue_ids:
        given.append((f"queue_id IN ({_marks(query.queue_ids)})", [*query.queue_ids]))
    if query.sender is not None:
        given.append(("lower(reverse_path) = ?", [query.sender.lower()]))
    if query.recipient:
        given.append(("lower(address) = ?", [query.recipient.lower()]))
    if query.domain:
        given.append(("domain = ?", [query.domain.lower()]))
    if query.below:
        below = query.below.lower()
        given.append(("(domain = ? OR substr(domain, ?) = ?)", [below, -len(below) - 1, f".{below}"]))
    if query.relay:
        given.append(("route IN (?, ?)", [f"relay:{query.relay}", f"{BY_MX}/{query.relay}"]))
    if query.states:
        given.append((f"state IN ({_marks(query.states)})", [NUMBER[state] for state in query.states]))
    if query.received_before:
        given.append(("received_at < ?", [query.received_before]))
    conditions = " AND ".join(condition for condition, _ in given) or "1"
    return conditions, [value for _, values in given for value in values]


def _marks(values: Iterable[object]) -> str:
    return ", ".join("?" for _ in values)
