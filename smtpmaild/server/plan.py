"""What the processes of the daemon need to know: the seam between app/, which reads the config, and server/.

A `Plan` is one reading of the configuration, ready to serve. app/ builds it; `run` in supervisor.py serves it until
it is told to stop; SIGHUP asks it for the next one. It never changes.

In which process what is called:

| what                  | where, when                                                                             |
|-----------------------|-----------------------------------------------------------------------------------------|
| sinks: prepare()      | once, after privileges were dropped, before any worker; again for a reloaded plan       |
| log_start, log_stop   | of the plan a serving process begins with: its first and its last act; not on reload    |
| enter()               | in every worker of several, before the next two                                         |
| sinks: start(), stop()| in every process that serves the plan: before its first connection, after its last one  |
| companions            | as sinks, but in the event loop: start() after them, stop() when the sessions have ended|
| vitals()              | in the loop of a worker, once a second, where there is an attendant                     |
| attendant: companions | in the attendant (attendant.py), which is forked like a worker                          |
| reload()              | with one worker and no attendant in a thread of it, else in the supervisor              |

The supervisor forks, so it has no thread: the log must work before log_start() too, by writing at once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from smtpmaild.facts import Log
from smtpmaild.server.listener import Door
from smtpmaild.server.notice import Notice
from smtpmaild.server.sockets import Address
from smtpmaild.sink import Sink

if TYPE_CHECKING:
    from smtpmaild.server.house import House


def _nothing() -> None:
    pass


def _ignore(_: int) -> None:
    pass


#: Connections to the attendant that the kernel keeps until it accepts them.
ATTENDANT_BACKLOG = 64


class Companion(Protocol):
    """What serves beside the listeners in the same process: threads, a connection to another daemon."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Before the first connection, in the thread of the loop; never before a fork."""
        ...

    async def stop(self) -> None:
        """After the last connection."""
        ...


@dataclass(frozen=True, slots=True)
class ListenerPlan:
    """One listener of the config. backlog: connections that the kernel keeps for us until we accept them."""

    name: str
    addresses: tuple[Address, ...]
    door: Door
    backlog: int = 1024


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the rooms of a worker say of themselves, for its pulse; all of it is written as JSON.

    counters: numbers that only grow while the process lives, lists of them (histograms), and mappings of more; they are
    added up over all workers, ended ones included.  memory: bytes of messages in flight.  destinations: what the runner
    of the queue knows of each, a bounded number.
    """

    counters: Mapping[str, Any] = field(default_factory=dict)
    memory: int = 0
    destinations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttendantPlan:
    """What the attendant serves.

    addresses: (name, where it listens); bound with those of the listeners, before privileges go.  companions: called in
    the attendant with the house and a look-up of the sockets of an address; what serves there.
    """

    addresses: tuple[tuple[str, Address], ...]
    companions: Callable[[House, Callable[[Address], Sequence[socket.socket]]], Sequence[Companion]]


@dataclass(frozen=True, slots=True)
class Plan:
    """One reading of the configuration.

    reload: reads it again; raises an exception whose text says what is wrong with it, and everything stays as it is.
    workers: processes that serve.  drain_seconds: how long sessions may go on after SIGTERM.  retire_seconds: how long
    they may go on after a reload, on the plan they began with; then they drain.  user, group: whom to become after
    binding, "" to stay.  allow_root: serve as root where no user is given.  prefix_v4, prefix_v6: how many bits of an
    address make its network, for connection limits.  companions: what else is started and stopped with it.
    handshakes: of TLS, how many a worker has in flight.

    enter: called with the number of the worker, from 0, where there are several.  retire: called
    in the loop when no more connections come in by this plan: what its companions do by themselves is for the next one.

    attendant: who answers the operator; None: nobody.  vitals: what a worker says of itself.  sections: what the file
    says, section by section and part by part, in values that can be compared: to tell what a reload changed.  notice:
    where the attendant tells workers something; None: nowhere.
    """

    listeners: tuple[ListenerPlan, ...]
    sinks: Sequence[Sink]
    log: Log
    reload: Callable[[], Plan]
    workers: int = 1
    event_loop: Literal["uvloop", "asyncio"] = "uvloop"
    drain_seconds: float = 30.0
    retire_seconds: float = 3600.0
    user: str = ""
    group: str = ""
    allow_root: bool = False
    prefix_v4: int = 24
    prefix_v6: int = 56
    log_start: Callable[[], object] = _nothing
    log_stop: Callable[[], object] = _nothing
    companions: Sequence[Companion] = ()
    handshakes: int = 16
    enter: Callable[[int], object] = _ignore
    retire: Callable[[], object] = _nothing
    attendant: AttendantPlan | None = None
    vitals: Callable[[], Vitals] = Vitals
    sections: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    notice: Notice | None = None

    @property
    def sockets(self) -> list[tuple[str, Address, int]]:
        """(listener, address, backlog) of everything that is to be bound."""
        ours = [(one.name, address, one.backlog) for one in self.listeners for address in one.addresses]
        others = self.attendant.addresses if self.attendant is not None else ()
        return ours + [(name, address, ATTENDANT_BACKLOG) for name, address in others]

    @property
    def for_attendant(self) -> frozenset[Address]:
        """What of the sockets no worker accepts from."""
        return frozenset(address for _, address in self.attendant.addresses) if self.attendant else frozenset()

    @property
    def is_supervised(self) -> bool:
        """Its processes need a parent that looks after them."""
        return self.workers > 1 or self.attendant is not None
