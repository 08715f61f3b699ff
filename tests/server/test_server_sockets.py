"""Listening sockets: what is bound, how it is kept over a reload, and what the operator reads when it cannot be."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpmaild.server.sockets import (
    Address,
    InheritedAddress,
    InheritedSockets,
    SocketError,
    SocketTable,
    TcpAddress,
    UnixAddress,
    name_of,
)

NOBODY = InheritedSockets({})
ANY_PORT = TcpAddress("127.0.0.1", 0)


@pytest.fixture
def empty() -> Iterator[SocketTable]:
    """A table without sockets, and the end of all that come from it."""
    yield SocketTable(NOBODY)


def table_of(*addresses: Address) -> SocketTable:
    return SocketTable(NOBODY).rebind([("mx", address, 5) for address in addresses])


def connects(sock: socket.socket) -> bool:
    with socket.socket(sock.family) as client:
        try:
            client.connect(sock.getsockname())
        except OSError:
            return False
        return True


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (TcpAddress("127.0.0.1", 25), "127.0.0.1:25"),
        (TcpAddress("::1", 25), "[::1]:25"),
        (UnixAddress("/run/x.sock"), "/run/x.sock"),
        (InheritedAddress("smtp"), "systemd:smtp"),
    ],
)
def test_address_reads_as_in_the_config(address: Address, text: str) -> None:
    assert str(address) == text


def test_port_of_the_kernel_is_known() -> None:
    table = table_of(ANY_PORT)
    (sock,) = table.get(ANY_PORT)
    host, _, port = name_of(sock).rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert connects(sock)
    assert not os.get_inheritable(sock.fileno())
    table.close_all_but()
    assert sock.fileno() == -1


def test_both_families_share_a_port() -> None:
    table = table_of(TcpAddress("0.0.0.0", 0))
    port = table.get(TcpAddress("0.0.0.0", 0))[0].getsockname()[1]
    both = table.rebind([("mx", TcpAddress("0.0.0.0", 0), 5), ("mx", TcpAddress("::", port), 5)])
    (v6,) = both.get(TcpAddress("::", port))
    assert v6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    assert name_of(v6) == f"[::]:{port}"
    both.close_all_but()


def test_name_may_mean_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),  # the same once more, as /etc/hosts can do it
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    table = table_of(TcpAddress("localhost", 0))
    assert [sock.family for sock in table.get(TcpAddress("localhost", 0))] == [socket.AF_INET6, socket.AF_INET]
    table.close_all_but()


def test_port_that_is_taken_is_said_and_nothing_stays_bound() -> None:
    table = table_of(ANY_PORT)
    (taken,) = table.get(ANY_PORT)
    other = TcpAddress("127.0.0.2", 0)
    busy = TcpAddress("127.0.0.1", taken.getsockname()[1])
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SocketError) as caught:
        table.rebind([("mx", ANY_PORT, 5), ("mx", other, 5), ("submission", busy, 5)])
    cause = "Address already in use; `ss -ltnp` shows by whom"
    assert str(caught.value) == f"listener submission: cannot listen on {busy}: {cause}"
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert connects(taken)
    table.close_all_but()


def test_workers_have_a_socket_each() -> None:
    table = SocketTable(NOBODY).rebind([("mx", ANY_PORT, 50)], copies=3)
    sockets = table.get(ANY_PORT)
    assert len({sock.getsockname() for sock in sockets}) == 1
    clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(60)]
    accepted = [accept_all(sock) for sock in sockets]
    assert sum(accepted) == 60
    assert min(accepted) > 0
    # A second daemon is refused all the same.
    with pytest.raises(SocketError, match="Address already in use"):
        SocketTable(NOBODY).rebind([("mx", TcpAddress(*sockets[0].getsockname()), 5)], copies=3)
    for client in clients:
        client.close()
    table.close_all_but()


def accept_all(sock: socket.socket) -> int:
    number = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return number
        number += 1


@pytest.mark.parametrize(
    ("copies", "workers", "shares"),
    [
        (2, 2, [[0], [1]]),
        (2, 3, [[0], [1], [0]]),  # after a reload with more workers
        (3, 2, [[0, 2], [1]]),  # or fewer
        (1, 2, [[0], [0]]),  # one worker before
    ],
)
def test_share_of_a_worker(copies: int, workers: int, shares: list[list[int]]) -> None:
    for worker, share in enumerate(shares):
        table = SocketTable(NOBODY).rebind([("mx", ANY_PORT, 5)], copies)
        sockets = table.get(ANY_PORT)
        table.become_share(worker, workers)
        assert table.get(ANY_PORT) == tuple(sockets[index] for index in share)
        assert [sock.fileno() >= 0 for sock in sockets] == [index in share for index in range(copies)]
        table.close_all_but()


def test_an_address_of_another_machine_is_said() -> None:
    with pytest.raises(SocketError, match=r"192\.0\.2\.1:25: Cannot assign .*: this machine has no such address"):
        table_of(TcpAddress("192.0.2.1", 25))


def test_unknown_host_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(SocketError, match=r"cannot listen on no\.example:25: Name or service not known"):
        table_of(TcpAddress("no.example", 25))


def test_low_port_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(SocketError, match=r"127\.0\.0\.1:25: ports below 1024 need root, CAP_NET_BIND_SERVICE or a so"):
        table_of(TcpAddress("127.0.0.1", 25))
    with pytest.raises(SocketError, match=r"127\.0\.0\.1:2525: Permission denied"):
        table_of(TcpAddress("127.0.0.1", 2525))


def test_address_that_stays_keeps_its_socket() -> None:
    old = table_of(ANY_PORT, TcpAddress("127.0.0.2", 0))
    (kept,), (over,) = old.get(ANY_PORT), old.get(TcpAddress("127.0.0.2", 0))
    new = old.rebind([("renamed", ANY_PORT, 5), ("mx", TcpAddress("127.0.0.3", 0), 5)])
    assert new.get(ANY_PORT) == (kept,)
    old.close_all_but(new)
    assert connects(kept)
    assert over.fileno() == -1
    new.close_all_but()


def test_unix_socket_has_its_mode_and_goes_with_its_table(tmp_path: Path) -> None:
    user, group = pwd.getpwuid(os.getuid()).pw_name, str(os.getgid())  # by name and by number
    address = UnixAddress(str(tmp_path / "smtp.sock"), mode=0o620, owner=user, group=group)
    table = table_of(address)
    (sock,) = table.get(address)
    assert stat.S_IMODE(os.stat(address.path).st_mode) == 0o620
    assert connects(sock)
    assert name_of(sock) == address.path
    kept = table.rebind([("mx", UnixAddress(address.path), 5)])
    table.close_all_but(kept)
    assert connects(sock)
    kept.close_all_but()
    assert not os.path.exists(address.path)


def test_unix_socket_that_nobody_hears_is_replaced(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "smtp.sock"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(address.path)
        dead.listen()
    table = table_of(address)
    assert connects(table.get(address)[0])
    table.close_all_but()


@pytest.mark.parametrize("backlog", [5, 0], ids=["listening", "full"])
def test_unix_socket_of_another_daemon_is_left_alone(tmp_path: Path, backlog: int) -> None:
    address = UnixAddress(str(tmp_path / "smtp.sock"))
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(address.path)
        other.listen(backlog)
        if not backlog:
            waiting = [fill(address.path)]
        with pytest.raises(SocketError, match="another process listens there"):
            table_of(address)
        assert not backlog or connects(other)
    for client in waiting:
        client.close()


def fill(path: str) -> socket.socket:
    """A client that takes the one place in the backlog."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    return client


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("precious")
    with pytest.raises(SocketError, match="there is something that is not a socket"):
        table_of(UnixAddress(str(tmp_path / "mail")))
    assert (tmp_path / "mail").read_text() == "precious"


