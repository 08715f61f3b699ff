"""The queue in SQLite: a file for each worker, large bodies in files beside it.

    queue-0.sqlite (-wal, -shm)   messages and recipients of worker 0; small bodies
    queue-0.lock                  locked by the process that claims from queue-0.sqlite
    queue-0.users                 locked, shared, by every process that writes to it
    bodies/ID                     larger bodies, of all workers
    bodies/tmp/ID                 larger bodies while they are received

Any process may put, change and find; SQLite lets one write at a time. Only who holds the lock claims, and the kernel
takes it from a process that dies: so who gets the lock knows that every lease of before is over. WAL with
synchronous=FULL: a commit returns when the log is on disk. A claim is committed without waiting for the disk, because
losing one loses nothing.

| step                                   | what a crash right after it leaves             | who cleans it up           |
|----------------------------------------|------------------------------------------------|----------------------------|
| body written to bodies/tmp, synced     | a file in bodies/tmp                           | prepare() of a later start |
| renamed to bodies/ID, directory synced | a file that no row names                       | prepare() of a later start |
| rows committed                         | the message, queued                            | nobody: it is good mail    |
| claim committed                        | in delivery, maybe still queued                | who gets the lock next     |
| agent has delivered                    | in delivery: it will be delivered twice        | who gets the lock next     |
| settlement and its reports committed   | the recipients' ends, the reports queued       | nobody                     |
| body file unlinked                     | nothing                                        | nobody                     |
| adoption: rows copied                  | the message in two files; ours is at work    | worker 0, before it claims |
| adoption: the other file unlinked      | nothing                                        | nobody                     |

The file of a worker that is no more is adopted by worker 0, when nobody claims from it and nobody writes to it: its
rows are copied, then the file is removed.

All verbs may be called from any thread, one at a time runs. Errors of SQLite become OSError with the errno that a file
would have given.

This file has the verbs, and claims. sqlite_file.py opens, has the tables and the transactions; sqlite_changes.py
changes rows; sqlite_reading.py reads them for people; sqlite_adoption.py adopts. No SQL outside of these five.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import itemgetter

from smtpmaild.facts import Log
from smtpmaild.queue import (
    Body,
    Claim,
    Entry,
    Query,
    QueuedMessage,
    Room,
    Settlement,
    State,
    Usage,
    files,
    sqlite_changes,
    sqlite_reading,
)
from smtpmaild.queue.body import SMALL, BytesBody, FileBody
from smtpmaild.queue.depth import Depth
from smtpmaild.queue.due import DueIndex
from smtpmaild.queue.rows import MESSAGE_COLUMNS, RECIPIENT_COLUMNS, to_message, to_recipient
from smtpmaild.queue.sqlite_adoption import adopt
from smtpmaild.queue.sqlite_file import ShardFile, opened, os_errors

#: What lies in bodies/ without a row so long, and was not touched, is no message on its way into the queue.
ORPHAN_AGE = 3600.0
#: How often worker 0 looks for files of workers that are no more.
_ADOPTION_SECONDS = 30.0

_FIRST_OF_LANE = (
    "SELECT message, next_attempt FROM recipient WHERE destination = ? AND flow = ? AND state <= 2 "
    "ORDER BY next_attempt LIMIT 1"
)
_TAKE = (
    "UPDATE recipient SET state = 2, next_attempt = ? "  # noqa: S608  constants
    f"WHERE message = ? AND destination = ? AND state <= 2 AND next_attempt <= ? RETURNING {RECIPIENT_COLUMNS}"
)
_LANES = "SELECT destination, flow, min(next_attempt) FROM recipient WHERE state <= 2 GROUP BY destination, flow"
_OLD = (
    "SELECT DISTINCT recipient.message, destination FROM message JOIN recipient ON recipient.message = message.id "
    "WHERE received_at < ? AND state <= 2 AND next_attempt <= ? LIMIT ?"
)
_LATE = (
    "SELECT DISTINCT recipient.message, destination FROM message JOIN recipient ON recipient.message = message.id "
    "WHERE deadline > 0 AND deadline <= ? AND attempted_at < deadline AND state <= 2 AND next_attempt <= ? LIMIT ?"
)


class SqliteQueue:
    """A QueueStore: the file of one worker.

    directory: where the files are.  number: of the worker.  workers: how many there are; worker 0 adopts the files of
    others.
    """

    def __init__(self, directory: str, log: Log, number: int = 0, workers: int = 1) -> None:
        self.directory = directory
        self.bodies = f"{directory}/bodies"
        self._number = number
        self._workers = workers
        self._log = log
        self._lock = threading.RLock()
        self._file = ShardFile(files.shard_path(directory, number))
        self._claims_lock = -1  # the descriptor that holds queue-N.lock
        self._users_lock = -1  # the descriptor that shares queue-N.users
        self._due: DueIndex | None = None  # None: to be read from the file
        self._version = (0, 0)  # of the file when _due was read
        self._usage = Usage(0, 0)
        self._adopt_at = 0.0

    def enter(self, number: int) -> None:
        """Be the queue of this worker; before open()."""
        self._number = number
        self._file = ShardFile(files.shard_path(self.directory, number))

    def open(self) -> None:
        """Make what is missing, bring the schema up to date."""
        with self._lock, os_errors(self._file.path):
            files.make_directories(self.directory)
            self._users_lock = files.share(files.users_path(self.directory, self._number))
            self._recount()

    def close(self) -> None:
        """Let go of the file, and of the right to claim from it."""
        with self._lock:
            self._file.close()
            if self._users_lock >= 0:
                os.close(self._users_lock)
                self._users_lock = -1
            self.stop_claiming()

    def stop_claiming(self) -> None:
        """Let another process claim from now on. What we claimed is to be settled before."""
        with self._lock:
            if self._claims_lock >= 0:
                os.close(self._claims_lock)
                self._claims_lock = -1
            self._due = None

    # The verbs

    def put(self, messages: Sequence[Entry]) -> None:
        """See QueueStore."""
        self.settle((), messages)

    def claim(self, now: float, lease_until: float, limit: int, room: Room) -> Sequence[Claim]:
        """See QueueStore. Nothing while another process has the right to claim."""
        with self._lock, os_errors(self._file.path):
            if not self._may_claim():
                return ()
            due = self._read_due(now)
            try:
                with self._file.transaction(is_durable=False) as connection:
                    claims = list(self._claim(connection, due, now, lease_until, limit, room))
                    rows = connection.execute(_LATE, (now, now, limit)).fetchall()
                    claims += [self._take(connection, one, to, now, lease_until) for one, to in rows]
                    if room.received_before:
                        rows = connection.execute(_OLD, (room.received_before, now, limit)).fetchall()
                        claims += [self._take(connection, one, to, now, lease_until) for one, to in rows]
            except BaseException:
                self._due = None  # it has forgotten what was not claimed after all
                raise
            return claims

    def settle(self, settled: Sequence[tuple[Claim, Sequence[Settlement]]], new: Sequence[Entry] = ()) -> None:
        """See QueueStore."""
        with self._lock, os_errors(self._file.path):
            new = [(self._with_stored_body(message), recipients) for message, recipients in new]
            gone: sqlite_changes.Gone = []
            with self._file.transaction() as connection:
                for claim, settlements in settled:
                    gone += sqlite_changes.settle(connection, claim, settlements)
                if new:
                    sqlite_changes.insert(connection, new)
            self._count(new, gone)
            for claim, settlements in settled:
                for one in settlements:
                    if not one.state.is_final:
                        self._note(claim.destination, claim.message.flow, one.next_attempt)
            for message, recipients in new:
                for recipient in recipients:
                    self._note(recipient.destination, message.flow, recipient.next_attempt)

    def find(self, query: Query) -> Iterator[Entry]:
        """See QueueStore. Sees the queue as it is when the first message is asked for."""
        with opened(self._file.path) as connection:
            yield from sqlite_reading.find(connection, self._file.path, self.bodies, query)

    def change(self, query: Query, settlement: Settlement) -> Sequence[Entry]:
        """See QueueStore."""
        with self._lock, os_errors(self._file.path):
            self._may_claim()  # where nobody serves, what the dead had in delivery is free
            gone: sqlite_changes.Gone = []
            changed: list[Entry] = []
            with self._file.transaction() as connection:
                found = list(sqlite_reading.find(connection, self._file.path, self.bodies, query))
                for message, recipients in found:
                    free = [one for one in recipients if one.state is not State.IN_DELIVERY and not one.state.is_final]
                    if free:
                        changed.append((message, free))
                        gone += sqlite_changes.change(connection, message.queue_id, free, settlement)
            self._count((), gone)
            self._due = None
            return changed

    def usage(self) -> Usage:
        """See QueueStore."""
        return self._usage

    # For people

    def depths(self, query: Query) -> dict[str, Depth]:
        """What the query asks for, by destination. Reads the file as find() does."""
        with opened(self._file.path) as connection:
            return sqlite_reading.depths(connection, query)

    def count(self) -> Usage:
        """How much there is, exactly. Reads the file as find() does."""
        with opened(self._file.path) as connection:
            return sqlite_reading.usage(connection)

    def whole_usage(self) -> Usage:
        """See QueueStore."""
        usage = self._usage
        for number, path in files.shards(self.directory):
            if number != self._number:
                with opened(path) as connection:
                    other = sqlite_reading.usage(connection)
                usage = Usage(usage.messages + other.messages, usage.size + other.size)
        return usage

    # Claims

    def _may_claim(self) -> bool:
        """Take the right to claim; with it go all leases that were left."""
        if self._claims_lock >= 0:
            return True
        descriptor = files.lock(files.lock_path(self.directory, self._number))
        if descriptor is None:
            return False
        try:
            with self._file.transaction() as connection:
                sqlite_changes.end_leases(connection)
        except BaseException:
            os.close(descriptor)
            raise
        self._claims_lock = descriptor
        self._due = None
        return True

    def _read_due(self, now: float) -> DueIndex:
        """What is due, read again where another process has changed the file."""
        if self._number == 0 and now >= self._adopt_at:
            self._adopt_at = now + _ADOPTION_SECONDS
            self._adopt()
        version = self._file.version()
        if self._due is None or version != self._version:
            self._version = version
            self._due = DueIndex(self._file.connected().execute(_LANES))
            self._recount()
        return self._due

    def _adopt(self) -> None:
        """Take in the mail of workers that are no more."""
        for number, path in files.shards(self.directory):
            if number >= self._workers and adopt(self.directory, number, path, self._file, self._log):
                self._due = None

    def _claim(
        self, connection: sqlite3.Connection, due: DueIndex, now: float, lease_until: float, limit: int, room: Room
    ) -> Iterator[Claim]:
        for destination, flow in due.lanes(now, limit, room):
            row = connection.execute(_FIRST_OF_LANE, (destination, flow)).fetchone()
            if row is not None and row[1] <= now:
                yield self._take(connection, row[0], destination, now, lease_until)
                row = connection.execute(_FIRST_OF_LANE, (destination, flow)).fetchone()
            if row is not None:
                due.note(destination, flow, row[1])

    def _take(
        self, connection: sqlite3.Connection, number: int, destination: str, now: float, lease_until: float
    ) -> Claim:
        rows = connection.execute(_TAKE, (lease_until, number, destination, now)).fetchall()
        rows.sort(key=itemgetter(0))
        row = connection.execute(f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id = ?", (number,)).fetchone()  # noqa: S608
        body: Body
        if row[6]:
            body = FileBody(f"{self.bodies}/{row[1]}", row[5])
        else:
            body = BytesBody(*connection.execute("SELECT data FROM body WHERE id = ?", (number,)).fetchone())
        return Claim(to_message(row, body), [to_recipient(one) for one in rows], destination, lease_until)

    def _note(self, destination: str, flow: str, at: float) -> None:
        if self._due is not None:
            self._due.note(destination, flow, at)

    # Bodies and counts

    def _with_stored_body(self, message: QueuedMessage) -> QueuedMessage:
        """The message with its body in memory if it goes into the row, else in its place under bodies/."""
        body = message.body
        path = f"{self.bodies}/{message.queue_id}"
        if body.size <= SMALL:
            if isinstance(body, BytesBody):
                return message
            with body.open() as source:
                return replace(message, body=BytesBody(source.read()))
        if not (isinstance(body, FileBody) and body.path == path):
            with body.open() as source:
                files.store_body(source, self.directory, message.queue_id)
        return replace(message, body=FileBody(path, body.size))

    def _count(self, new: Sequence[Entry], gone: sqlite_changes.Gone) -> None:
        """Keep the sums; unlink the files of what is gone."""
        messages = self._usage.messages + len(new) - len(gone)
        size = self._usage.size + sum(message.body.size for message, _ in new) - sum(one[1] for one in gone)
        self._usage = Usage(max(messages, 0), max(size, 0))
        for queue_id, _, in_file in gone:
            if in_file:
                try:
                    os.unlink(f"{self.bodies}/{queue_id}")
                except OSError:
                    pass  # swept by a later start

    def _recount(self) -> None:
        self._usage = sqlite_reading.usage(self._file.connected())


def prepare(directory: str, log: Log, now: Callable[[], float] = time.time) -> None:
    """Once at start, before any worker: see that it can be written, sweep bodies that a crash left without a row."""
    files.make_directories(directory)
    known: set[str] = set()
    for _, path in files.shards(directory):
        with opened(path) as connection:
            known.update(row[0] for row in connection.execute("SELECT queue_id FROM message WHERE in_file"))
    files.sweep_bodies(directory, known, now() - ORPHAN_AGE, lambda path: log.info("queue_orphan_removed", path=path))
