"""One process that serves: its loop, its listeners, its signals, and an orderly end.

What is served under one plan is a `Generation`: listeners, their connections, the sinks behind them. A reload opens
the next generation on the same sockets; the one before accepts no more, lets its sessions end on the plan they began
with, and stops its sinks when the last of them is gone.

| signal             | alone                          | under a supervisor                            |
|--------------------|--------------------------------|-----------------------------------------------|
| SIGTERM            | drain; the second: end at once | drain, however often it comes                 |
| SIGINT             | as SIGTERM                     | ignored: Ctrl-C reaches the whole group       |
| SIGQUIT            | end at once                    | end at once                                   |
| SIGHUP             | reload                         | ignored                                       |
| SIGUSR2            | ignored                        | retire: old sessions end in peace, then exit  |
| supervisor is gone | -                              | drain                                         |

Nothing that was acknowledged is lost by any of these, and what is being stored when the end comes is finished and
answered first.
"""

from __future__ import annotations

import asyncio
import gc
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import IntEnum
from functools import partial
from typing import Any, Protocol

from smtpmaild.facts import Log
from smtpmaild.server.counts import Counts, WorkerCounts
from smtpmaild.server.handshakes import Handshakes
from smtpmaild.server.listener import Listener, Room
from smtpmaild.server.notify import Notifier
from smtpmaild.server.plan import Companion, Plan
from smtpmaild.server.pulse import Heart
from smtpmaild.server.recording import Recording
from smtpmaild.server.sockets import SocketTable, name_of
from smtpmaild.server.unraisable import log_unraisable
from smtpmaild.sink import Sink

#: Signals that mean something to a daemon; a supervisor holds them back while it forks.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2)

_SERVING = "serving"
_SWEEP_SECONDS = 1.0
_GC_THRESHOLDS = (20_000, 20, 50)
# How long a client may take to read its last reply when there is no other reason to stay.
_FAREWELL_SECONDS = 2.0
_SAME_FAILURE_SECONDS = 1.0


class Urgency(IntEnum):
    """How soon a generation shall end; it only ever grows."""

    NONE = 0  # when the last session has ended by itself
    DRAIN = 1  # when each session has come to its next command
    NOW = 2  # as soon as what is being stored is stored


