"""Listening sockets: TCP, Unix, and those that systemd opened for us; bound, kept over a reload, closed.

What listens where is a `SocketTable`: address -> its sockets. A reload makes a new table from the old one; an address
that is in both keeps its sockets, so that no connection is refused meanwhile. Every failure is a `SocketError` that
names the listener, the address and the cause, and leaves nothing bound behind.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from smtpmaild.server.privileges import number_of

#: For create_unix_server() and start_unix_server(). From Python 3.13 on a loop removes the file of a Unix socket with
#: its server. Other processes still listen there, and a `SocketTable` removes it when nobody does.
KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """host: an IP address, or a name that may mean several.  port: 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """path: of the socket file.  mode, owner, group: of that file when it is made; "" for ours.  makes_folder: where it
    is missing."""

    path: str
    mode: int = field(default=0o660, compare=False)
    owner: str = field(default="", compare=False)
    group: str = field(default="", compare=False)
    makes_folder: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class InheritedAddress:
    """name: FileDescriptorName= of the systemd socket unit.  forbidden_port: one that it must not have, 0 for none."""

    name: str
    forbidden_port: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"systemd:{self.name}"


Address = TcpAddress | UnixAddress | InheritedAddress


class SocketError(Exception):
    """A listener cannot listen: the operator reads its text."""

    def __init__(self, listener: str, address: Address | str, cause: str) -> None:
        super().__init__(f"listener {listener}: cannot listen on {address}: {cause}")


class InheritedSockets:
    """What came with LISTEN_FDS (sd_listen_fds(3)): name -> sockets. One name may stand for several sockets."""

    def __init__(self, by_name: Mapping[str, tuple[socket.socket, ...]]) -> None:
        self._by_name = by_name

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> InheritedSockets:
        """Take the sockets and the variables: what we start must not think they were meant for it.

        Raises SocketError for a descriptor that is no listening stream socket.
        """
        pid = environment.pop("LISTEN_PID", "")
        count = environment.pop("LISTEN_FDS", "")
        names = environment.pop("LISTEN_FDNAMES", "").split(":")
        if pid != str(os.getpid()) or not (count.isascii() and count.isdecimal()):
            return cls({})
        by_name: dict[str, tuple[socket.socket, ...]] = {}
        for index in range(int(count)):
            # systemd writes names for all or for none; "unknown" is its own word for a socket without one.
            name = names[index] if index < len(names) and names[index] else "unknown"
            by_name[name] = (*by_name.get(name, ()), _inherited(_FIRST_INHERITED + index, name))
        return cls(by_name)

    def get(self, name: str) -> tuple[socket.socket, ...]:
        """The sockets of this name; raises LookupError."""
        if name not in self._by_name:
            known = ", ".join(self._by_name) or "none"
            raise LookupError(f"no socket of this name was handed over (there is: {known})")
        return self._by_name[name]


