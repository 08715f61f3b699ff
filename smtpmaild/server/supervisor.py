"""The parent of workers and attendant: binds before them, starts them, replaces those that die, and ends them.

A plain process without loop and without threads, so that it can fork at any time. It accepts no connection and reads
no mail; what it holds is the listening sockets, so a worker that dies closes no door and a new one finds it open.

| signal          | what happens                                                                                |
|-----------------|---------------------------------------------------------------------------------------------|
| SIGTERM, SIGINT | all workers drain; who has not ended some seconds after the limit is killed                 |
| the second one  | all workers end at once; who has not a moment later is killed                               |
| SIGHUP          | the next plan is read. A good one gets workers of its own; when all of them accept, the     |
|                 | workers before them retire: they accept no more and see their sessions through              |

The attendant (attending.py) may order what the signals do. It ends after the workers.

A worker holds two pipes: in one it says that it accepts, and every second that it lives; the other is closed by the
kernel when the supervisor dies, and then the worker drains.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from smtpmaild import queue_id
from smtpmaild.facts import Log
from smtpmaild.server.attending import Attending
from smtpmaild.server.counts import Counts
from smtpmaild.server.differences import differences
from smtpmaild.server.house import Post, Reload, State
from smtpmaild.server.notify import Notifier
from smtpmaild.server.plan import Plan
from smtpmaild.server.restarts import next_delay
from smtpmaild.server.sockets import SocketTable
from smtpmaild.server.worker import SIGNALS, Worker, log_listening, next_plan, restart_needed, serve

#: Beyond the limit for draining: what stores may take to finish.
KILL_MARGIN = 10.0
#: After the second signal.
LAST_MOMENT = 2.0
#: For the last answers of the attendant, when the workers have ended.
FAREWELL = 5.0
#: A worker says every second that it lives; one that was silent for so long does not, for the watchdog.
SILENCE = 10.0

_READY, _ALIVE, _DEAF = b"R", b".", b"D"
_EX_SOFTWARE = 70


class Channel:
    """The worker's end of the pipe to its supervisor: what a `Notifier` is to the supervisor itself."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ready(self, status: str) -> None:
        """All listeners accept."""
        self._write(_READY)

    def ping(self, now: float) -> None:
        """The loop is alive."""
        self._write(_ALIVE)

    def reloading(self) -> None:
        """Never: the supervisor reloads."""

    def stopping(self, status: str) -> None:
        """No listener accepts any more, as the supervisor has wanted."""
        self._write(_DEAF)

    def _write(self, word: bytes) -> None:
        try:
            os.write(self._descriptor, word)
        except OSError:
            pass  # nobody reads: the supervisor is busy, or dead, which the other pipe tells


@dataclass(slots=True, eq=False)
class _Place:
    """The place of one worker, and who is in it. pid: 0 while it is empty.  row: its column of the counts.

    worker: which of all that there have been.  born_at: seconds since the epoch.  is_deaf: it accepts no more.
    """

    row: int
    pid: int = 0
    worker: int = 0
    born_at: float = 0.0
    channel: int = -1
    is_ready: bool = False
    is_deaf: bool = False
    started_at: float = 0.0
    heard_at: float = 0.0
    delay: float = 0.0
    start_at: float = 0.0


@dataclass(slots=True)
class _Rows:
    """Columns of the counts that are free."""

    counts: Counts
    prefixes: tuple[int, int]
    free: list[int] = field(default_factory=list)

    @classmethod
    def make(cls, plan: Plan) -> _Rows:
        # Twice as many as workers: those of the plan before go on counting until their last session has ended.
        number = 2 * plan.workers
        prefixes = (plan.prefix_v4, plan.prefix_v6)
        return cls(Counts(number, *prefixes), prefixes, [*range(number)])

    def suit(self, plan: Plan) -> bool:
        return len(self.free) >= plan.workers and self.prefixes == (plan.prefix_v4, plan.prefix_v6)


@dataclass(slots=True, eq=False)
class _Generation:
    """The workers of one plan."""

    plan: Plan
    sockets: SocketTable
    rows: _Rows
    places: list[_Place]
    is_retiring: bool = False

    @property
    def is_ready(self) -> bool:
        return all(place.is_ready for place in self.places)

    @property
    def pids(self) -> list[int]:
        return [place.pid for place in self.places if place.pid]