class Generation:
    """What one plan serves in this process."""

    def __init__(self, plan: Plan, counts: WorkerCounts, room: Room, loop: asyncio.AbstractEventLoop) -> None:
        self.plan = plan
        self._loop = loop
        self._news = asyncio.Event()  # a listener has become empty, or the urgency has grown
        self._urgency = Urgency.NONE
        self._started: list[Sink] = []
        self._companions: list[Companion] = []
        self._noticed = 0
        handshakes = Handshakes(loop, plan.handshakes)
        self.listeners = [Listener(one.door, counts, room, loop, self._news.set, handshakes) for one in plan.listeners]

    @property
    def is_empty(self) -> bool:
        """There is no connection."""
        return not any(listener.connections for listener in self.listeners)

    async def open(self, sockets: SocketTable) -> None:
        """Start the sinks and companions, then accept connections."""
        for sink in self.plan.sinks:
            sink.start(self._loop.call_soon_threadsafe)
            self._started.append(sink)
        for companion in self.plan.companions:
            companion.start(self._loop)
            self._companions.append(companion)
        for listener, planned in zip(self.listeners, self.plan.listeners, strict=True):
            for address in planned.addresses:
                for sock in sockets.get(address):
                    await listener.open(sock, planned.backlog)

    def sweep(self, now: float) -> None:
        """Once a second."""
        self._look_at_notice()
        for listener in self.listeners:
            listener.sweep(now)

    def _look_at_notice(self) -> None:
        """Record sessions where somebody has ordered that, and no longer where nobody does."""
        notice = self.plan.notice
        if notice is None or notice.number == self._noticed:
            return
        self._noticed = notice.number
        order = notice.read()
        recording = Recording(order) if order else None
        for listener in self.listeners:
            is_wanted = recording is not None and recording.listener in ("", listener.door.name)
            listener.recording = recording if is_wanted else None

    async def revive(self) -> int:
        """Listen again on sockets that the loop gave up; how many."""
        return sum([await listener.revive() for listener in self.listeners])

    def stop_accepting(self) -> None:
        """From now on no connection comes; those that are there stay."""
        for listener in self.listeners:
            listener.close()

    def hurry(self, urgency: Urgency) -> None:
        """end() shall not take its time."""
        self._urgency = max(urgency, self._urgency)
        if self._urgency >= Urgency.DRAIN:
            self._drain()
        self._news.set()

    def _drain(self) -> None:
        for listener in self.listeners:
            listener.drain()

    async def end(self, patience: float) -> None:
        """Accept no more, see the sessions out, stop the sinks. patience: seconds before draining begins."""
        self.stop_accepting()
        self.plan.retire()
        await self._until_empty(patience, Urgency.DRAIN)
        self._drain()
        await self._until_empty(self.plan.drain_seconds, Urgency.NOW)
        for listener in self.listeners:
            listener.abort()
        # Until what was committed is durable; its sessions are answered by the loop meanwhile.
        await asyncio.to_thread(self._stop_sinks)
        for listener in self.listeners:
            listener.abort()
        await self._until_empty(_FAREWELL_SECONDS, Urgency.NOW)
        for listener in self.listeners:
            listener.kill()
        await self._until_empty(_FAREWELL_SECONDS, None)
        for listener in self.listeners:
            await listener.finish_tasks(_FAREWELL_SECONDS)
        while self._companions:
            await self._companions.pop().stop()

    def _stop_sinks(self) -> None:
        while self._started:
            self._started.pop().stop()

    async def _until_empty(self, seconds: float, enough: Urgency | None) -> None:
        """Wait until no connection is left, the time is up, or the urgency is `enough`."""
        deadline = self._loop.time() + seconds
        while not self.is_empty and (enough is None or self._urgency < enough):
            self._news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return


class Superior(Protocol):
    """Who is told how a worker is doing: systemd (`Notifier`), or the supervisor (`Channel` in supervisor.py)."""

    def ready(self, status: str) -> None:
        """All listeners accept connections."""

    def reloading(self) -> None:
        """A reload has begun; ready() follows."""

    def stopping(self, status: str) -> None:
        """No listener accepts connections any more."""

    def ping(self, now: float) -> None:
        """The loop is alive; called once a second."""