def test_directory_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="No such file or directory"):
        table_of(UnixAddress(str(tmp_path / "no" / "smtp.sock")))


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ({"owner": "no-such-user"}, "there is no user 'no-such-user'"),
        ({"group": "no-such-group"}, "there is no group 'no-such-group'"),
    ],
)
def test_unknown_owner_leaves_no_socket(tmp_path: Path, address: dict[str, str], cause: str) -> None:
    path = tmp_path / "smtp.sock"
    with pytest.raises(SocketError, match=cause):
        table_of(UnixAddress(str(path), **address))  # type: ignore[arg-type]
    assert not path.exists()


def test_file_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "smtp.sock"))
    table = table_of(address)
    os.unlink(address.path)
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(address.path)
        table.close_all_but()
        assert os.path.exists(address.path)


def test_file_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "smtp.sock"))
    table = table_of(address)
    os.unlink(address.path)
    table.close_all_but()


# Inherited sockets: descriptors from 3 on, so each case needs a process of its own.

_TAKE = """
import os, socket, sys
from smtpmaild.server.sockets import *
def run(environment):
    environment["LISTEN_PID"] = environment.get("LISTEN_PID") or str(os.getpid())
    found = InheritedSockets.from_environment(environment)
    assert not any(name.startswith("LISTEN") for name in environment)
    table = SocketTable(found).rebind([("mx", InheritedAddress(name), 5) for name in sys.argv[1:]])
    for address in table:
        print(address, [f"{s.fileno()}:{name_of(s)}:{os.get_inheritable(s.fileno())}" for s in table.get(address)])
    table.close_all_but()
    print([s.fileno() for address in table for s in table.get(address)])
try:
    run(os.environ)
except SocketError as error:
    print(error)
"""


