"""One listener of the config, in one worker process: what its sessions get, and its open connections.

A `Door` is what app/doors.py makes of a listener's part of the config; it never changes, and neither does the door of a
`Listener`. A reload makes another listener that accepts from the same sockets; the old one closes its ears and keeps
its sessions until they end.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smtpmaild.envelope import IpAddress, IpNetwork, Peer
from smtpmaild.server.connection import Connection
from smtpmaild.server.counts import WorkerCounts
from smtpmaild.server.handshakes import Handshakes
from smtpmaild.server.preface import Preface
from smtpmaild.server.sockets import KEEP_FILE
from smtpmaild.service import Service
from smtpmaild.tls.certificates import Certificates
from smtpmaild.tls.settings import ClientCertificates

if TYPE_CHECKING:
    from smtpmaild.server.recording import Recording


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds. greeting: for the first command.  command: for each further one.  data_block: for the next piece of
    a body.  session: for all of it, 0 for no limit.  proxy_header: for the PROXY header, where there is one.
    tls_handshake: until TLS stands, waiting for its turn included."""

    greeting: float = 300.0
    command: float = 300.0
    data_block: float = 180.0
    session: float = 0.0
    proxy_header: float = 5.0
    tls_handshake: float = 30.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Open connections in all, from one address and from one network; 0: no limit.

    name: of a listener with limits of its own, which counts addresses and networks by itself, "" for the others.
    here: how many of all connections may be at this listener; needs a name.
    """

    total: int = 0
    per_address: int = 0
    per_network: int = 0
    here: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class TlsOffer:
    """How a door encrypts. is_implicit: before the greeting, else after STARTTLS.  clients: whether their certificates
    are asked for."""

    certificates: Certificates
    clients: ClientCertificates = "none"
    is_implicit: bool = False

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake: the certificates as they are now."""
        return self.certificates.context(self.clients)


@dataclass(frozen=True, slots=True)
class Door:
    """A listener as its sessions meet it.

    service: for everybody.  xforward_networks, xclient_networks, etrn_networks: who is offered these commands as well.
    offering: the service with them, by their keywords; without an entry it is `service`.
    greeting_delay: seconds before the banner.  body_rate: the slowest a body may come, bytes a second, 0 for any.
    trusted_proxies: whose connections begin with a PROXY header, and nobody else's come in; None: no PROXY protocol.
    tls: None where there is no TLS.
    """

    service: Service
    xforward_networks: tuple[IpNetwork, ...] = ()
    xclient_networks: tuple[IpNetwork, ...] = ()
    etrn_networks: tuple[IpNetwork, ...] = ()
    offering: Mapping[frozenset[str], Service] = field(default_factory=dict)
    timeouts: Timeouts = Timeouts()
    limits: ConnectionLimits = ConnectionLimits()
    greeting_delay: float = 0.0
    body_rate: int = 0
    trusted_proxies: tuple[IpNetwork, ...] | None = None
    tls: TlsOffer | None = None

    @property
    def name(self) -> str:
        """The listener's name in the config."""
        return self.service.listener

    def service_for(self, peer: Peer) -> Service:
        """What this peer may use."""
        if not self.offering:
            return self.service
        keywords = set()
        if _is_in(peer.ip, self.xforward_networks):
            keywords.add("XFORWARD")
        if _is_in(peer.ip, self.xclient_networks):
            keywords.add("XCLIENT")
        if _is_in(peer.ip, self.etrn_networks):
            keywords.add("ETRN")
        return self.offering.get(frozenset(keywords), self.service)

    def trusts(self, proxy: Peer) -> bool:
        """May it tell us who its client is? Who can connect to a Unix socket has the permission of the file."""
        return proxy.ip is None or _is_in(proxy.ip, self.trusted_proxies or ())

    def has_room(self, counts: WorkerCounts, ip: IpAddress | None) -> bool:
        """Count a connection that has come in; False if it is one too many (it is counted all the same)."""
        limits = self.limits
        occupancy = counts.enter(ip, limits.name)
        return (
            (not limits.total or occupancy.total <= limits.total)
            and (not limits.per_address or occupancy.address <= limits.per_address)
            and (not limits.per_network or occupancy.network <= limits.per_network)
            and (not limits.here or occupancy.named <= limits.here)
        )


def _is_in(ip: IpAddress | None, networks: Sequence[IpNetwork]) -> bool:
    return ip is not None and any(ip in network for network in networks)