class Worker:
    """The generations of this process, and what is done with them.

    All methods but serve() may be called as signal handlers of the loop.
    """

    def __init__(
        self,
        plan: Plan,
        sockets: SocketTable,
        counts: WorkerCounts,
        superior: Superior,
        loop: asyncio.AbstractEventLoop,
        heart: Heart | None = None,
    ) -> None:
        self.sockets = sockets
        self._loop = loop
        self._counts = counts
        self._superior = superior
        self._heart = heart
        self._room = Room.of_this_process()
        self._current = Generation(plan, counts, self._room, loop)
        self._old: dict[Generation, asyncio.Task[None]] = {}
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False
        self._stop = asyncio.Event()
        self._patience = 0.0

    @property
    def _log(self) -> Log:
        return self._current.plan.log

    async def serve(self) -> None:
        """Serve until drain(), end_now() or retire(), and see it through."""
        await self._current.open(self.sockets)
        # What exists now exists to the end: the collector need not walk over it again and again.
        gc.collect()
        gc.freeze()
        # What a session makes is freed by counting references; at Python's threshold of 700 objects the search for
        # cycles takes a fifth of the CPU of a message.
        gc.set_threshold(*_GC_THRESHOLDS)
        self._superior.ready(_SERVING)
        timer = self._loop.create_task(self._tick_for_ever())
        await self._stop.wait()
        while self._reloading is not None:
            await self._reloading
        self._stop_accepting()
        self._superior.stopping("waiting for sessions to end")
        await asyncio.gather(self._current.end(self._patience), *self._old.values())
        timer.cancel()
        self._beat()  # what was counted since the last one

    def drain(self) -> None:
        """Let each session end at its next command, then serve() returns."""
        self._hurry(Urgency.DRAIN)

    def end_now(self) -> None:
        """Let each session end here, then serve() returns."""
        self._hurry(Urgency.NOW)

    def drain_or_end_now(self) -> None:
        """A signal from somebody at a keyboard, who sends another when nothing seems to happen."""
        self._hurry(Urgency.NOW if self._stop.is_set() else Urgency.DRAIN)

    def retire(self) -> None:
        """Accept no more; when the last session has ended by itself, serve() returns."""
        if not self._stop.is_set():
            self._stop_accepting()
            self._patience = self._current.plan.retire_seconds
            self._stop.set()

    def _hurry(self, urgency: Urgency) -> None:
        if not self._stop.is_set():
            self._stop_accepting()
            self._log.info("draining", seconds=self._current.plan.drain_seconds)
        for generation in (self._current, *self._old):
            generation.hurry(urgency)
        self._stop.set()

    def _stop_accepting(self) -> None:
        self._current.stop_accepting()
        # While any process holds them open, the kernel lets clients in whom nobody will ever greet.
        self.sockets.close_all_but()

    # Reload

    def reload(self) -> None:
        """Serve new connections by a new reading of the configuration, if it is a good one."""
        if self._reloading is not None:
            self._reload_again = True  # the file has changed while we were reading it
        elif not self._stop.is_set():
            self._reloading = self._loop.create_task(self._reload())

    async def _reload(self) -> None:
        self._superior.reloading()
        try:
            await self._change_plan()
        except Exception as error:  # whatever is wrong with the new one, the old one serves on
            self._log.error("reload_refused", cause=str(error) or repr(error))
        self._superior.ready(_SERVING)
        self._reloading = None
        if self._reload_again:
            self._reload_again = False
            self.reload()

    async def _change_plan(self) -> None:
        before = self._current
        plan = await asyncio.to_thread(partial(next_plan, before.plan, is_alone=True))
        if self._stop.is_set():
            return
        sockets = self.sockets.rebind(plan.sockets)
        generation = Generation(plan, self._counts, self._room, self._loop)
        try:
            await generation.open(sockets)
        except BaseException:
            await generation.end(0.0)
            sockets.close_all_but(self.sockets)
            raise
        self._current, old_sockets, self.sockets = generation, self.sockets, sockets
        before.stop_accepting()
        task = self._old[before] = self._loop.create_task(before.end(before.plan.retire_seconds))
        task.add_done_callback(lambda _: self._old.pop(before))
        old_sockets.close_all_but(sockets)
        plan.log.info("reloaded")
        log_listening(plan, sockets)

    # Once a second

    async def _tick_for_ever(self) -> None:
        while True:
            due = self._loop.time() + _SWEEP_SECONDS
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                now = self._loop.time()
                self._beat(now - due)
                await self._tick(now)
            except Exception:  # a bug; the next second may be better
                self._log.exception("sweep_failed")

    def _beat(self, lag: float = 0.0) -> None:
        if self._heart is not None:
            self._heart.beat([one for generation in (self._current, *self._old) for one in generation.listeners], lag)

    async def _tick(self, now: float) -> None:
        self._superior.ping(now)
        for generation in (self._current, *self._old):
            generation.sweep(now)
        if not self._stop.is_set():
            deaf = await self._current.revive()
            if deaf:
                self._log.warning("listening_again", sockets=deaf)


def next_plan(plan: Plan, *, is_alone: bool) -> Plan:
    """The plan that follows, with its stores ready. Raises whatever is wrong with it. Blocks.

    is_alone: the worker has no supervisor that could give it company.
    """
    new = plan.reload()
    for option in restart_needed(plan, new, is_alone=is_alone):
        new.log.warning("restart_needed", option=option)
    for sink in new.sinks:
        sink.prepare()
    return replace(new, attendant=None) if is_alone else new


