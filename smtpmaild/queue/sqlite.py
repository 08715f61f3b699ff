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
would have given. No SQL outside of this file.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from smtpmaild.facts import Log
from smtpmaild.queue import (
    BY_MX,
    Body,
    Claim,
    Entry,
    Query,
    QueuedMessage,
    QueuedRecipient,
    Room,
    Settlement,
    State,
    Usage,
    files,
)
from smtpmaild.queue.body import SMALL, BytesBody, FileBody, LazyBody
from smtpmaild.queue.depth import Depth
from smtpmaild.queue.due import DueIndex
from smtpmaild.queue.rows import (
    MESSAGE_COLUMNS,
    MESSAGE_WIDTH,
    NUMBER,
    RECIPIENT_COLUMNS,
    STATE,
    message_row,
    recipient_row,
    to_message,
    to_recipient,
)
from smtpmaild.smtp.reply import Reply

#: The destination of what a person returns to its sender: it does not wait for that of the mail.
RETURNED = "(returned)"
#: What lies in bodies/ without a row so long, and was not touched, is no message on its way into the queue.
ORPHAN_AGE = 3600.0
#: How long a write waits for that of another process.
_PATIENCE = 10.0
#: Pages of the log (4 KiB each) from which on it is written back into the database. A checkpoint costs two syncs and
#: random writes; the default of 1,000 pages came every 300 messages.
_CHECKPOINT = 8000
#: How often worker 0 looks for files of workers that are no more.
_ADOPTION_SECONDS = 30.0

#: Each step leads from its index to the next version, kept in user_version. Steps are only ever added.
STEPS: Sequence[str] = (
    """
    CREATE TABLE message (
        id INTEGER PRIMARY KEY,
        queue_id TEXT NOT NULL UNIQUE,
        received_at REAL NOT NULL,
        reverse_path TEXT NOT NULL,
        sender_domain TEXT NOT NULL,
        size INTEGER NOT NULL,
        in_file INTEGER NOT NULL,
        body_type TEXT NOT NULL,
        is_utf8 INTEGER NOT NULL,
        parameters TEXT NOT NULL,
        user TEXT NOT NULL,
        listener TEXT NOT NULL,
        peer TEXT NOT NULL
    );
    CREATE TABLE body (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE recipient (
        message INTEGER NOT NULL,
        number INTEGER NOT NULL,
        address TEXT NOT NULL,
        domain TEXT NOT NULL,
        route TEXT NOT NULL,
        destination TEXT NOT NULL,
        flow TEXT NOT NULL,
        state INTEGER NOT NULL,
        parameters TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        next_attempt REAL NOT NULL,
        attempted_at REAL NOT NULL,
        code INTEGER NOT NULL,
        enhanced TEXT NOT NULL,
        text TEXT NOT NULL,
        remote TEXT NOT NULL,
        PRIMARY KEY (message, number)
    ) WITHOUT ROWID;
    CREATE INDEX waiting ON recipient (destination, flow, next_attempt) WHERE state <= 2;
    """,
    """
    ALTER TABLE message ADD COLUMN deadline REAL NOT NULL DEFAULT 0;
    CREATE INDEX deadlines ON message (deadline) WHERE deadline > 0;
    """,
    "ALTER TABLE recipient ADD COLUMN accepted_as TEXT NOT NULL DEFAULT '';",
)

