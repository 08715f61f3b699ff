"""Group commit: the threads that make messages durable, shared by all stores of a worker process.

The event loop hands over jobs; a writer thread takes everything that waits and brings it to disk together: stage all
(create and write in tmp/), sync all, rename all, sync each directory once; then one post() answers the whole batch.
Meanwhile the next batch gathers. Where the disk is slow, a second thread commits it beside the first.

The order of steps is the promise. A message is answered 250 only after its last step:

| step                     | what a crash right after it leaves                | who cleans it up              |
|--------------------------|---------------------------------------------------|-------------------------------|
| make folders             | an empty mailbox                                  | nobody: mail will come        |
| stage                    | a file in tmp/, maybe short                       | prepare() of a later start    |
| sync contents            | a whole file in tmp/                              | prepare() of a later start    |
| rename                   | the message; its name may be lost with the power  | nobody: it is good mail       |
|                          | (spool: a `.eml` without `.json`)                 | see spool.py                  |
| sync folders             | the message, durable                              | nobody                        |
| rename last, sync again  | the spool's `.json`, and with it the pair         | nobody                        |
| settle: done(250)        | as above, and the client knows                    | nobody                        |

Whatever fails leaves nothing: what is in tmp/ is unlinked, and so is what was renamed. A failed sync is final for its
whole batch and never tried again: the kernel reports the loss once and has dropped the pages. A directory that cannot
even be opened for it, as somebody removed it or keeps us from reading it, is the trouble of who wants it alone.

Knows no mail and no store; delivery.py says what a job does in each step.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

from smtpmaild.facts import Log
from smtpmaild.sink import Post, disk
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply

NO_SPACE = Reply(452, "4.3.1", "Insufficient system storage, try again later")
NO_MEMORY = Reply(452, "4.3.1", "Too many messages in flight, try again later")
# RFC 3463 §3.3: X.2.2 "Mailbox full"; 4yz, for its owner will make room.
OVER_QUOTA = Reply(452, "4.2.2", "Mailbox is over quota, try again later")
STORE_FAILED = Reply(451, "4.3.0", "Message could not be stored, try again later")

#: Errors that go away when somebody makes room.
_NO_ROOM = {errno.ENOSPC: NO_SPACE, errno.EDQUOT: OVER_QUOTA}

#: One is at work, which makes the largest batches; the other joins while the disk is slow. With 20 messages in flight
#: beside a busy loop: on a fast disk (0.5 ms a sync) 4,000/s however many threads, but 0.083 ms CPU a message with one
#: at work, 0.089 and 0.109 ms with two and three; on a slow one (over 2 ms) 1,350/s with one, 2,020/s with two.
THREADS = 2
#: A sync longer than so many seconds is slow: then the next batch is prepared and synced meanwhile.
SLOW = 0.0015
#: From this many messages on, one syncfs instead of an fsync for each. Measured on ext4 with batches of n messages of
#: 4 KiB, CPU ms a message with fsync and with syncfs: n=2 0.148 0.138, n=3 0.177 0.141, n=5 0.137 0.117, n=8 0.159
#: 0.089; messages/s rise alike. A lone message gets an fsync, so that it does not wait for what others are writing.
SYNCFS_FROM = 2
#: From this many directories of a file system on, one syncfs instead of an fsync for each: it costs two of them.
SYNCFS_FOLDERS_FROM = 3
#: A batch takes no more, so that its open files stay bounded.
LARGEST_BATCH = 256
#: Bytes of messages in memory per worker, over which new messages are told to come later.
MEMORY = 64 * 1024 * 1024
#: After "no space" a store takes no message for so many seconds, then lets one try.
PAUSE = 5.0


class Folder(Protocol):
    """A directory that a batch renames into."""

    @property
    def target(self) -> str:
        """The path to sync after the rename."""
        ...

    @property
    def device(self) -> int:
        """The number of its file system, known after make_folders()."""
        ...


class Fault:
    """Why something could not be stored: the step that failed, and where."""

    __slots__ = ("error", "path", "step")

    def __init__(self, step: str, path: str, error: OSError) -> None:
        self.step = step
        self.path = path
        self.error = error


class Job(Protocol):
    """One message for one store, as the writer sees it. All but `flushed` and `settle` run in a writer thread."""

    @property
    def folders(self) -> Iterable[Folder]:
        """The directories it renames into."""
        ...

    @property
    def has_last(self) -> bool:
        """There are files that must become visible only when the others are durable; known after stage()."""
        ...

    def flush(self) -> int:
        """Write the blocks that wait; how many bytes of memory they held. Keeps an OSError for stage()."""
        ...

    def make_folders(self) -> None:
        """See that the directories exist, durably."""
        ...

    def stage(self, *, keep_open: bool) -> None:
        """Create and write everything in tmp/. keep_open: sync() will follow, else somebody runs syncfs."""
        ...

    def sync(self) -> None:
        """Make the contents durable, and close the files."""
        ...

    def publish(self) -> None:
        """Rename everything but the last files."""
        ...

    def publish_last(self) -> None:
        """Rename the last files."""
        ...

    def lose(self, target: str, step: str, error: OSError) -> None:
        """Go on without a directory that failed in this step; raise the error if that cannot be."""
        ...

    def withdraw(self) -> None:
        """Undo everything, whatever step it stands in. Raises no OSError."""
        ...

    def failed(self, error: OSError) -> str:
        """The store hears why, for its health; the path where it happened, for the log."""
        ...

    def flushed(self, size: int) -> None:
        """In the loop's thread: so many bytes left memory."""
        ...

    def settle(self, reply: Reply) -> None:
        """In the loop's thread: the answer."""
        ...


