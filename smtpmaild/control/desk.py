"""What can be asked of a running daemon, and ordered: the one object behind the control socket and the status page.

Lives in the attendant, in its loop. What reads a disk runs in a thread. Knows no sockets and no HTTP: whoever serves
it says in `Who` on whose behalf. Answers are plain values for JSON, times in seconds since the epoch.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from smtpmaild import __version__
from smtpmaild.control.queue_files import Filters, QueueFiles, Record
from smtpmaild.control.rates import SAMPLE_SECONDS, Rates
from smtpmaild.control.recordings import Recordings
from smtpmaild.facts import Log
from smtpmaild.queue.shards import Who
from smtpmaild.server.house import House, Reload, Work
from smtpmaild.server.sums import Counters

#: How long an order to reload waits for the new workers.
RELOAD_PATIENCE = 120.0
#: How long what was read of the queue is good for; several may ask at the same time. And so many times as long as
#: reading it took: 100,000 messages take a third of a second.
_FRESH_SECONDS = 2.0
_FRESH_TIMES = 20.0
#: A worker that was silent for so long is not well.
SILENCE = 5.0
_RATES_OVER = 60.0


@dataclass(frozen=True, slots=True)
class Door:
    """A listener as people see it. tls, auth: as in the configuration."""

    name: str
    addresses: Sequence[str]
    protocol: str
    tls: str
    auth: str


@dataclass(frozen=True, slots=True)
class Store:
    """A store of the configuration. path: its directory, "" for none.  problem: why it cannot be written, None if it
    can; reads the disk."""

    name: str
    type: str
    path: str
    problem: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Premises:
    """What the configuration says that people ask for. certificates: (names, last second of validity, file) of each;
    reads the disk."""

    hostname: str
    doors: Sequence[Door]
    stores: Sequence[Store]
    certificates: Callable[[], Sequence[tuple[Sequence[str], float, str]]] = field(default=lambda: ())


#: (a text, the address or the user that it is about) -> the same as the log would have it (privacy/).
WithoutNames = Callable[[str, str], str]


def _as_it_is(text: str, _about: str) -> str:
    return text


def _nameless(value: Any, without_names: WithoutNames, about: str = "") -> Any:
    """Every text of a record of the queue. about: whom the record is about."""
    if isinstance(value, str):
        return without_names(value, about)
    if isinstance(value, list):
        return [_nameless(one, without_names) for one in value]
    if isinstance(value, Mapping):
        who = str(value.get("address") or value.get("user") or "")
        return {key: _nameless(one, without_names, who) for key, one in value.items()}
    return value


class Desk:
    """See the head of this file. queue: None where no mail travels on.  recordings: of sessions; None: no worker could
    be told."""

    def __init__(
        self,
        house: House,
        premises: Premises,
        queue: QueueFiles | None,
        log: Log,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.house = house
        self.premises = premises
        self.queue = queue
        self.recordings: Recordings | None = None
        #: What was said at destinations, and networks of clients, as the log would have them (privacy/).
        self.without_names: WithoutNames = _as_it_is
        self._log = log
        self._clock = clock
        self._rates = Rates()
        self._timer: asyncio.TimerHandle | None = None
        self._destinations: tuple[float, list[Record]] = (0.0, [])
        self._reading = asyncio.Lock()

    # As a companion: it takes samples

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take samples."""
        self._rates.note(self._clock(), self.house.numbers())
        self._timer = loop.call_later(SAMPLE_SECONDS, self.start, loop)

    async def stop(self) -> None:
        """Take no more."""
        if self._timer is not None:
            self._timer.cancel()

    # What is

    def workers(self) -> list[Record]:
        """Each worker with its last pulse; those that serve first."""
        return [self._worker(work) for work in self.house.work]

    def _worker(self, work: Work) -> Record:
        post, pulse = work.post, work.pulse
        known = {
            "heard_at": pulse.at if pulse else None,
            "lag": pulse.lag if pulse else 0.0,
            "sessions": sum(pulse.sessions.values()) if pulse else 0,
            "memory": pulse.memory if pulse else 0,
        }
        return {**asdict(post), **known, "state": self._state_of(work)}

    def _state_of(self, work: Work) -> str:
        if self.house.state.is_stopping:
            return "draining"
        if work.post.is_retiring:
            return "retiring"
        if not work.post.is_ready:
            return "starting"
        heard_at = work.pulse.at if work.pulse else work.post.started_at
        return "serving" if self._clock() - heard_at < SILENCE else "silent"

    def numbers(self) -> Counters:
        """What all workers have counted since the daemon began; never goes down while it lives."""
        return self.house.numbers()

    def rates(self) -> dict[str, float]:
        """How fast the plain numbers grew in the last minute, per second."""
        return self._rates.per_second(_RATES_OVER)

    def listeners(self) -> list[Record]:
        """Each listener with its open sessions."""
        sessions: Counter[str] = Counter()
        for work in self.house.work:
            sessions.update(work.pulse.sessions if work.pulse else {})
        known = [{**asdict(door), "sessions": sessions.pop(door.name, 0)} for door in self.premises.doors]
        # Of a listener that a reload has closed, while sessions are open that began before.
        gone = [_closed(name, count) for name, count in sessions.items() if count]
        return known + gone

    def networks(self) -> dict[str, int]:
        """Open sessions by the network of the client, those with most first."""
        counted: Counter[str] = Counter()
        for work in self.house.work:
            counted.update(work.pulse.networks if work.pulse else {})
        return {self.without_names(name, ""): count for name, count in counted.most_common()}

    def is_ready(self) -> str:
        """Why no mail should be sent here now; "" where it should."""
        state = self.house.state
        if state.is_stopping:
            return "draining"
        if not any(work.post.is_ready and not work.post.is_retiring for work in self.house.work):
            return "no worker accepts connections"
        return ""

    async def destinations(self) -> list[Record]:
        """What waits for each destination (QueueFiles.stats), with what the runners know of it: in_flight, window, and
        until when it counts as dead, 0 while it lives."""
        async with self._reading:
            until, found = self._destinations
            begun = self._clock()
            if begun >= until:
                found = await asyncio.to_thread(self.queue.stats, {}) if self.queue is not None else []
                took = self._clock() - begun
                self._destinations = (begun + took + max(_FRESH_SECONDS, _FRESH_TIMES * took), found)
        by_name = {record["destination"]: dict(record) for record in found}
        for work in self.house.work:
            for name, pace in (work.pulse.destinations if work.pulse else {}).items():
                record = by_name.setdefault(name, {"destination": name, **_NOTHING_WAITS})
                for key in ("in_flight", "window"):
                    record[key] = record.get(key, 0) + pace[key]
                record["dead_until"] = max(record.get("dead_until", 0.0), pace["dead_until"])
        return [self._told({**_NO_PACE, **record}) for record in by_name.values()]

    def _told(self, record: Record) -> Record:
        about = record.pop("last_to", "")
        return {**record, "last": self.without_names(str(record["last"] or ""), about)}

    def waiting(self, destination: str, most: int) -> list[Record]:
        """Messages in the queue with their recipients of this destination, the oldest first; all for "". Reads the
        disk."""
        found: list[Record] = []
        for record in self.queue.find({}) if self.queue is not None else ():
            recipients = [one for one in record["recipients"] if destination in ("", one["destination"])]
            if recipients:
                found.append(_nameless({**record, "recipients": recipients}, self.without_names))
            if len(found) >= most:
                break
        return found

    async def _waiting(self) -> Record | None:
        if self.queue is None:
            return None
        usage, destinations = await asyncio.to_thread(self.queue.usage), await self.destinations()
        return {
            "messages": usage.messages,
            "size": usage.size,
            "destinations": sum(bool(one["messages"]) for one in destinations),
            "dead": sum(bool(one["dead_until"]) for one in destinations),
            "in_flight": sum(one["in_flight"] for one in destinations),
            "oldest": min((one["oldest"] for one in destinations if one["oldest"]), default=None),
        }

    async def stores(self) -> list[Record]:
        """Each store, the queue among them: whether it can be written, and the room on its disk."""
        return await asyncio.to_thread(lambda: [_store(one) for one in self.premises.stores])

    async def certificates(self) -> list[Record]:
        """The certificates of our listeners, and when they end."""
        found = await asyncio.to_thread(self.premises.certificates)
        return [{"names": [*names], "not_after": not_after, "path": path} for names, not_after, path in found]

    async def summary(self) -> Record:
        """How the daemon is, in one record."""
        state = self.house.state
        return {
            "version": __version__,
            "hostname": self.premises.hostname,
            "pid": state.pid,
            "started_at": state.started_at,
            "now": self._clock(),
            "is_stopping": state.is_stopping,
            "not_ready": self.is_ready(),
            "wanted": state.wanted,
            "deaths": state.deaths,
            "workers": self.workers(),
            "listeners": self.listeners(),
            "numbers": self.numbers(),
            "rates": self.rates(),
            "queue": await self._waiting(),
            "reload": asdict(state.reload) if state.reload else None,
        }

    # What is ordered

    async def reload(self, who: Who) -> AsyncIterator[Reload]:
        """Read the configuration again; see House.reload()."""
        self._log.info("reload_ordered", user=who.name)
        async for reload in self.house.reload(RELOAD_PATIENCE):
            yield reload

    async def drain(self, who: Who, *, now: bool = False) -> AsyncIterator[Record]:
        """End the daemon; how many workers and sessions are left, as it goes on. now: without waiting for sessions."""
        self._log.info("drain_ordered", user=who.name, now=now)
        self.house.drain(now=now)
        while True:
            await self.house.next_change(1.0)
            work = self.house.work
            yield {"workers": len(work), "sessions": sum(one["sessions"] for one in self.workers())}
            if not work:
                return

    async def change(self, verb: str, filters: Filters, who: Who, why: str) -> list[Record]:
        """retry, hold, release, drop or bounce what waits; the recipients that were changed. Raises OSError."""
        if self.queue is None:
            return []
        changed: list[Record] = await asyncio.to_thread(self.queue.change, verb, filters, who, why)
        self._destinations = (0.0, [])
        return changed


_NOTHING_WAITS: Mapping[str, object] = {
    "messages": 0,
    "size": 0,
    "states": {},
    "oldest": None,
    "next_attempt": None,
    "last": "",
}
_NO_PACE: Mapping[str, object] = {"in_flight": 0, "window": 0, "dead_until": 0.0}


def _closed(name: str, sessions: int) -> Record:
    return {**asdict(Door(name, (), "", "", "")), "sessions": sessions}


def _store(store: Store) -> Record:
    record: Record = {"name": store.name, "type": store.type, "path": store.path, "problem": store.problem()}
    folder = store.path
    while folder and not os.path.exists(folder):
        folder = os.path.dirname(folder)
    try:
        disk = os.statvfs(folder or "/")
    except OSError as error:
        return {**record, "problem": record["problem"] or error.strerror, "free": None, "total": None}
    return {**record, "free": disk.f_bavail * disk.f_frsize, "total": disk.f_blocks * disk.f_frsize}
