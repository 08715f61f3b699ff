"""The file of a shard: opening it, its tables and their versions, transactions in it.

A commit returns when the log is on disk (WAL, synchronous=FULL), but for one that may be lost. A file of an earlier
version is brought up to date by whoever opens it. Errors of SQLite become OSError with the errno that a file would have
given. What is in the tables is the business of the other files.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

#: How long a write waits for that of another process.
_PATIENCE = 10.0
#: Pages of the log (4 KiB each) from which on it is written back into the database. A checkpoint costs two syncs and
#: random writes; the default of 1,000 pages came every 300 messages.
_CHECKPOINT = 8000

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


class ShardFile:
    """A shard's file as its queue has it open. One thread at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._opened = 0  # how often

    def connected(self) -> sqlite3.Connection:
        """The connection; a new one where there is none any more."""
        if self._connection is None:
            self._connection = connect(self.path)
            self._opened += 1
        return self._connection

    def version(self) -> tuple[int, int]:
        """Differs from the one before when another connection has changed the file, and when ours is another one."""
        (version,) = self.connected().execute("PRAGMA data_version").fetchone()
        return self._opened, version

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def transaction(self, *, is_durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Commit what is done within, or nothing of it. Not durable: committed without waiting for the disk."""
        connection = self.connected()
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

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # What SQLite thinks of the file may be wrong now; a new connection reads it again.
            connection.close()
            self._connection = None


@contextmanager
def opened(path: str) -> Iterator[sqlite3.Connection]:
    """A connection for one look at a file."""
    with os_errors(path), closing(connect(path)) as connection:
        yield connection


def connect(path: str) -> sqlite3.Connection:
    """Open a file, make it where there is none, bring its tables up to date."""
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
def os_errors(path: str) -> Iterator[None]:
    """What SQLite raises within is raised as what a file would have raised."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
        raise OSError(_ERRNO.get(code, errno.EIO), str(error), path) from error