_PUT_MESSAGE = f"INSERT INTO message ({MESSAGE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  constants
_PUT_RECIPIENT = (
    f"INSERT INTO recipient (message, destination, flow, {RECIPIENT_COLUMNS}) "  # noqa: S608  constants
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_FIRST_OF_LANE = (
    "SELECT message, next_attempt FROM recipient WHERE destination = ? AND flow = ? AND state <= 2 "
    "ORDER BY next_attempt LIMIT 1"
)
_TAKE = (
    "UPDATE recipient SET state = 2, next_attempt = ? "  # noqa: S608  constants
    f"WHERE message = ? AND destination = ? AND state <= 2 AND next_attempt <= ? RETURNING {RECIPIENT_COLUMNS}"
)
_SETTLE = (
    "UPDATE recipient SET state = ?, next_attempt = ?, attempts = attempts + ?, "
    "attempted_at = coalesce(?, attempted_at), code = coalesce(?, code), enhanced = coalesce(?, enhanced), "
    "text = coalesce(?, text), remote = coalesce(?, remote) WHERE message = ? AND number = ?"
)
_COUNT = "SELECT count(*), coalesce(sum(size), 0) FROM message"
_RETURN = "UPDATE recipient SET destination = ? WHERE message = ? AND number = ?"
_LANES = "SELECT destination, flow, min(next_attempt) FROM recipient WHERE state <= 2 GROUP BY destination, flow"
_OLD = (
    "SELECT DISTINCT recipient.message, destination FROM message JOIN recipient ON recipient.message = message.id "
    "WHERE received_at < ? AND state <= 2 AND next_attempt <= ? LIMIT ?"
)
_LATE = (
    "SELECT DISTINCT recipient.message, destination FROM message JOIN recipient ON recipient.message = message.id "
    "WHERE deadline > 0 AND deadline <= ? AND attempted_at < deadline AND state <= 2 AND next_attempt <= ? LIMIT ?"
)

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


class SqliteQueue:
    """A QueueStore: the file of one worker.

    directory: where the files are.  number: of the worker.  workers: how many there are; worker 0 adopts the files of
    others.
    """

    def __init__(self, directory: str, log: Log, number: int = 0, workers: int = 1) -> None:
        self.directory = directory
        self.bodies = f"{directory}/bodies"
        self.path = files.shard_path(directory, number)
        self._number = number
        self._workers = workers
        self._log = log
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._claims_lock = -1  # the descriptor that holds queue-N.lock
        self._users_lock = -1  # the descriptor that shares queue-N.users
        self._due: DueIndex | None = None  # None: to be read from the file
        self._version = -1  # of the file, as changes by other connections raise it
        self._usage = Usage(0, 0)
        self._adopt_at = 0.0

    def enter(self, number: int) -> None:
        """Be the queue of this worker; before open()."""
        self._number = number
        self.path = files.shard_path(self.directory, number)

    def open(self) -> None:
        """Make what is missing, bring the schema up to date."""
        with self._lock, _os_errors(self.path):
            files.make_directories(self.directory)
            self._users_lock = files.share(files.users_path(self.directory, self._number))
            self._connection = _connect(self.path)
            self._recount()

    def close(self) -> None:
        """Let go of the file, and of the right to claim from it."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
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
        with self._lock, _os_errors(self.path):
            if not self._may_claim():
                return ()
            due = self._read_due(now)
            try:
                with self._transaction(is_durable=False) as connection:
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
        with self._lock, _os_errors(self.path):
            new = [(self._with_stored_body(message), recipients) for message, recipients in new]
            gone: _Gone = []
            with self._transaction() as connection:
                for claim, settlements in settled:
                    gone += _settle(connection, claim, settlements)
                if new:
                    _insert(connection, new)
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
        with _os_errors(self.path), closing(_connect(self.path)) as connection:
            yield from self._find(connection, query)

    def change(self, query: Query, settlement: Settlement) -> Sequence[Entry]:
        """See QueueStore."""
        with self._lock, _os_errors(self.path):
            self._may_claim()  # where nobody serves, what the dead had in delivery is free
            gone: _Gone = []
            changed: list[Entry] = []
            with self._transaction() as connection:
                for message, recipients in list(self._find(connection, query)):
                    free = [one for one in recipients if one.state is not State.IN_DELIVERY and not one.state.is_final]
                    if free:
                        changed.append((message, free))
                        gone += _change(connection, message.queue_id, free, settlement)
            self._count((), gone)
            self._due = None
            return changed

    def usage(self) -> Usage:
        """See QueueStore."""
        return self._usage

    # For people

    def depths(self, query: Query) -> dict[str, Depth]:
        """What the query asks for, by destination. Reads the file as find() does."""
        where, values = _conditions(query)
        depths: defaultdict[str, Depth] = defaultdict(Depth)
        with _os_errors(self.path), closing(_connect(self.path)) as connection:
            for name, messages, size, oldest in connection.execute(_DEPTHS.format(where), values):
                depths[name] = Depth(messages, size, oldest=oldest)
            for name, state, count, next_attempt in connection.execute(_STATES.format(where), values):
                depths[name].states[STATE[state]] = count
                if next_attempt is not None:
                    depths[name].next_attempt = min(next_attempt, depths[name].next_attempt)
            for name, at, code, enhanced, text, address in connection.execute(_LAST_SAID.format(where), values):
                depth = depths[name]
                depth.attempted_at, depth.last, depth.last_to = at, str(Reply(code, enhanced, text)), address
        return dict(depths)

    def count(self) -> Usage:
        """How much there is, exactly. Reads the file as find() does."""
        with _os_errors(self.path), closing(_connect(self.path)) as connection:
            return Usage(*connection.execute(_COUNT).fetchone())

    def whole_usage(self) -> Usage:
        """See QueueStore."""
        usage = self._usage
        for number, path in files.shards(self.directory):
            if number != self._number:
                with _os_errors(path), closing(_connect(path)) as connection:
                    messages, size = connection.execute(_COUNT).fetchone()
                usage = Usage(usage.messages + messages, usage.size + size)
        return usage

    # Transactions

    @contextmanager
    def _transaction(self, *, is_durable: bool = True) -> Iterator[sqlite3.Connection]:
        connection = self._connected()
        if not is_durable:
            connection.execute("PRAGMA synchronous = NORMAL")
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back(connection)
                raise
        finally:
            if not is_durable and self._connection is not None:
                connection.execute("PRAGMA synchronous = FULL")

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connect(self.path)
            self._due = None
        return self._connection

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # What SQLite thinks of the file may be wrong now; a new connection reads it again.
            connection.close()
            self._connection = None

    # Claims

    def _may_claim(self) -> bool:
        """Take the right to claim; with it go all leases that were left."""
        if self._claims_lock >= 0:
            return True
        descriptor = files.lock(files.lock_path(self.directory, self._number))
        if descriptor is None:
            return False
        try:
            with self._transaction() as connection:
                # Long due, but not AT_ONCE, which a person says.
                connection.execute("UPDATE recipient SET state = 1, next_attempt = 1 WHERE state = 2")
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
        connection = self._connected()
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if self._due is None or version != self._version:
            self._version = version
            self._due = DueIndex(connection.execute(_LANES))
            self._recount()
        return self._due

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

    # Finding

    def _find(self, connection: sqlite3.Connection, query: Query) -> Iterator[Entry]:
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
            yield to_message(lines[0], self._body(lines[0])), [to_recipient(line[MESSAGE_WIDTH:]) for line in lines]
            if count == query.limit:
                return

    def _body(self, row: Sequence[Any]) -> Body:
        number, queue_id, size, in_file = row[0], row[1], row[5], row[6]
        if in_file:
            return FileBody(f"{self.bodies}/{queue_id}", size)

        def read() -> bytes:
            with _os_errors(self.path), closing(_connect(self.path)) as connection:
                found = connection.execute(
                    "SELECT data FROM body JOIN message USING (id) WHERE id = ? AND queue_id = ?", (number, queue_id)
                ).fetchone()
                if found is None:
                    raise FileNotFoundError(errno.ENOENT, "the message has left the queue", queue_id)
                data: bytes = found[0]
                return data

        return LazyBody(size, read)

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

    def _count(self, new: Sequence[Entry], gone: _Gone) -> None:
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
        row = self._connected().execute(_COUNT).fetchone()
        self._usage = Usage(*row)

    # Adoption

    def _adopt(self) -> None:
        """Take in the mail of workers that are no more."""
        for number, path in files.shards(self.directory):
            if number < self._workers:
                continue
            locks = [files.lock(path_of(self.directory, number)) for path_of in (files.lock_path, files.users_path)]
            try:
                if None not in locks:  # else it serves still, until its last session has ended
                    count = self._copy_from(path)
                    for name in (path, f"{path}-wal", f"{path}-shm"):
                        files.unlink_if_there(name)
                    self._due = None
                    self._log.info("queue_adopted", path=path, messages=count)
            finally:
                for descriptor in locks:
                    if descriptor is not None:
                        os.close(descriptor)

    def _copy_from(self, path: str) -> int:
        _connect(path).close()  # brings its schema up to date
        connection = self._connected()
        connection.execute("ATTACH ? AS old", (path,))
        try:
            with self._transaction():
                (base,) = connection.execute("SELECT coalesce(max(id), 0) FROM main.message").fetchone()
                count = connection.execute(
                    f"INSERT INTO main.message ({MESSAGE_COLUMNS}) SELECT id + ?{MESSAGE_COLUMNS.removeprefix('id')} "  # noqa: S608
                    "FROM old.message WHERE queue_id NOT IN (SELECT queue_id FROM main.message)",
                    (base,),
                ).rowcount
                connection.execute(
                    "INSERT INTO main.body SELECT id + ?1, data FROM old.body "
                    "WHERE id + ?1 IN (SELECT id FROM main.message WHERE id > ?1)",
                    (base,),
                )
                connection.execute(
                    f"INSERT INTO main.recipient (message, destination, flow, {RECIPIENT_COLUMNS}) "  # noqa: S608
                    f"SELECT message + ?1, destination, flow, {RECIPIENT_COLUMNS} FROM old.recipient "
                    "WHERE message + ?1 IN (SELECT id FROM main.message WHERE id > ?1)",
                    (base,),
                )
                # Nobody is at work on them any more.
                connection.execute(
                    "UPDATE recipient SET state = 1, next_attempt = 1 WHERE message > ? AND state = 2", (base,)
                )
            return count
        finally:
            connection.execute("DETACH old")


# Files


def prepare(directory: str, log: Log, now: Callable[[], float] = time.time) -> None:
    """Once at start, before any worker: see that it can be written, sweep bodies that a crash left without a row."""
    files.make_directories(directory)
    known: set[str] = set()
    for _, path in files.shards(directory):
        with _os_errors(path), closing(_connect(path)) as connection:
            known.update(row[0] for row in connection.execute("SELECT queue_id FROM message WHERE in_file"))
    files.sweep_bodies(directory, known, now() - ORPHAN_AGE, lambda path: log.info("queue_orphan_removed", path=path))


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    if _version(connection) == len(STEPS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(STEPS):
            raise OSError(errno.EPROTONOSUPPORT, "made by a later version of smtpmaild", path)
        for step in STEPS[version:]:
            for statement in filter(str.strip, step.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


#: Primary result codes of SQLite and what they would be of a file.
_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_BUSY: errno.EAGAIN,
    sqlite3.SQLITE_LOCKED: errno.EAGAIN,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}


@contextmanager
def _os_errors(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
        raise OSError(_ERRNO.get(code, errno.EIO), str(error), path) from error


# Rows


def _insert(connection: sqlite3.Connection, new: Iterable[Entry]) -> None:
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


_Gone = list[tuple[str, int, int]]  # queue id, size, whether its body is in a file


def _settle(connection: sqlite3.Connection, claim: Claim, settlements: Sequence[Settlement]) -> _Gone:
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


def _change(
    connection: sqlite3.Connection, queue_id: str, recipients: Sequence[QueuedRecipient], settlement: Settlement
) -> _Gone:
    (number,) = connection.execute("SELECT id FROM message WHERE queue_id = ?", (queue_id,)).fetchone()
    values = _settlement_values(settlement)
    connection.executemany(_SETTLE, [(*values, number, one.number) for one in recipients])
    if settlement.reply is not None and settlement.reply.is_permanent:
        connection.executemany(_RETURN, [(RETURNED, number, one.number) for one in recipients])
    return [] if _open_numbers(connection, number) else _remove(connection, number)


def _open_numbers(connection: sqlite3.Connection, message: int) -> set[int]:
    """Recipients that have no end yet."""
    return {
        row[0] for row in connection.execute("SELECT number FROM recipient WHERE message = ? AND state < 4", (message,))
    }


def _remove(connection: sqlite3.Connection, message: int) -> _Gone:
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