class Supervisor:
    """Runs the workers of a plan, and of those that follow it, until it is told to stop."""

    def __init__(self, plan: Plan, sockets: SocketTable, notifier: Notifier) -> None:
        self._notifier = notifier
        self._rows = _Rows.make(plan)
        self._generations = [self._new_generation(plan, sockets)]  # the last one is for new connections
        self._is_starting = True  # READY=1 is owed: for the start, or for a reload
        self._stops = 0  # how often we were told to stop
        self._kill_at = math.inf
        self._selector = selectors.DefaultSelector()
        self._signals, self._wakeup = _pipe()
        self._life, self._our_life = _pipe()
        self._workers = itertools.count(1)
        self._born_at = time.time()
        self._deaths = 0
        self._reloaded: Reload | None = None
        self._attending = Attending(self._selector, self._life, self._leave_ours, self._obey)

    @property
    def _current(self) -> _Generation:
        return self._generations[-1]

    @property
    def _log(self) -> Log:
        return self._current.plan.log

    def run(self) -> SocketTable:
        """Serve; the sockets that were in use last. SIGNALS are blocked when this is called."""
        self._selector.register(self._signals, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wakeup)
        for number in (*SIGNALS, signal.SIGCHLD):
            signal.signal(number, _noted)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        gc.collect()
        gc.freeze()  # workers share these pages with us as long as no collector writes to them
        self._tell_state()
        self._attending.serve(self._current.plan, self._current.sockets)
        try:
            while not self._stops or any(generation.pids for generation in self._generations):
                self._look_after(time.monotonic())
                self._wait()
            self._end_attendants()
        finally:
            signal.set_wakeup_fd(-1)
            self._selector.close()
            for descriptor in (self._signals, self._wakeup, self._life, self._our_life):
                os.close(descriptor)
        return self._current.sockets

    def _wait(self) -> None:
        """Until a signal comes, a worker has something to say, or something is due."""
        now = time.monotonic()
        vacant = [] if self._stops else [place.start_at for place in self._current.places if not place.pid]
        due = min(now + 1.0, self._kill_at, self._attending.start_at, *vacant)
        for key, _ in self._selector.select(max(0.0, due - now)):
            if key.fd == self._signals:
                # Two of one kind may have become one, as signals do; who sends a second SIGTERM waits for a moment.
                for number in os.read(self._signals, 4096):
                    if number in _ON_SIGNAL:
                        _ON_SIGNAL[number](self)
            else:
                hear, *whom = key.data
                hear(*whom)

    def _look_after(self, now: float) -> None:
        """Do what is due."""
        if not self._stops:
            for place in self._current.places:
                if not place.pid and place.start_at <= now:
                    self._start(self._current, place)
        elif now >= self._kill_at:
            self._kill_at = math.inf
            self._tell(signal.SIGKILL, *self._generations)
        self._attending.look_after(now)
        if self._is_watched_well(now):
            self._notifier.ping(now)

    def _is_watched_well(self, now: float) -> bool:
        """Every worker has given a sign of life."""
        places = [place for generation in self._generations for place in generation.places if place.pid]
        return all(now - place.heard_at < SILENCE for place in places)

    # Workers come

    def _new_generation(self, plan: Plan, sockets: SocketTable) -> _Generation:
        if not self._rows.suit(plan):
            self._rows = _Rows.make(plan)
        places = [_Place(self._rows.free.pop()) for _ in range(plan.workers)]
        return _Generation(plan, sockets, self._rows, places)

    def _start(self, generation: _Generation, place: _Place) -> None:
        ours, theirs = _pipe()
        generation.rows.counts.clear(place.row)
        self._attending.prepare(generation.plan)
        place.worker = next(self._workers)
        # The child keeps signals waiting until it can do with them what they mean there.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._be_worker(generation, place, theirs)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(theirs)
        place.pid, place.channel, place.is_ready, place.is_deaf = pid, ours, False, False
        place.started_at = place.heard_at = time.monotonic()
        place.born_at = time.time()
        self._selector.register(ours, selectors.EVENT_READ, (self._hear, generation, place))
        generation.plan.log.info("worker_started", worker=pid)
        self._tell_state()

    def _be_worker(self, generation: _Generation, place: _Place, channel: int) -> NoReturn:
        """In the child: never returns, so that nothing of the supervisor's is done twice."""
        status, plan = _EX_SOFTWARE, generation.plan
        try:
            self._leave_ours()
            self._attending.leave()
            queue_id.reseed()
            number = generation.places.index(place)
            generation.sockets.leave_to_others(plan.for_attendant)
            generation.sockets.become_share(number, len(generation.places))
            plan.enter(number)
            counts = generation.rows.counts.worker(place.row)
            heart = self._attending.heart(place.worker, plan)
            serve(plan, generation.sockets, counts, Channel(channel), self._connect, heart)
            status = 0
        except BaseException:
            plan.log.exception("worker_failed")
        finally:
            os._exit(status)

    def _leave_ours(self) -> None:
        """In a child: close what is the supervisor's alone."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        inherited = [one.channel for other in self._generations for one in other.places if one.pid]
        for descriptor in (self._signals, self._wakeup, self._our_life, *inherited):
            os.close(descriptor)

    def _connect(self, worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, worker.drain)
        loop.add_signal_handler(signal.SIGQUIT, worker.end_now)
        loop.add_signal_handler(signal.SIGUSR2, worker.retire)

        def orphaned() -> None:
            loop.remove_reader(self._life)
            worker.drain()

        loop.add_reader(self._life, orphaned)

    # Workers live

    def _hear(self, generation: _Generation, place: _Place) -> None:
        if place.channel < 0:
            return  # its death was reported in the same moment, and came first
        words = os.read(place.channel, 4096)
        if not words:  # it is ending, or ended: SIGCHLD tells how
            self._selector.unregister(place.channel)
            return
        place.heard_at = time.monotonic()
        if _READY in words:
            place.is_ready = True
            self._report_readiness()
            self._tell_state()
        if _DEAF in words:
            place.is_deaf = True
            self._report_reload()

    def _report_readiness(self) -> None:
        current = self._current
        if self._stops or not current.is_ready:
            return
        if self._is_starting:
            self._is_starting = False
            for old in self._generations[:-1]:
                self._retire(old)
            self._report_reload()
            self._attending.serve(current.plan, current.sockets)
        self._notifier.ready(self._status())

    def _report_reload(self) -> None:
        """It is done when nobody accepts by an older plan any more: then the next session is one by the new plan."""
        reload = self._reloaded
        if reload is None or not reload.is_good or reload.is_done or self._is_starting:
            return
        if all(place.is_deaf for old in self._generations[:-1] for place in old.places if place.pid):
            self._note_reload(replace(reload, is_done=True))

    def _retire(self, old: _Generation) -> None:
        if not old.is_retiring:
            old.is_retiring = True
            old.sockets.close_all_but(self._current.sockets)
            self._tell(signal.SIGUSR2, old)
            self._tell_state()
        self._forget_if_empty(old)

    def _status(self) -> str:
        serving = sum(place.is_ready for place in self._current.places)
        retiring = sum(len(old.pids) for old in self._generations[:-1])
        return f"{serving} of {len(self._current.places)} workers serving" + (f", {retiring} retiring" * bool(retiring))

    # Workers go

    def _reap(self) -> None:
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._attending.bury(pid, os.waitstatus_to_exitcode(wait_status), is_stopping=self._stops > 0)
            for generation in [*self._generations]:
                for place in generation.places:
                    if place.pid == pid:
                        self._bury(generation, place, os.waitstatus_to_exitcode(wait_status))

    def _bury(self, generation: _Generation, place: _Place, exit_code: int) -> None:
        pid, now = place.pid, time.monotonic()
        reason = f"exit status {exit_code}" if exit_code >= 0 else signal.Signals(-exit_code).name
        place.pid, place.is_ready = 0, False
        if place.channel in self._selector.get_map():
            self._selector.unregister(place.channel)
        os.close(place.channel)
        place.channel = -1
        generation.rows.counts.clear(place.row)
        if self._stops or generation.is_retiring:
            generation.plan.log.info("worker_ended", worker=pid, reason=reason)
            self._forget_if_empty(generation)
            self._tell_state()
            self._report_reload()
            return
        place.delay = next_delay(place.delay, now - place.started_at)
        place.start_at = now + place.delay
        self._deaths += 1
        generation.plan.log.error("worker_died", worker=pid, reason=reason, restart_in=place.delay)
        self._tell_state()
        self._notifier.status(self._status())

    def _forget_if_empty(self, generation: _Generation) -> None:
        if generation is self._current or generation.pids:
            return
        self._generations.remove(generation)
        generation.rows.free.extend(place.row for place in generation.places)
        if not self._is_starting and not self._stops:
            self._notifier.status(self._status())

    def _tell(self, number: signal.Signals, *generations: _Generation) -> None:
        for generation in generations:
            for pid in generation.pids:
                os.kill(pid, number)

    # What signals ask for

    def _stop(self) -> None:
        self._stops += 1
        if self._stops == 1:
            seconds = self._current.plan.drain_seconds
            self._log.info("stopping", seconds=seconds)
            self._notifier.stopping("waiting for sessions to end")
            self._tell(signal.SIGTERM, *self._generations)
            self._current.sockets.close_all_but(self._current.plan.for_attendant)
            self._kill_at = time.monotonic() + seconds + KILL_MARGIN
            self._tell_state()
        else:
            self._tell(signal.SIGQUIT, *self._generations)
            self._kill_at = min(self._kill_at, time.monotonic() + LAST_MOMENT)

    def _reload(self, number: int = 0) -> None:
        """number: of the order."""
        if self._stops:
            self._note_reload(Reload(number, time.time(), is_good=False, cause="the daemon is being stopped"))
            return
        self._notifier.reloading()
        before = self._current
        try:
            plan = next_plan(before.plan, is_alone=False)
            sockets = before.sockets.rebind(plan.sockets, plan.workers)
        except Exception as error:  # whatever is wrong with the new one, the old one serves on
            cause = str(error) or repr(error)
            self._log.error("reload_refused", cause=cause)
            self._note_reload(Reload(number, time.time(), is_good=False, cause=cause))
            self._notifier.ready(self._status())
            return
        self._is_starting = True
        self._generations.append(self._new_generation(plan, sockets))
        plan.log.info("reloaded")
        log_listening(plan, sockets)
        changed = differences(before.plan.sections, plan.sections)
        restart = [*restart_needed(before.plan, plan, is_alone=False)]
        self._note_reload(Reload(number, time.time(), is_good=True, changed=changed, restart=restart))

    # The attendant

    def _note_reload(self, reload: Reload) -> None:
        self._reloaded = reload
        self._attending.tell_reload(reload)
        self._tell_state()

    def _tell_state(self) -> None:
        places = [
            Post(
                place.worker,
                place.pid,
                number,
                is_ready=place.is_ready,
                is_retiring=generation.is_retiring,
                started_at=place.born_at,
            )
            for generation in self._generations
            for number, place in enumerate(generation.places)
            if place.pid
        ]
        self._attending.tell_state(
            State(
                pid=os.getpid(),
                started_at=self._born_at,
                wanted=len(self._current.places),
                deaths=self._deaths,
                is_stopping=self._stops > 0,
                posts=places,
                reload=self._reloaded,
            )
        )

    def _obey(self, order: Mapping[str, Any]) -> None:
        """What the attendant wants."""
        if order["order"] == "reload":
            self._reload(order["number"])
        elif order["order"] == "drain":
            if not self._stops:
                self._stop()
            if order["now"]:
                self._stop()

    def _end_attendants(self) -> None:
        """The workers have ended: it may say so, and end."""
        self._tell_state()
        until = time.monotonic() + FAREWELL
        self._attending.end()
        while self._attending.pids and time.monotonic() < until:
            self._wait()
        self._attending.kill()


def _pipe() -> tuple[int, int]:
    """(reading end, writing end), neither of which ever makes anybody wait."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


def _noted(number: int, frame: object) -> None:
    """A signal came: set_wakeup_fd has written it down, and the loop of run() reads it."""


_ON_SIGNAL: Mapping[int, Callable[[Supervisor], None]] = {
    signal.SIGTERM: Supervisor._stop,
    signal.SIGINT: Supervisor._stop,
    signal.SIGQUIT: Supervisor._stop,
    signal.SIGHUP: Supervisor._reload,
    signal.SIGCHLD: Supervisor._reap,
}
