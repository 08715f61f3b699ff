"""The file of the history: SQLite, written by all processes of the daemon, each from a thread of its own.

| table | a row is                                                                                                |
|-------|---------------------------------------------------------------------------------------------------------|
| chunk | a batch of events: number of the first, how many, first and last moment, and keys: four bytes for each  |
|       | name in them (events.py). A look-up reads all keys, 2.4 MB for 100,000 messages, and no index is kept   |
| body  | the events of a chunk, as text                                                                          |

So a batch of a thousand messages is one statement with a few rows, where an index would want six thousand. Events are
numbered in the order of their commits, which makes the number a cursor for whoever follows. Small chunks are merged
when there are many of them; numbers stay. It is a memory, not mail: nothing is synced, and a file that a power cut has
broken is put aside and begun anew.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from itertools import chain

from smtpmaild.history import Settings
from smtpmaild.history.events import CHUNK_EVENTS, VERSION, Chunk

#: With so many small chunks of our own they are merged, up to this many bytes.
SMALL_CHUNKS = 32
MERGED_BYTES = 64 * 1024
#: Chunks that are deleted at a time, and how often in one go: the oldest first.
DELETED_AT_ONCE = 16
MOST_DELETIONS = 8
#: Age and size are looked at so often: after seconds, and after a part of the size.
LOOK_SECONDS = 10.0
LOOK_PART = 64
#: How long a writer waits for another process. Each holds the file for a millisecond.
PATIENCE = 5.0

_SCHEMA = f"""
PRAGMA page_size = 8192;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS chunk (
    first INTEGER PRIMARY KEY, count INTEGER NOT NULL, begins REAL NOT NULL, ends REAL NOT NULL, keys BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS body (first INTEGER PRIMARY KEY, events BLOB NOT NULL);
PRAGMA user_version = {VERSION};
COMMIT;
"""
#: A batch is one statement, which is its own transaction: after each call of SQLite the thread has to wait for the
#: interpreter, and while it waits the event loop, which lets go of it again and again, wakes it every time. With 30
#: calls a batch that was 25,000 times a second at full load. Of each connection, for the file knows nothing of it.
_INCOMING = """
PRAGMA temp_store = MEMORY;
CREATE TEMP VIEW incoming AS SELECT count, begins, ends, keys, events FROM chunk JOIN body USING (first);
CREATE TEMP TRIGGER number_chunk INSTEAD OF INSERT ON incoming BEGIN
    INSERT INTO chunk VALUES (
        ifnull((SELECT first + count FROM chunk ORDER BY first DESC LIMIT 1), 1),
        new.count, new.begins, new.ends, new.keys
    );
    INSERT INTO body VALUES (last_insert_rowid(), new.events);
END;
"""
_INSERT = "INSERT INTO incoming VALUES "
_USED = (
    "SELECT page_count, freelist_count, page_size, (SELECT ends FROM chunk ORDER BY first LIMIT 1) "
    "FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Store:
    """One connection for writing, for one thread. Methods raise OSError or sqlite3.Error."""

    def __init__(self, settings: Settings, tell: Callable[[str], object], patience: float = PATIENCE) -> None:
        """tell: hears of what was begun anew, and why."""
        self._settings = settings
        self._tell = tell
        self._patience = patience
        self._connection: sqlite3.Connection | None = None
        self._small = 0
        self._looked_at, self._bytes_since = 0.0, 0

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Write these events, all or none of them; then keep to age and size, in small steps."""
        try:
            self._append(self._connected(), chunks)
        except sqlite3.DatabaseError as error:
            self.close()
            if error.sqlite_errorcode & 0xFF not in _BROKEN:
                raise
            self._put_aside(str(error))
            self._append(self._connected(), chunks)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        path = self._settings.path
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would take what the umask leaves
        connection = sqlite3.connect(path, timeout=self._patience, isolation_level=None, check_same_thread=False)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                connection.close()
                self._put_aside(f"it has version {version}, not {VERSION}")
                return self._open()
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA wal_autocheckpoint = 512")
            if version == 0:
                connection.executescript(_SCHEMA)
            connection.executescript(_INCOMING)
        except BaseException:
            connection.close()
            raise
        return connection

    def _put_aside(self, why: str) -> None:
        path = self._settings.path
        os.replace(path, f"{path}.old")
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + suffix)
        self._tell(why)

    def _append(self, connection: sqlite3.Connection, chunks: Sequence[Chunk]) -> None:
        connection.execute(_INSERT + ", ".join(["(?, ?, ?, ?, ?)"] * len(chunks)), [*chain.from_iterable(chunks)])
        self._small += sum(chunk.events < CHUNK_EVENTS // 2 for chunk in chunks)
        if self._small >= SMALL_CHUNKS:
            self._small = 0
            with _transaction(connection):
                _merge(connection)
        now = chunks[-1].ends
        self._bytes_since += sum(len(chunk.text) for chunk in chunks)
        if self._bytes_since > self._settings.size // LOOK_PART or abs(now - self._looked_at) > LOOK_SECONDS:
            self._looked_at, self._bytes_since = now, 0
            self._keep_to_limits(connection, now)

    def _keep_to_limits(self, connection: sqlite3.Connection, now: float) -> None:
        before = now - self._settings.keep
        for _ in range(MOST_DELETIONS):
            used, oldest_end = _used(connection)
            if used > self._settings.size:
                ends = now
            elif (oldest_end or now) < before:
                ends = before
            else:
                return
            with _transaction(connection):
                _delete_oldest(connection, ends)
            if connection.execute("PRAGMA freelist_count").fetchone()[0] > 4 * _count(connection):
                connection.execute("PRAGMA incremental_vacuum(256)").fetchall()


def _used(connection: sqlite3.Connection) -> tuple[int, float | None]:
    """Bytes in use, and when the oldest chunk ends; None without one."""
    pages, free, size, oldest_end = connection.execute(_USED).fetchone()
    return (pages - free) * size, oldest_end


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM chunk").fetchone()[0])


def _delete_oldest(connection: sqlite3.Connection, before: float) -> None:
    """A few of the oldest chunks that ended before that time; never the last one: its number is where we go on."""
    rows = connection.execute("SELECT first, ends FROM chunk ORDER BY first LIMIT ?", (DELETED_AT_ONCE + 1,)).fetchall()
    old = [(first,) for first, ends in rows[:-1] if ends < before]
    connection.executemany("DELETE FROM chunk WHERE first = ?", old)
    connection.executemany("DELETE FROM body WHERE first = ?", old)


def _merge(connection: sqlite3.Connection) -> None:
    """Make one chunk of the small ones at the end, whoever wrote them."""
    run: list[tuple[int, int, float, float, bytes, bytes]] = []
    size = 0
    for row in connection.execute(
        "SELECT chunk.*, events FROM chunk JOIN body USING (first) ORDER BY first DESC LIMIT ?", (8 * SMALL_CHUNKS,)
    ):
        size += len(row[5])
        if size > MERGED_BYTES:
            break
        run.insert(0, row)
    if len(run) < 2:
        return
    first = run[0][0]
    keys = b"".join(sorted({keys[at : at + 4] for *_, keys, _ in run for at in range(0, len(keys), 4)}))
    values = (sum(row[1] for row in run), min(row[2] for row in run), max(row[3] for row in run), keys, first)
    connection.execute("UPDATE chunk SET count = ?, begins = ?, ends = ?, keys = ? WHERE first = ?", values)
    connection.execute("UPDATE body SET events = ? WHERE first = ?", (b",".join([row[5] for row in run]), first))
    merged = [(row[0],) for row in run[1:]]
    connection.executemany("DELETE FROM chunk WHERE first = ?", merged)
    connection.executemany("DELETE FROM body WHERE first = ?", merged)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection):  # type: ignore[no-untyped-def]
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