@dataclass(slots=True)
class Room:
    """How many connections this process can hold at all: descriptors are left for them, and for the stores' files.

    Without it accept() would fail at the limit of the process: uvloop then closes what comes without a reply, asyncio
    tries again every second, and meanwhile no message could be stored for want of a descriptor.
    """

    limit: int
    taken: int = 0

    @classmethod
    def of_this_process(cls) -> Room:
        """What the limit of open files leaves."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls(limit - min(_DESCRIPTORS_FOR_US, limit // 4))


@dataclass(frozen=True, slots=True)
class _Ear:
    """One socket that is listened to. duplicate: what the loop was given of it."""

    sock: socket.socket
    backlog: int
    duplicate: socket.socket
    server: asyncio.Server


class Listener:
    """The open connections of one listener and the sockets that bring more of them.

    recording: who has sessions written down that begin now; None: nobody.  on_empty: called when the last connection is
    gone.  handshakes: those of the whole worker.
    """

    def __init__(
        self,
        door: Door,
        counts: WorkerCounts,
        room: Room,
        loop: asyncio.AbstractEventLoop,
        on_empty: Callable[[], object],
        handshakes: Handshakes | None = None,
    ) -> None:
        self.door = door
        self.counts = counts
        self.room = room
        self.loop = loop
        self.connections: set[Connection | Preface] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        # One buffer for all connections: what is read is copied out before the loop turns to the next one.
        self.buffer = memoryview(bytearray(_READ_SIZE))
        self.encrypted = memoryview(bytearray(_READ_SIZE if door.tls else 0))
        self.handshakes = handshakes or Handshakes(loop)
        self._on_empty = on_empty
        self._ears: list[_Ear] = []
        self._is_draining = False
        self.recording: Recording | None = None

    async def open(self, sock: socket.socket, backlog: int) -> None:
        """Accept connections from a listening socket, TCP or Unix, until close(). The socket stays the caller's."""
        self._ears.append(await self._listen(sock, backlog))

    async def _listen(self, sock: socket.socket, backlog: int) -> _Ear:
        # The loop closes the socket it was given, when it is told to and when accept() fails in a way it does not
        # know; a duplicate leaves ours open.
        duplicate = sock.dup()
        if sock.family == socket.AF_UNIX:
            server = await self.loop.create_unix_server(self._accept, sock=duplicate, backlog=backlog, **KEEP_FILE)
        else:
            server = await self.loop.create_server(self._accept, sock=duplicate, backlog=backlog)
        return _Ear(sock, backlog, duplicate, server)

    def _accept(self) -> Connection | Preface:
        return self.connection() if self.door.trusted_proxies is None else Preface(self)

    def connection(self) -> Connection:
        """For a client that is about to come in."""
        return Connection(self) if self.recording is None else self.recording.connection(self)

    def close(self) -> None:
        """Accept no more; the connections that are there stay."""
        for ear in self._ears:
            ear.server.close()
        self._ears.clear()

    async def revive(self) -> int:
        """Listen again where the loop gave up; how many sockets that were.

        uvloop closes a server, without a word, when accept() fails for want of memory: a daemon would be deaf.
        """
        deaf = [index for index, ear in enumerate(self._ears) if ear.duplicate.fileno() < 0]
        for index in deaf:
            ear = self._ears[index]
            ear.server.close()
            self._ears[index] = await self._listen(ear.sock, ear.backlog)
        return len(deaf)

    def welcome(self, connection: Connection | Preface, ip: IpAddress | None) -> bool:
        """A connection has come in; False if it is one too many (it is there all the same, until forget())."""
        self.connections.add(connection)
        self.room.taken += 1
        if self._is_draining:  # it was on its way when we closed
            connection.drain()
        return self.door.has_room(self.counts, ip) and self.room.taken <= self.room.limit

    def exchange(self, before: IpAddress | None, ip: IpAddress | None) -> bool:
        """A connection stands for another client now; False if that is one too many (counted all the same)."""
        self.counts.leave(before, self.door.limits.name)
        return self.door.has_room(self.counts, ip)

    def forget(self, connection: Connection | Preface, ip: IpAddress | None) -> None:
        """The connection is gone."""
        self.connections.discard(connection)
        self.room.taken -= 1
        self.counts.leave(ip, self.door.limits.name)
        if not self.connections:
            self._on_empty()

    def sweep(self, now: float) -> None:
        """Close what is over its time. now: the loop's clock. Called about once a second: 15,000 idle sessions 2 ms."""
        for connection in [one for one in self.connections if one.is_overdue(now)]:
            connection.expire(now)

    def drain(self) -> None:
        """Let every session end at its next command."""
        self._is_draining = True
        for connection in [*self.connections]:
            connection.drain()

    def abort(self) -> None:
        """End every session now, except where a message is being stored: its client is told that first."""
        for connection in [*self.connections]:
            connection.abort()

    def kill(self) -> None:
        """Close every connection as it stands."""
        for connection in [*self.connections]:
            connection.kill()

    async def finish_tasks(self, seconds: float) -> None:
        """Let policies and callbacks that wait for something come to their end, or cancel them when the time is up."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=seconds)
            for task in late:
                task.cancel()


# Large enough that a 1 MiB message takes few turns of the loop, small enough to stay in the cache.
_READ_SIZE = 128 * 1024
# Two batches of stores with 256 files each, their directories, listening sockets, the log.
_DESCRIPTORS_FOR_US = 600
