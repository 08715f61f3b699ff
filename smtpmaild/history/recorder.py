"""From the log to the file: the Recorder that every room tells its facts to, and the thread that writes them.

A fact that is kept becomes its text where it is told: 11 us for a session and its message, and 3 us in the thread.
Handing the facts themselves over is 9 and 9 us, and keeps half a second of objects alive (bench/history.py cost). The
thread takes what is there twice a second; more often would cost more, for both want the interpreter. Nobody waits for
it: when it comes to a stand, because of its disk, what finds no room is counted, dropped and told.
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
from smtpmaild.history.events import KEPT, Row, row_of
from smtpmaild.history.store import Store

#: How long the thread collects. Who follows live sees an event so late.
COLLECT_SECONDS = 0.5
#: Bytes of events that wait at most.
WAITING = 32 * 1024 * 1024
#: Events that are written together: a transaction, and 10 ms of the interpreter.
BATCH = 8192
#: How long a process without a thread waits for the file.
_PATIENCE_WITHOUT_THREAD = 0.2
_IS_KEPT = frozenset(KEPT)


class Recorder:
    """The log of a daemon that has a history (facts.py): keeps what is in the table, and passes everything on."""

    __slots__ = ("_history", "_log")

    def __init__(self, log: Log, history: History) -> None:
        self._log = log
        self._history = history

    def info(self, event: str, **facts: object) -> object:
        trace = facts.pop("trace", None)
        if event in _IS_KEPT:
            self._history.take(event, facts, trace)
        return self._log.info(event, **facts)

    def warning(self, event: str, **facts: object) -> object:
        if event in _IS_KEPT:
            self._history.take(event, facts, None)
        return self._log.warning(event, **facts)

    def error(self, event: str, **facts: object) -> object:
        if event in _IS_KEPT:
            self._history.take(event, facts, None)
        return self._log.error(event, **facts)

    def exception(self, event: str, **facts: object) -> object:
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
        self._events: deque[Row] = deque()
        # As in log.py: no lock, the left ones are counted by those who tell, the right ones by the thread.
        self._taken, self._written = 0, 0
        self._dropped, self._told = 0, 0
        self._trouble = ""
        self._users = 0
        self._is_collecting = False
        self._there_is_work = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, event: str, facts: Mapping[str, object], trace: Any) -> None:
        """Keep an event of the table."""
        if self._taken - self._written > WAITING:
            self._dropped += 1
            return
        try:
            row = row_of(time.time(), event, facts, trace)
        except Exception as error:  # a mistake of ours: the next ones may be better
            self._dropped += 1
            self._log.error("history_failed", path=self.settings.path, exc_info=error)
            return
        self._taken += len(row[1])
        self._events.append(row)
        if self._thread is None:
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
            while self._events:
                self._write_now()

    # The seam of companions

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a thread write from now on."""
        self._users += 1
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="history", daemon=True)
            self._thread.start()

    async def stop(self) -> None:
        """With the last user: write what waits, end the thread."""
        self._users -= 1
        thread = self._thread
        if self._users == 0 and thread is not None:
            self._stopping.set()
            self._there_is_work.set()
            await asyncio.to_thread(thread.join)
            self._thread = None

    # Writing

    def _write_now(self) -> None:
        # A connection must not outlive a fork: the supervisor's is closed when it has written.
        store = Store(self.settings, self._begun_anew, _PATIENCE_WITHOUT_THREAD)
        self._write(store)
        store.close()

    def _run(self) -> None:
        store = Store(self.settings, self._begun_anew)
        while True:
            self._there_is_work.wait()
            self._stopping.wait(COLLECT_SECONDS)
            self._there_is_work.clear()
            while self._events:
                self._write(store)
            if self._stopping.is_set():
                store.close()
                return

    def _write(self, store: Store) -> None:
        batch = [self._events.popleft() for _ in range(min(len(self._events), BATCH))]
        if not batch:
            return
        trouble = ""
        try:
            store.append(batch)
        except (OSError, sqlite3.Error) as error:
            trouble = str(error)
            self._dropped += len(batch)
        self._written += sum(len(text) for _, text, _, _ in batch)
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
