"""From the log to the file: the Recorder that every room tells its facts to, and the thread that writes them.

What is told is kept as it is until there is enough for a chunk, which is then made where the last of it was told: 7 us
for a session and its message, and 1 us in the thread (bench/history.py cost). The thread makes one call of SQLite twice
a second, and that is all: for whatever it did in Python it would have to wait for the interpreter, and while it waits
the event loop wakes it at every callback (store.py). Nobody waits for the thread: when it comes to a stand, because of
its disk, what finds no room is counted, dropped and told.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from smtpmaild.facts import Log
from smtpmaild.history import Settings
from smtpmaild.history.events import CHUNK_EVENTS, KEPT, Chunk, Told, chunk_of
from smtpmaild.history.store import Store

#: How long the thread collects. Who follows live sees an event so late.
COLLECT_SECONDS = 0.5
#: Bytes of events that wait at most.
WAITING = 32 * 1024 * 1024
#: Chunks that are written together: a transaction. Other processes wait for its end.
BATCH = 128
#: How long a process without a thread waits for the file.
_PATIENCE_WITHOUT_THREAD = 0.2
_IS_KEPT = frozenset(KEPT)


class Recorder:
    """The log of a daemon that has a history (facts.py): keeps what is in the table, and passes everything on."""

    __slots__ = ("_history", "_log")

    def __init__(self, log: Log, history: History) -> None:
        self._log = log
        self._history = history

    def record(self, event: str, facts: dict[str, Any], trace: Any) -> object:
        """The seam facts.Remember."""
        if event in _IS_KEPT:
            self._history.take(event, facts, trace)
        return self._log.info(event, **facts)

    def info(self, event: str, /, **facts: object) -> object:
        return self.record(event, facts, None)

    def warning(self, event: str, /, **facts: object) -> object:
        if event in _IS_KEPT:
            self._history.take(event, facts, None)
        return self._log.warning(event, **facts)

    def error(self, event: str, /, **facts: object) -> object:
        if event in _IS_KEPT:
            self._history.take(event, facts, None)
        return self._log.error(event, **facts)

    def exception(self, event: str, /, **facts: object) -> object:
        if event in _IS_KEPT:
            self._history.take(event, facts, None)
        return self._log.exception(event, **facts)


class History:
    """Events on their way into the file. A companion of each plan that keeps to these settings (server/plan.py): the
    thread lives from the first start to the last stop."""

    def __init__(self, settings: Settings, log: Log) -> None:
        """log: hears of trouble; not a Recorder's."""
        self.settings = settings
        self._log = log
        self._lock = threading.Lock()  # of the next four: the threads of stores tell, too
        self._events: list[Told] = []
        self._taken, self._written = 0, 0  # bytes
        self._dropped = 0
        self._told = 0  # of the dropped ones
        self._chunks: deque[Chunk] = deque()
        self._trouble = ""
        self._users = 0
        self._is_collecting = False
        self._there_is_work = threading.Event()
        self._stopping = threading.Event()
        self._running: threading.Thread | None = None

    def take(self, event: str, facts: Mapping[str, object], trace: Any) -> None:
        """Keep an event of the table."""
        if self._taken - self._written > WAITING:
            self._drop(1)
            return
        with self._lock:
            self._events.append((time.time(), event, facts, trace))
            is_full = len(self._events) >= CHUNK_EVENTS
        if is_full:
            self._close_chunk()
        if self._running is None:
            if not self._is_collecting:
                self._write_now()
        elif not self._there_is_work.is_set():
            self._there_is_work.set()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """What is told within it is written together at its end: for a command that has no thread, and much to tell."""
        self._is_collecting = True
        try:
            yield
        finally:
            self._is_collecting = False
            self._write_what_waits()

    # The seam of companions

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a thread write from now on."""
        self._users += 1
        if self._running is None:
            self._stopping.clear()
            self._running = threading.Thread(target=self._run, name="history", daemon=True)
            self._running.start()

    async def stop(self) -> None:
        """With the last user: write what waits, end the thread."""
        self._users -= 1
        thread = self._running
        if self._users == 0 and thread is not None:
            self._stopping.set()
            self._there_is_work.set()
            await asyncio.to_thread(thread.join)
            self._running = None
            self._write_what_waits()  # told when the thread had looked for the last time

    # Writing

    def _write_what_waits(self) -> None:
        if self._events or self._chunks:
            self._write_now()

    def _write_now(self) -> None:
        # A connection must not outlive a fork: the supervisor's is closed when it has written.
        store = Store(self.settings, self._begun_anew, _PATIENCE_WITHOUT_THREAD)
        self._write_all(store)
        store.close()

    def _run(self) -> None:
        store = Store(self.settings, self._begun_anew)
        while True:
            self._there_is_work.wait()
            self._stopping.wait(COLLECT_SECONDS)
            self._there_is_work.clear()
            self._write_all(store)
            if self._stopping.is_set():
                store.close()
                return

    def _close_chunk(self) -> None:
        with self._lock:
            events, self._events = self._events, []
        chunk, mistakes = chunk_of(events)
        for mistake in mistakes:
            self._drop(1)
            self._log.error("history_failed", path=self.settings.path, exc_info=mistake)
        if chunk is not None:
            with self._lock:
                self._taken += len(chunk.text)
            self._chunks.append(chunk)

    def _drop(self, events: int) -> None:
        with self._lock:
            self._dropped += events

    def _write_all(self, store: Store) -> None:
        self._close_chunk()
        self._write(store)  # what was dropped is told where nothing is left to write, too
        while self._chunks:
            self._write(store)

    def _write(self, store: Store) -> None:
        batch = [self._chunks.popleft() for _ in range(min(len(self._chunks), BATCH))]
        trouble = ""
        try:
            if batch:
                store.append(batch)
        except (OSError, sqlite3.Error) as error:
            trouble = str(error)
            self._drop(sum([chunk.events for chunk in batch]))
        with self._lock:
            self._written += sum([len(chunk.text) for chunk in batch])
        self._tell(trouble)

    def _tell(self, trouble: str) -> None:
        """Once, not twice a second; what was dropped when it is over."""
        if trouble and not self._trouble:
            self._log.warning("history_failed", path=self.settings.path, cause=trouble)
        self._trouble = trouble
        dropped = self._dropped - self._told
        if dropped and not trouble:
            self._told += dropped
            self._log.warning("history_events_dropped", events=dropped)

    def _begun_anew(self, why: str) -> None:
        self._log.warning("history_begun_anew", path=self.settings.path, cause=why, kept=f"{self.settings.path}.old")
