"""The pulse of a worker: once a second a datagram with how it is and what it has counted, for the attendant.

Nothing of the mail waits for it. It is sent without waiting over a socket that worker and attendant inherit; where the
buffer is full, because the attendant is slow or being replaced, it is dropped, and the next one says all of it again:
every number in it stands for the whole life of the worker.

A datagram stays below LARGEST. What there may be many of, destinations and networks of clients, is left out when it
would not.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from smtpmaild.envelope import IpAddress
from smtpmaild.server.listener import Listener
from smtpmaild.server.plan import Plan, Vitals

#: Bytes of a datagram, at most.
LARGEST = 60_000
#: Networks of clients that are named, the ones with most sessions.
_MOST_NETWORKS = 100
#: Networks are counted at each pulse while there are so few sessions, else at every tenth: 15,000 of them take 15 ms.
_FEW_SESSIONS = 1000
_RARELY = 10
#: What is left out of a pulse that became too large, in this order.
_LUXURIES: tuple[Mapping[str, Any], ...] = ({"destinations": {}}, {"networks": {}})


@dataclass(frozen=True, slots=True)
class Pulse:
    """One sign of life.

    worker: which life of a worker, counted from 1 by the supervisor.  at, started_at: seconds since the epoch.  lag:
    how late the loop was with what was due this second.  sessions: open ones, by listener; networks: by the network of
    the client.  memory: bytes of messages in flight.  destinations: what the runner of the queue knows of them.
    counters: see Vitals.
    """

    worker: int
    pid: int
    started_at: float
    at: float
    lag: float = 0.0
    sessions: Mapping[str, int] = field(default_factory=dict)
    networks: Mapping[str, int] = field(default_factory=dict)
    memory: int = 0
    destinations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    counters: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The datagram."""
        pulse = self
        data = _encoded(pulse)
        for luxury in _LUXURIES:
            if len(data) <= LARGEST:
                break
            pulse = replace(pulse, **luxury)
            data = _encoded(pulse)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Pulse:
        """Raises ValueError or TypeError for what is none."""
        return cls(**json.loads(data))


def _encoded(pulse: Pulse) -> bytes:
    values = {name: getattr(pulse, name) for name in Pulse.__slots__}
    return json.dumps(values, separators=(",", ":")).encode()


class Heart:
    """Makes the pulse of one worker and sends it."""

    def __init__(
        self,
        sock: socket.socket,
        worker: int,
        pid: int,
        plan: Plan,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sock = sock
        self._worker = worker
        self._pid = pid
        self._vitals = plan.vitals
        self._prefixes = {4: 32 - plan.prefix_v4, 6: 128 - plan.prefix_v6}
        self._clock = clock
        self._started_at = clock()
        self._beats = 0
        self._networks: Mapping[str, int] = {}

    def beat(self, listeners: Iterable[Listener], lag: float = 0.0) -> None:
        """Send one. listeners: of this worker."""
        try:
            self._sock.send(self.pulse(listeners, lag).to_bytes())
        except OSError:
            pass  # nobody reads now, or it grew too large after all; mail goes on

    def pulse(self, listeners: Iterable[Listener], lag: float) -> Pulse:
        """What it is now."""
        listeners = [*listeners]
        sessions = {one.door.name: len(one.connections) for one in listeners}
        if sum(sessions.values()) <= _FEW_SESSIONS or self._beats % _RARELY == 0:
            self._networks = self._count_networks(one.ip for each in listeners for one in each.connections)
        self._beats += 1
        vitals: Vitals = self._vitals()
        return Pulse(
            worker=self._worker,
            pid=self._pid,
            started_at=self._started_at,
            at=self._clock(),
            lag=round(max(0.0, lag), 6),
            sessions=sessions,
            networks=self._networks,
            memory=vitals.memory,
            destinations=vitals.destinations,
            counters=vitals.counters,
        )

    def _count_networks(self, ips: Iterable[IpAddress | None]) -> Mapping[str, int]:
        counted = Counter((ip.version, int(ip) >> self._prefixes[ip.version]) for ip in ips if ip is not None)
        return {self._name(*network): number for network, number in counted.most_common(_MOST_NETWORKS)}

    def _name(self, version: int, bits: int) -> str:
        shift = self._prefixes[version]
        if version == 4:
            return f"{ipaddress.IPv4Address(bits << shift)}/{32 - shift}"
        return f"{ipaddress.IPv6Address(bits << shift)}/{128 - shift}"


def pulse_sockets() -> tuple[socket.socket, socket.socket]:
    """(where workers send, where the attendant reads); neither ever makes anybody wait."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in ends:
        end.setblocking(False)
    # As much as the kernel lets us have: the pulses of many workers come in the same moment.
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return ends