def restart_needed(plan: Plan, new: Plan, *, is_alone: bool) -> Iterator[str]:
    """Options that a reload cannot change."""
    if is_alone and new.workers > 1:
        yield "workers"
    if is_alone and new.attendant is not None:
        yield "control"
    for name, before, after in (
        ("event_loop", plan.event_loop, new.event_loop),
        ("user", (plan.user, plan.group), (new.user, new.group)),
    ):
        if before != after:
            yield name
    # Under a supervisor workers are new processes, which count anew; one alone goes on counting as it did.
    if is_alone and (plan.prefix_v4, plan.prefix_v6) != (new.prefix_v4, new.prefix_v6):
        yield "network_prefix"


def log_listening(plan: Plan, sockets: SocketTable) -> None:
    """One fact for each address: the port that the kernel chose is in it."""
    for name, address, _ in plan.sockets:
        for text in dict.fromkeys(name_of(sock) for sock in sockets.get(address)):
            plan.log.info("listening", listener=name, address=text)


def import_loop(plan: Plan) -> None:
    """Load what serving needs, while we may still read it and before workers are forked, who then share it."""
    import concurrent.futures.thread  # noqa: F401  asyncio.to_thread wants it, late

    if plan.event_loop == "uvloop":
        import uvloop  # noqa: F401


def new_loop(plan: Plan) -> asyncio.AbstractEventLoop:
    """The event loop of a serving process. What goes wrong in its callbacks is logged and ends nothing."""
    if plan.event_loop == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()

    logged_at: dict[type, float] = {}

    def log_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        cause, error = context["message"], context.get("exception")
        if loop.time() < logged_at.get(error.__class__, -math.inf) + _SAME_FAILURE_SECONDS:
            return  # asyncio says a hundred times a second that there are no more descriptors
        logged_at[error.__class__] = loop.time()
        if error is None:
            plan.log.error("loop_failure", cause=cause)
            return
        try:
            raise error
        except BaseException:
            plan.log.exception("loop_failure", cause=cause)

    loop.set_exception_handler(log_failure)
    return loop


def serve(
    plan: Plan,
    sockets: SocketTable,
    counts: WorkerCounts,
    superior: Superior,
    connect: Callable[[Worker, asyncio.AbstractEventLoop], None],
    heart: Heart | None = None,
) -> SocketTable:
    """Be a worker until it ends; the sockets that were in use last. connect: sets up what steers the worker.  heart:
    who sends its pulse, if anybody is there to hear it.

    SIGNALS are blocked when this is called, so that none comes before there is an ear for it.
    """
    plan.log_start()
    log_unraisable(plan.log)
    try:
        return _serve(plan, sockets, counts, superior, connect, heart)
    finally:
        plan.log_stop()


async def _cancel_what_is_left() -> None:
    """Look-ups that nobody waits for any more."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _serve(
    plan: Plan,
    sockets: SocketTable,
    counts: WorkerCounts,
    superior: Superior,
    connect: Callable[[Worker, asyncio.AbstractEventLoop], None],
    heart: Heart | None,
) -> SocketTable:
    loop = new_loop(plan)
    try:
        worker = Worker(plan, sockets, counts, superior, loop, heart)
        connect(worker, loop)
        loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, SIGNALS)
        loop.run_until_complete(worker.serve())
        loop.run_until_complete(_cancel_what_is_left())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    return worker.sockets


def serve_alone(plan: Plan, sockets: SocketTable, notifier: Notifier) -> SocketTable:
    """The one worker of a daemon without a supervisor."""

    def connect(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, worker.drain_or_end_now)
        loop.add_signal_handler(signal.SIGINT, worker.drain_or_end_now)
        loop.add_signal_handler(signal.SIGQUIT, worker.end_now)
        loop.add_signal_handler(signal.SIGHUP, worker.reload)

    counts = Counts(1, plan.prefix_v4, plan.prefix_v6).worker(0)
    return serve(plan, sockets, counts, notifier, connect)