def _inherited(descriptor: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise SocketError(f"systemd:{name}", f"descriptor {descriptor}", _cause(error)) from error
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise SocketError(f"systemd:{name}", f"descriptor {descriptor}", "it is not a listening stream socket")
    sock.setblocking(False)
    return sock


#: Sockets bound to the very same address: the kernel spreads the connections over them.
_Group = tuple[socket.socket, ...]


class SocketTable:
    """address -> its listening sockets. The sockets are ours; whoever accepts from them gets a duplicate.

    With several workers a TCP address has a socket for each. If all accepted from one, a worker that is awake anyway
    would be faster than one that sleeps, time and again: of 20 clients that come together one worker was seen to take
    19. The supervisor holds all of them, so what waits in the socket of a worker that died waits for its successor.
    """

    def __init__(self, inherited: InheritedSockets) -> None:
        self._inherited = inherited
        self._sockets: dict[Address, tuple[_Group, ...]] = {}
        self._files: dict[Address, tuple[int, int]] = {}  # Unix sockets: device and inode of their file

    def get(self, address: Address) -> tuple[socket.socket, ...]:
        """The sockets of an address in the table."""
        return tuple(sock for group in self._sockets[address] for sock in group)

    def __iter__(self) -> Iterator[Address]:
        return iter(self._sockets)

    def rebind(self, wanted: Iterable[tuple[str, Address, int]], copies: int = 1) -> SocketTable:
        """A table with exactly these (listener, address, backlog): what is here stays open, the rest is bound anew.

        copies: sockets for each TCP address that is bound.
        This table is not changed: when the new one is in use, `close_all_but` ends what is over. Raises SocketError;
        then nothing new is bound.
        """
        table = SocketTable(self._inherited)
        try:
            for listener, address, backlog in wanted:
                if address in self._sockets:
                    table._keep(self, address)
                else:
                    table._open(listener, address, backlog, copies)
                if isinstance(address, InheritedAddress) and address.forbidden_port:
                    table._refuse_port(listener, address)
        except SocketError:
            table.close_all_but(self)
            raise
        return table

    def _keep(self, other: SocketTable, address: Address) -> None:
        self._sockets[address] = other._sockets[address]
        if address in other._files:
            self._files[address] = other._files[address]

    def _open(self, listener: str, address: Address, backlog: int, copies: int) -> None:
        try:
            if isinstance(address, InheritedAddress):
                self._sockets[address] = tuple((sock,) for sock in self._inherited.get(address.name))
            elif isinstance(address, UnixAddress):
                self._sockets[address] = ((_bind_unix(address, backlog),),)
                self._files[address] = _identity(address.path)
            else:
                self._sockets[address] = _bind_tcp(address, backlog, copies)
        except OSError as error:
            raise SocketError(listener, address, _cause(error, address)) from error
        except LookupError as error:
            raise SocketError(listener, address, str(error.args[0])) from error

    def _refuse_port(self, listener: str, address: InheritedAddress) -> None:
        for sock in self.get(address):
            if sock.family != socket.AF_UNIX and sock.getsockname()[1] == address.forbidden_port:
                raise SocketError(listener, address, f"port {address.forbidden_port} is not for its protocol")

    def __contains__(self, address: object) -> bool:
        return address in self._sockets

    def close_all_but(self, kept: Container[Address] = ()) -> None:
        """Close every socket whose address is not among these, and remove the files of Unix sockets.

        Inherited sockets stay open: connections wait in them for the next one who serves.
        """
        for address in self._sockets:
            if address in kept or isinstance(address, InheritedAddress):
                continue
            identity = self._files.pop(address, None)
            if isinstance(address, UnixAddress) and identity is not None:
                _remove_file(address.path, identity)
            for sock in self.get(address):
                sock.close()

    def leave_to_others(self, addresses: Iterable[Address]) -> None:
        """In a child after the fork: close what other processes accept from; the files are not ours."""
        for address in addresses:
            self._files.pop(address, None)
            for sock in self.get(address):
                sock.close()
            del self._sockets[address]

    def become_share(self, worker: int, workers: int) -> None:
        """In a worker after the fork: close what other workers accept from; Unix sockets' files are not ours.

        worker: its number, from 0. A reload may have changed how many there are: every socket has a worker, and every
        worker a socket.
        """
        self._files.clear()
        for address, groups in self._sockets.items():
            self._sockets[address] = tuple(_share(group, worker, workers) for group in groups)


def _share(group: _Group, worker: int, workers: int) -> _Group:
    if len(group) < workers:
        mine: _Group = (group[worker % len(group)],)
    else:
        mine = group[worker::workers]
    for sock in group:
        if sock not in mine:
            sock.close()
    return mine


def name_of(sock: socket.socket) -> str:
    """Where a socket listens, port chosen, as people write it."""
    name = sock.getsockname()
    return str(TcpAddress(name[0], name[1])) if isinstance(name, tuple) else str(name) or "(unnamed)"


def _bind_tcp(address: TcpAddress, backlog: int, copies: int) -> tuple[_Group, ...]:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    names = dict.fromkeys((family, name) for family, _, _, _, name in found)
    sockets: list[socket.socket] = []
    try:
        groups = [_bind_group(family, name, copies, sockets) for family, name in names]
        for sock in sockets:
            sock.listen(backlog)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return tuple(groups)


def _bind_group(family: int, name: Any, copies: int, sockets: list[socket.socket]) -> _Group:
    group: list[socket.socket] = []
    for _ in range(copies):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sockets.append(sock)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it. Replies are written whole; asyncio, unlike uvloop, would let Nagle hold them back.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            # [::]:25 and 0.0.0.0:25 are two listeners, and an IPv4 peer is never seen as ::ffff:192.0.2.1.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # The first is bound without SO_REUSEPORT: a daemon that is there already is an error, not a partner.
        if group:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(group[0].getsockname() if group else name)
        if copies > 1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        group.append(sock)
    return tuple(group)


def _bind_unix(address: UnixAddress, backlog: int) -> socket.socket:
    if address.makes_folder:
        mask = os.umask(0o022)  # who may use the socket must get to it, whatever our umask is
        try:
            os.makedirs(os.path.dirname(address.path), exist_ok=True)
        finally:
            os.umask(mask)
    _remove_stale(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        mask = os.umask(0o177)  # nobody else may connect before mode and owner are as they shall be
        try:
            sock.bind(address.path)
        finally:
            os.umask(mask)
        try:
            _give_to(address)
        except OSError:
            os.unlink(address.path)
            raise
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _give_to(address: UnixAddress) -> None:
    if address.owner or address.group:
        owner = _number_of(address.owner, "user", lambda name: pwd.getpwnam(name).pw_uid)
        group = _number_of(address.group, "group", lambda name: grp.getgrnam(name).gr_gid)
        os.chown(address.path, owner, group)
    os.chmod(address.path, address.mode)


def _number_of(name: str, kind: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1
    number = number_of(name)
    try:
        return look_up(name) if number is None else number
    except KeyError:
        raise OSError(errno.EINVAL, f"there is no {kind} {name!r}") from None


def _remove_stale(path: str) -> None:
    """Remove the file of a socket that nobody listens to any more."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is something that is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
    raise OSError(errno.EADDRINUSE, "another process listens there")


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove_file(path: str, identity: tuple[int, int]) -> None:
    """Remove the file of our socket, unless another socket has taken its place."""
    try:
        if _identity(path) == identity:
            os.unlink(path)
    except OSError:
        pass  # gone, or in a directory that only root may change: the next start finds it stale


#: What helps with a socket that cannot be had, behind what the system says.
_HINTS = {
    errno.EADDRINUSE: "; `ss -ltnp` shows by whom",
    errno.EADDRNOTAVAIL: ": this machine has no such address",
}


def _cause(error: OSError, address: Address | None = None) -> str:
    if error.errno == errno.EACCES and isinstance(address, TcpAddress) and address.port < 1024:
        return "ports below 1024 need root, CAP_NET_BIND_SERVICE or a socket from systemd"
    return (error.strerror or str(error)) + _HINTS.get(error.errno or 0, "")


#: SD_LISTEN_FDS_START of sd_listen_fds(3).
_FIRST_INHERITED = 3