def inherit(*names: str, sockets: list[socket.socket], **environment: str) -> list[str]:
    """What a process that was given these sockets has to say of them."""

    def hand_over() -> None:
        # The parent's numbers may be in the way: move everything up first.
        high = [os.dup2(sock.fileno(), 100 + index) for index, sock in enumerate(sockets)]
        for index, descriptor in enumerate(high):
            os.dup2(descriptor, 3 + index)

    done = subprocess.run(
        [sys.executable, "-c", _TAKE, *names],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=hand_over,
        close_fds=False,
        env={**os.environ, "LISTEN_FDS": str(len(sockets)), **environment},
    )
    return done.stdout.splitlines()


def test_inherited_sockets_come_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as v4, socket.create_server(("127.0.0.2", 0)) as other:
        lines = inherit("smtp", "lmtp", sockets=[v4, other, other], LISTEN_FDNAMES="smtp:lmtp:smtp")
        one, two = name_of(v4), name_of(other)
    assert lines == [
        f"systemd:smtp ['3:{one}:False', '5:{two}:False']",
        f"systemd:lmtp ['4:{two}:False']",
        "[3, 5, 4]",  # they are not ours to close
    ]


def test_inherited_socket_without_a_name_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert inherit("unknown", sockets=[sock])[0].startswith("systemd:unknown ['3:127.0.0.1:")


def test_inherited_socket_of_another_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        lines = inherit("lmtp", sockets=[sock], LISTEN_FDNAMES="smtp")
    assert lines == [
        "listener mx: cannot listen on systemd:lmtp: no socket of this name was handed over (there is: smtp)"
    ]


def test_inherited_socket_may_not_have_the_port_of_another_protocol(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "sock"))
        inherited = InheritedSockets({"tcp": (tcp,), "unix": (unix,)})
        port = tcp.getsockname()[1]
        table = SocketTable(inherited).rebind([("mx", InheritedAddress("tcp"), 5)])
        for before in (SocketTable(inherited), table):  # at the start, and after a reload that changed the protocol
            with pytest.raises(SocketError, match=rf"cannot listen on systemd:tcp: port {port} is not for"):
                before.rebind([("store", InheritedAddress("tcp", port), 5)])
        table = table.rebind([("store", InheritedAddress("tcp", 25), 5), ("store", InheritedAddress("unix", 25), 5)])
        assert [*table] == [InheritedAddress("tcp"), InheritedAddress("unix")]


def test_sockets_for_another_process_are_not_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        lines = inherit("smtp", sockets=[sock], LISTEN_FDNAMES="smtp", LISTEN_PID="1")
    assert lines[0].endswith("no socket of this name was handed over (there is: none)")


def test_inherited_descriptor_must_be_a_listening_socket() -> None:
    with socket.socket() as deaf:
        lines = inherit(sockets=[deaf], LISTEN_FDNAMES="smtp")
    assert lines == ["listener systemd:smtp: cannot listen on descriptor 3: it is not a listening stream socket"]
    with open(os.devnull) as file:
        lines = inherit(sockets=[file], LISTEN_FDNAMES="smtp")  # type: ignore[list-item]
    assert lines == ["listener systemd:smtp: cannot listen on descriptor 3: Socket operation on non-socket"]


def test_nothing_inherited() -> None:
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "none", "PATH": "/bin"}
    InheritedSockets.from_environment(environment)
    assert environment == {"PATH": "/bin"}
