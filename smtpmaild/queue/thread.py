"""The thread of a worker in which its queue is touched, and the group commit.

The event loop hands over puts, settlements and claims; the thread takes everything that waits and makes one commit of
all puts and settlements; one post() answers them; then it claims. Meanwhile the next batch gathers. So twenty messages
that arrive together wait for the disk once.

The thread also looks after limits: how much is in the queue and how much room the disk has left. unhealthy() of the
sink reads what it found last.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue

from smtpmaild.facts import Log
from smtpmaild.queue import Claim, Entry, QueueStore, Room, Settlement
from smtpmaild.smtp.reply import Reply

#: Runs a function soon in the event loop's thread.
Post = Callable[[Callable[[], object]], object]
#: None: it is durable.
Done = Callable[[OSError | None], object]

QUEUE_FULL = Reply(452, "4.3.1", "The queue is full, try again later")
NO_ROOM = Reply(452, "4.3.1", "Insufficient system storage, try again later")
#: A batch takes no more, so that the first of it does not wait too long.
LARGEST_BATCH = 512
#: How often the disk is looked at.
LOOK_SECONDS = 1.0
#: Reports that wait in memory for a disk that takes them.
MOST_UNTOLD = 1000
_BUG = "the queue's thread failed"


@dataclass(frozen=True, slots=True)
class Limits:
    """When no more mail is taken in; 0 for no limit.

    directory: on which disk.  free: bytes that must be left there for others.
    """

    directory: str
    messages: int = 0
    size: int = 0
    free: int = 0


@dataclass(slots=True)
class _Put:
    entry: Entry
    done: Done


@dataclass(slots=True)
class _Settle:
    claim: Claim
    settlements: Sequence[Settlement]
    new: Sequence[Entry]
    done: Done


@dataclass(slots=True)
class _Call:
    function: Callable[[], object]
    done: Callable[[object], object]


@dataclass(slots=True)
class _Tell:
    make: Callable[[], Sequence[Entry]]
    done: Done


_Task = _Put | _Settle | _Call | _Tell


@dataclass(slots=True)
class _Batch:
    """What was waiting, by kind."""

    puts: list[_Put] = field(default_factory=list)
    settles: list[_Settle] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)
    tells: list[_Tell] = field(default_factory=list)

    def add(self, task: _Task) -> None:
        if isinstance(task, _Put):
            self.puts.append(task)
        elif isinstance(task, _Settle):
            self.settles.append(task)
        elif isinstance(task, _Tell):
            self.tells.append(task)
        else:
            self.calls.append(task)


class QueueThread:
    """All methods are for the event loop's thread. Whoever uses it calls start() and stop(); it lives from the first
    start to the last stop.

    trouble: the 452 to give while the queue takes nothing.
    """

    def __init__(
        self, store: QueueStore, limits: Limits, log: Log, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.trouble: Reply | None = None
        self._store = store
        self._limits = limits
        self._log = log
        self._clock = clock
        self._look_at = 0.0
        self._users = 0
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()  # None: end
        self._running: threading.Thread | None = None
        self._post: Post = _nowhere
        self._listeners: list[Callable[[], object]] = []
        self._untold: deque[Callable[[], Sequence[Entry]]] = deque(maxlen=MOST_UNTOLD)

    def start(self, post: Post) -> None:
        """Open the store and begin; OSError where it cannot be opened."""
        self._users += 1
        if self._users > 1:
            return
        self._post = post
        self._store.open()
        self._look()
        self._running = threading.Thread(target=self._run, name="queue", daemon=True)
        self._running.start()

    def stop(self) -> None:
        """With the last user: finish what was handed over, close the store. Blocks."""
        self._users -= 1
        if self._users > 0 or self._running is None:
            return
        self._tasks.put(None)
        self._running.join()
        self._running = None
        self._store.close()

    def on_put(self, listener: Callable[[], object]) -> None:
        """Call this, in the loop's thread, whenever mail was put in."""
        self._listeners.append(listener)

    def put(self, entry: Entry, done: Done) -> None:
        """Take a message in; done(None) when it is durable."""
        self._tasks.put(_Put(entry, done))

    def tell(self, make: Callable[[], Sequence[Entry]], done: Done) -> None:
        """Make messages in the thread, and take them in. done(error) says that they are tried again, until they are
        taken or we end."""
        self._tasks.put(_Tell(make, done))

    def settle(self, claim: Claim, settlements: Sequence[Settlement], new: Sequence[Entry], done: Done) -> None:
        """Settle a claim, with the messages that come of it."""
        self._tasks.put(_Settle(claim, settlements, new, done))

    def claim(
        self,
        now: float,
        lease_until: float,
        limit: int,
        room: Room,
        done: Callable[[Sequence[Claim]], object],
    ) -> None:
        """Claim what is due; nothing where the disk does not let us."""

        def attempt() -> Sequence[Claim]:
            try:
                return self._store.claim(now, lease_until, limit, room)
            except OSError as error:
                self._log.error("queue_failed", verb="claim", cause=str(error))
                return ()

        self._tasks.put(_Call(attempt, done))  # type: ignore[arg-type]

    def stop_claiming(self, done: Callable[[object], object]) -> None:
        """Let another process claim; what is claimed must be settled."""
        self._tasks.put(_Call(self._store.stop_claiming, done))

    # In the thread

    def _run(self) -> None:
        while True:
            task = self._next()
            if task is None:
                self._tell_untold()
                return
            batch = _Batch()
            batch.add(task)
            is_last = self._fill(batch)
            try:
                self._work(batch)
            except Exception as error:  # a mistake of ours: the thread lives, nothing of the batch is acknowledged
                self._log.error("queue_thread_failed", exc_info=error)
                refused = [task.done for tasks in (batch.puts, batch.settles, batch.tells) for task in tasks]
                self._answer([partial(done, OSError(_BUG)) for done in refused])
            if self._clock() >= self._look_at:
                self._look()
                self._tell_untold()
            if is_last:
                return

    def _next(self) -> _Task | None:
        while self._untold:  # they are tried again even where nothing else happens
            try:
                return self._tasks.get(timeout=LOOK_SECONDS)
            except Empty:
                self._tell_untold()
        return self._tasks.get()

    def _tell(self, make: Callable[[], Sequence[Entry]]) -> OSError | None:
        try:
            entries = make()
            if entries:
                self._store.put(entries)
        except OSError as error:
            self._log.error("report_failed", cause=str(error))
            return error
        except Exception as error:  # a mistake of ours would be the same the next time
            self._log.error("report_failed", exc_info=error)
        return None

    def _tell_untold(self) -> None:
        for _ in range(len(self._untold)):
            if self._tell(self._untold[0]) is not None:
                return
            self._untold.popleft()

    def _fill(self, batch: _Batch) -> bool:
        """Everything else that waits; True at the end."""
        try:
            for _ in range(LARGEST_BATCH):
                task = self._tasks.get_nowait()
                if task is None:
                    return True
                batch.add(task)
        except Empty:
            pass
        return False

    def _work(self, batch: _Batch) -> None:
        put_error, settle_error = self._commit(batch)
        answers: list[Callable[[], object]] = [partial(one.done, settle_error) for one in batch.settles]
        answers += [partial(one.done, put_error) for one in batch.puts]
        if (batch.puts and put_error is None) or any(one.new for one in batch.settles):
            answers += self._listeners
        self._answer(answers)  # now: clients wait for theirs, not for a claim or a report
        answers, batch.puts, batch.settles = [], [], []
        for tell in batch.tells:
            error = self._tell(tell.make)
            if error is not None:
                self._untold.append(tell.make)
            answers.append(partial(tell.done, error))
        if batch.tells:
            answers += self._listeners
        for call in batch.calls:
            answers.append(partial(call.done, call.function()))
        self._answer(answers)

    def _commit(self, batch: _Batch) -> tuple[OSError | None, OSError | None]:
        """One transaction for all. Where it fails, settlements get another try: they make room, puts take it."""
        puts = [one.entry for one in batch.puts]
        if not puts and not batch.settles:
            return None, None
        error = self._settle(batch.settles, puts)
        if error is None or not (puts and batch.settles):
            return error, error
        return error, self._settle(batch.settles, ())

    def _settle(self, settles: Sequence[_Settle], puts: Sequence[Entry]) -> OSError | None:
        new = [*puts]
        for one in settles:
            new += one.new
        try:
            self._store.settle([(one.claim, one.settlements) for one in settles], new)
        except OSError as error:
            self._log.error(
                "queue_failed",
                verb="settle" if settles else "put",
                messages=[message.queue_id for message, _ in new],
                cause=str(error),
            )
            return error
        return None

    def _answer(self, answers: Sequence[Callable[[], object]]) -> None:
        if not answers:
            return

        def tell() -> None:
            for answer in answers:
                try:
                    answer()
                except Exception as error:  # one session's bug is not the next one's
                    self._log.error("queue_answer_failed", exc_info=error)

        try:
            self._post(tell)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            pass

    def _look(self) -> None:
        """See whether there is room."""
        self._look_at = self._clock() + LOOK_SECONDS
        before, self.trouble = self.trouble, self._find_trouble()
        if self.trouble != before:
            usage = self._store.usage()
            event = "queue_takes_mail_again" if self.trouble is None else "queue_takes_no_mail"
            reply = str(self.trouble or "")
            self._log.warning(event, messages=usage.messages, size=usage.size, reply=reply)

    def _find_trouble(self) -> Reply | None:
        limits = self._limits
        if limits.messages or limits.size:
            try:
                usage = self._store.whole_usage()
            except OSError as error:  # what another worker has cannot be read now
                self._log.warning("queue_failed", verb="usage", cause=str(error))
                usage = self._store.usage()
            if (limits.messages and usage.messages >= limits.messages) or (limits.size and usage.size >= limits.size):
                return QUEUE_FULL
        if limits.free:
            try:
                disk = os.statvfs(limits.directory)
            except OSError:
                return NO_ROOM
            if disk.f_bavail * disk.f_frsize < limits.free:
                return NO_ROOM
        return None


def _nowhere(_: Callable[[], object]) -> None:
    raise RuntimeError("the queue's thread was not started")
