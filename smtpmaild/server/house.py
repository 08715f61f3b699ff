"""The daemon as its attendant sees it: who works here, how they are, what they have counted; and what it can order.

The supervisor sends news, the workers their pulse; orders go to the supervisor. Both are JSON in datagrams; this file
knows their form and no sockets. Everything happens in the loop of the attendant.

| from whom  | says                                                                                                 |
|------------|------------------------------------------------------------------------------------------------------|
| supervisor | {"state": ...}: who works, at each change; {"reload": ...}: what came of a reload, as it goes on       |
| worker     | its pulse (pulse.py)                                                                                  |
| attendant  | {"order": "reload", "number": N}, {"order": "drain", "now": BOOL}, {"order": "alive"}                  |
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from smtpmaild.server.pulse import Pulse
from smtpmaild.server.sums import Counters, Sums

Send = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Post:
    """One worker, as the supervisor knows it.

    worker: which life, counted from 1 since the daemon began.  number: its place among the workers, from 0.  is_ready:
    all its listeners accept.  is_retiring: it sees sessions through that began before a reload.  started_at: seconds
    since the epoch.
    """

    worker: int
    pid: int
    number: int
    is_ready: bool
    is_retiring: bool
    started_at: float


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of reading the configuration again.

    number: of the order, 0 for a signal.  at: seconds since the epoch.  is_good: it is taken; else cause says why not.
    changed: what is new, in words.  restart: options that a reload cannot change.  is_done: the new workers
    serve, and those before them accept no more.
    """

    number: int
    at: float
    is_good: bool
    cause: str = ""
    changed: Sequence[str] = ()
    restart: Sequence[str] = ()
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """The daemon, as the supervisor knows it. deaths: workers that died and were replaced.  wanted: workers that shall
    serve."""

    pid: int = 0
    started_at: float = 0.0
    wanted: int = 0
    deaths: int = 0
    is_stopping: bool = False
    posts: Sequence[Post] = ()
    reload: Reload | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """One worker: what the supervisor knows, and its last pulse. None: it has not given one yet."""

    post: Post
    pulse: Pulse | None


def state_news(state: State) -> bytes:
    """For the attendant."""
    return json.dumps({"state": asdict(state)}, separators=(",", ":")).encode()


def reload_news(reload: Reload) -> bytes:
    """For the attendant."""
    return json.dumps({"reload": asdict(reload)}, separators=(",", ":")).encode()


@dataclass(slots=True)
class _Watchers:
    """Who waits for the next change."""

    futures: set[asyncio.Future[None]] = field(default_factory=set)

    def tell(self) -> None:
        for future in self.futures:
            if not future.done():
                future.set_result(None)
        self.futures.clear()


class House:
    """What the attendant knows, and what it may order. Made in its loop.

    send: to the supervisor.  sums: what workers counted.  drain_pulses: read what waits of them now.
    """

    def __init__(
        self,
        send: Send,
        sums: Sums,
        drain_pulses: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.state = State()
        self._send = send
        self._sums = sums
        self._drain_pulses = drain_pulses
        self._clock = clock
        self._pulses: dict[int, Pulse] = {}
        self._has_news = False
        self._watchers = _Watchers()
        self._reloads: dict[int, Reload] = {}
        # Others than those of the attendant before us: what came of its orders is told to us, too.
        self._numbers = itertools.count(time.time_ns())

    # What comes in

    def hear_pulse(self, data: bytes) -> None:
        """A datagram of a worker. What is none, or of nobody who works here, is passed over.

        Until the supervisor has said who works here, everybody may: the last pulse of a worker that a reload has ended
        often comes before, and what it counted would be lost.
        """
        try:
            pulse = Pulse.from_bytes(data)
        except (ValueError, TypeError):
            return
        if not self._has_news or any(post.worker == pulse.worker for post in self.state.posts):
            self._pulses[pulse.worker] = pulse
            self._sums.note(pulse.worker, pulse.counters)

    def hear_news(self, data: bytes) -> None:
        """A datagram of the supervisor."""
        news = json.loads(data)
        if "state" in news:
            # What an ended worker said last must be counted before it is counted as ended.
            self._drain_pulses()
            self._has_news = True
            self.state = _to_state(news["state"])
            living = {post.worker for post in self.state.posts}
            self._sums.keep_only(living)
            for worker in [one for one in self._pulses if one not in living]:
                del self._pulses[worker]
        else:
            reload = Reload(**news["reload"])
            self._reloads[reload.number] = reload
        self._watchers.tell()

    def save(self) -> None:
        """Keep what was counted for who comes after us, and tell it from now on."""
        self._sums.save()

    # What is known

    @property
    def work(self) -> Sequence[Work]:
        """The workers, those that serve first."""
        posts = sorted(self.state.posts, key=lambda post: (post.is_retiring, post.number, post.worker))
        return [Work(post, self._pulses.get(post.worker)) for post in posts]

    def numbers(self) -> Counters:
        """What all workers have counted since the daemon began, as of the last save()."""
        return self._sums.total

    async def next_change(self, seconds: float) -> None:
        """Until the supervisor has news, or the time is up."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.futures.add(future)
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            self._watchers.futures.discard(future)

    # What is ordered

    async def reload(self, patience: float) -> AsyncIterator[Reload]:
        """Have the configuration read again; what comes of it, as it goes on. The last one is_done or not is_good, or
        the time was up."""
        number = next(self._numbers)
        until = self._clock() + patience
        seen: Reload | None = None
        self._send({"order": "reload", "number": number})
        while self._clock() < until:
            found = self._reloads.get(number)
            if found is not None and found != seen:
                seen = found
                yield found
                if found.is_done or not found.is_good:
                    break
            await self.next_change(until - self._clock())
        self._reloads.pop(number, None)

    def drain(self, *, now: bool) -> None:
        """Let the daemon end: when sessions have come to an end, or now."""
        self._send({"order": "drain", "now": now})


def _to_state(value: Mapping[str, Any]) -> State:
    reload = value["reload"]
    return State(
        **{
            **value,
            "posts": [Post(**post) for post in value["posts"]],
            "reload": Reload(**reload) if reload else None,
        }
    )
