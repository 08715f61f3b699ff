"""What changes the rows of a shard: new mail, what came of attempts, and a person's word.

Each function works within a transaction that its caller has begun. A message goes with the last of its recipients that
has an end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from smtpmaild.queue import Claim, Entry, QueuedRecipient, Settlement
from smtpmaild.queue.body import BytesBody
from smtpmaild.queue.rows import MESSAGE_COLUMNS, NUMBER, RECIPIENT_COLUMNS, message_row, recipient_row

#: The destination of what a person returns to its sender: it does not wait for that of the mail.
RETURNED = "(returned)"
#: Messages that were removed: queue id, size, whether the body is in a file.
Gone = list[tuple[str, int, int]]

_PUT_MESSAGE = f"INSERT INTO message ({MESSAGE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  constants
_PUT_RECIPIENT = (
    f"INSERT INTO recipient (message, destination, flow, {RECIPIENT_COLUMNS}) "  # noqa: S608  constants
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SETTLE = (
    "UPDATE recipient SET state = ?, next_attempt = ?, attempts = attempts + ?, "
    "attempted_at = coalesce(?, attempted_at), code = coalesce(?, code), enhanced = coalesce(?, enhanced), "
    "text = coalesce(?, text), remote = coalesce(?, remote) WHERE message = ? AND number = ?"
)
_RETURN = "UPDATE recipient SET destination = ? WHERE message = ? AND number = ?"


def insert(connection: sqlite3.Connection, new: Iterable[Entry]) -> None:
    """New mail. A body that is no BytesBody lies in its file."""
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM message").fetchone()
    messages, bodies, recipients = [], [], []
    for number, (message, its_recipients) in enumerate(new, last + 1):
        messages.append(message_row(number, message))
        if isinstance(message.body, BytesBody):
            bodies.append((number, message.body.data))
        recipients += [recipient_row(number, message.flow, one) for one in its_recipients]
    connection.executemany(_PUT_MESSAGE, messages)
    connection.executemany("INSERT INTO body (id, data) VALUES (?, ?)", bodies)
    connection.executemany(_PUT_RECIPIENT, recipients)


def settle(connection: sqlite3.Connection, claim: Claim, settlements: Sequence[Settlement]) -> Gone:
    """What came of an attempt. An end counts whoever brings it; all else only from who has the lease still."""
    queue_id = claim.message.queue_id
    row = connection.execute("SELECT id FROM message WHERE queue_id = ?", (queue_id,)).fetchone()
    if row is None:
        return []  # somebody dropped it meanwhile
    (number,) = row
    ended = {one.number for one in settlements if one.state.is_final}
    if ended and ended.issuperset(_open_numbers(connection, number)):
        return _remove(connection, number)
    for one in settlements:
        values = (*_settlement_values(one), number, one.number)
        if one.state.is_final:
            connection.execute(f"{_SETTLE} AND state < 4", values)
        else:
            connection.execute(f"{_SETTLE} AND state = 2 AND next_attempt = ?", (*values, claim.lease_until))
    return []


def change(
    connection: sqlite3.Connection, queue_id: str, recipients: Sequence[QueuedRecipient], settlement: Settlement
) -> Gone:
    """A person's word about recipients that are not in delivery."""
    (number,) = connection.execute("SELECT id FROM message WHERE queue_id = ?", (queue_id,)).fetchone()
    values = _settlement_values(settlement)
    connection.executemany(_SETTLE, [(*values, number, one.number) for one in recipients])
    if settlement.reply is not None and settlement.reply.is_permanent:
        connection.executemany(_RETURN, [(RETURNED, number, one.number) for one in recipients])
    return [] if _open_numbers(connection, number) else _remove(connection, number)


def end_leases(connection: sqlite3.Connection, after: int = 0) -> None:
    """Nobody is at work any more on messages behind this one: long due, but not AT_ONCE, which a person says."""
    connection.execute("UPDATE recipient SET state = 1, next_attempt = 1 WHERE message > ? AND state = 2", (after,))


def _open_numbers(connection: sqlite3.Connection, message: int) -> set[int]:
    """Recipients that have no end yet."""
    return {
        row[0] for row in connection.execute("SELECT number FROM recipient WHERE message = ? AND state < 4", (message,))
    }


def _remove(connection: sqlite3.Connection, message: int) -> Gone:
    connection.execute("DELETE FROM recipient WHERE message = ?", (message,))
    connection.execute("DELETE FROM body WHERE id = ?", (message,))
    return connection.execute(
        "DELETE FROM message WHERE id = ? RETURNING queue_id, size, in_file", (message,)
    ).fetchall()


def _settlement_values(one: Settlement) -> tuple[object, ...]:
    said: Sequence[object] = (None, None, None, None)
    if one.reply is not None:
        said = (one.reply.code, one.reply.enhanced, one.reply.text, one.remote)
    return NUMBER[one.state], one.next_attempt, one.reply is not None, one.at if one.reply else None, *said