class Health:
    """Remembers for a moment that a store is full, so that nobody sends a message only to hear so at its end."""

    __slots__ = ("_clock", "_until")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = 0.0

    def failed(self, error: OSError) -> None:
        """Take note of a full disk. A quota is not one: the next mailbox may have room."""
        if error.errno == errno.ENOSPC:
            self._until = self._clock() + PAUSE

    def trouble(self) -> Reply | None:
        """The 452 to give while the trouble is fresh."""
        return NO_SPACE if self._until and self._clock() < self._until else None


def reply_to(error: OSError) -> Reply:
    """What the peer hears: no more than whether room is missing. The cause is in the log."""
    return _NO_ROOM.get(error.errno or 0, STORE_FAILED)


class _Verb(Enum):
    COMMIT = 1
    FLUSH = 2
    DISCARD = 3


_Task = tuple[_Verb, Job]
_Queue = SimpleQueue[_Task | None]  # None: end


class Writer:
    """The writer threads of one worker process.

    Every sink that was given this writer calls start() and stop(); the threads live from the first start to the last
    stop.  held: bytes of messages in memory, changed in the loop's thread only.  plenty: while less is held, messages
    may take their time to go to disk.  clock: monotonic seconds.
    """

    def __init__(
        self, log: Log, *, threads: int = THREADS, memory: int = MEMORY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.held = 0
        self.plenty = memory // 2
        self.clock = clock
        self._log = log
        self._memory = memory
        self._count = threads
        self._users = 0
        self._threads: list[threading.Thread] = []
        self._queue: _Queue = SimpleQueue()
        self._faults: deque[Fault] = deque()  # append and popleft are atomic

    def start(self, post: Post) -> None:
        """Begin the threads, in the process that needs them: a thread does not survive a fork."""
        self._users += 1
        if self._users > 1:
            return
        self._queue = SimpleQueue()
        turn = threading.Lock()
        committers = [_Committer(self._queue, turn, self._faults, self._log, post) for _ in range(self._count)]
        self._threads = [threading.Thread(target=each.run, name="writer", daemon=True) for each in committers]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """With the last user: finish what was handed over, end the threads."""
        self._users -= 1
        if self._users > 0:
            return
        self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def overload(self) -> Reply | None:
        """The 452 to give while messages in flight take too much memory."""
        return NO_MEMORY if self.held > self._memory else None

    def commit(self, job: Job) -> None:
        """Bring the job to disk with the next batch; its settle() gets the reply."""
        self._queue.put((_Verb.COMMIT, job))

    def flush(self, job: Job) -> None:
        """Write the blocks of a large message; its flushed() hears of it."""
        self._queue.put((_Verb.FLUSH, job))

    def note(self, fault: Fault) -> None:
        """In a writer thread: for the log, what went wrong with a part of a job while the rest of it goes on."""
        self._faults.append(fault)

    def discard(self, job: Job) -> None:
        """Undo what a message that was given up left on disk."""
        self._queue.put((_Verb.DISCARD, job))


class _Committer:
    """One writer thread: what it keeps between batches, and the steps of a batch.

    Each has its own descriptors of the file systems: syncfs reports an error once per descriptor, so threads that
    shared one would take each other's errors.
    """

    def __init__(self, queue: _Queue, turn: threading.Lock, faults: deque[Fault], log: Log, post: Post) -> None:
        self._queue = queue
        self._faults = faults
        self._turn = turn  # held by the thread that takes the next batch
        self._has_turn = False
        self._is_slow = False
        self._log = log
        self._post = post
        self._file_systems: dict[int, int] = {}  # device number -> descriptor
        self._outcomes: list[tuple[Job, Reply]] = []
        self._failures: dict[tuple[str, int], _Failure] = {}

    def run(self) -> None:
        while True:
            if not self._has_turn:
                self._turn.acquire()
                self._has_turn = True
            task = self._queue.get()
            if task is None:
                break
            try:
                self._work([task, *self._waiting()])
            except Exception as error:  # a mistake of ours: the thread lives, its messages get no 250
                self._log.error("writer_failed", exc_info=error)
        self._queue.put(None)  # for the next thread
        self._pass_turn()
        for fd in self._file_systems.values():
            disk.close(fd)

    def _pass_turn(self) -> None:
        self._has_turn = False
        self._turn.release()

    def _waiting(self) -> Iterator[_Task]:
        try:
            for _ in range(LARGEST_BATCH - 1):
                task = self._queue.get_nowait()
                if task is None:
                    self._queue.put(None)  # the end comes with the next get()
                    return
                yield task
        except Empty:
            return

    def _work(self, tasks: Sequence[_Task]) -> None:
        flushed: list[tuple[Job, int]] = []
        jobs: list[Job] = []
        for verb, job in tasks:
            if verb is _Verb.COMMIT:
                jobs.append(job)
            elif verb is _Verb.FLUSH:
                flushed.append((job, job.flush()))
            else:
                job.withdraw()
        if flushed:
            self._answer(partial(_tell_flushed, flushed))
        if jobs:
            self._commit(jobs)
            outcomes, self._outcomes = self._outcomes, []
            self._report()
            self._answer(partial(_tell_outcomes, outcomes, self._log))

    def _answer(self, tell: Callable[[], None]) -> None:
        try:
            self._post(tell)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            pass

    def _commit(self, jobs: list[Job]) -> None:
        try:
            self._steps(jobs)
        except Exception as error:  # a mistake of ours: the batch fails
            self._log.error("writer_failed", exc_info=error)
            settled = {id(job) for job, _ in self._outcomes}
            for job in jobs:
                if id(job) not in settled:
                    job.withdraw()
                    self._outcomes.append((job, STORE_FAILED))

    def _steps(self, jobs: list[Job]) -> None:
        jobs = self._each("make folder", jobs, lambda job: job.make_folders())
        is_bulk = len(jobs) >= SYNCFS_FROM and disk.HAS_SYNCFS
        if is_bulk:
            # Before the first write: a descriptor reports only errors that came after it was opened.
            jobs = self._each("open file system", jobs, self._open_file_systems)
        jobs = self._each("write", jobs, lambda job: job.stage(keep_open=not is_bulk))
        if self._is_slow:
            self._pass_turn()
        began = time.monotonic()
        jobs = self._together("sync", jobs, self._sync_file_systems if is_bulk else _sync_each)
        self._is_slow = time.monotonic() - began > SLOW
        jobs = self._each("rename", jobs, lambda job: job.publish())
        jobs = self._sync_folders(jobs)
        last = [job for job in jobs if job.has_last]
        if last:
            jobs = [job for job in jobs if not job.has_last]
            last = self._each("rename", last, lambda job: job.publish_last())
            jobs += self._sync_folders(last)
        self._outcomes += [(job, MESSAGE_ACCEPTED) for job in jobs]

    def _each(self, step: str, jobs: Sequence[Job], action: Callable[[Job], None]) -> list[Job]:
        """A step that can fail for one message alone; the jobs that passed it."""
        passed = []
        for job in jobs:
            try:
                action(job)
                passed.append(job)
            except OSError as error:
                self._fail(step, job, error)
        return passed

    def _together(self, step: str, jobs: list[Job], action: Callable[[Sequence[Job]], None]) -> list[Job]:
        """A step that all pass or none."""
        try:
            action(jobs)
        except OSError as error:
            for job in jobs:
                self._fail(step, job, error)
            return []
        return jobs

    def _open_file_systems(self, job: Job) -> None:
        for folder in job.folders:
            if folder.device not in self._file_systems:
                try:
                    self._file_systems[folder.device] = disk.open_directory(folder.target)
                except OSError as error:
                    job.lose(folder.target, "open file system", error)

    def _sync_file_systems(self, jobs: Sequence[Job]) -> None:
        for device in {folder.device for job in jobs for folder in job.folders}:
            disk.syncfs(self._file_systems[device])

    def _sync_folders(self, jobs: list[Job]) -> list[Job]:
        targets = {folder.target: folder.device for job in jobs for folder in job.folders}
        devices = set(targets.values())
        if len(targets) >= SYNCFS_FOLDERS_FROM * len(devices) and devices <= self._file_systems.keys():
            return self._together("sync directory", jobs, self._sync_file_systems)
        unopened: dict[str, OSError] = {}
        jobs = self._together("sync directory", jobs, lambda _: _sync_directories(targets, unopened))
        if not unopened:
            return jobs

        def lose(job: Job) -> None:
            for folder in job.folders:
                if folder.target in unopened:
                    job.lose(folder.target, "sync directory", unopened[folder.target])

        return self._each("sync directory", jobs, lose)

    def _fail(self, step: str, job: Job, error: OSError) -> None:
        job.withdraw()
        path = job.failed(error)
        self._outcomes.append((job, reply_to(error)))
        self._note(Fault(step, path, error))

    def _note(self, fault: Fault) -> None:
        error = fault.error
        failure = _Failure(fault.path, str(error.strerror or error))
        failure = self._failures.setdefault((fault.step, error.errno or 0), failure)
        failure.messages += 1

    def _report(self) -> None:
        """One event per cause, however many messages it hit."""
        while self._faults:
            self._note(self._faults.popleft())
        for (step, number), failure in self._failures.items():
            self._log.error(
                "store_failed",
                step=step,
                path=failure.path,
                error=errno.errorcode.get(number, str(number)),
                cause=failure.cause,
                messages=failure.messages,
            )
        self._failures.clear()


class _Failure:
    __slots__ = ("cause", "messages", "path")

    def __init__(self, path: str, cause: str) -> None:
        self.path = path
        self.cause = cause
        self.messages = 0


def _sync_directories(targets: Iterable[str], unopened: dict[str, OSError]) -> None:
    for target in targets:
        try:
            fd = disk.open_directory(target)
        except OSError as error:
            unopened[target] = error
            continue
        try:
            disk.fsync(fd)
        finally:
            disk.close(fd)


def _sync_each(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.sync()


def _tell_flushed(flushed: Sequence[tuple[Job, int]]) -> None:
    for job, size in flushed:
        job.flushed(size)


def _tell_outcomes(outcomes: Sequence[tuple[Job, Reply]], log: Log) -> None:
    for job, reply in outcomes:
        try:
            job.settle(reply)
        except Exception as error:  # one session's trouble must not keep the others from their answer
            log.error("answer_failed", exc_info=error)
