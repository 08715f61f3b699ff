"""What systemd hears of us."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpmaild.server.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's socket, and its name as it stands in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@smtpmaild-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        sock.settimeout(1.0)
        yield sock, name


def test_states(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    environment = {"NOTIFY_SOCKET": name, "PATH": "/bin"}
    notifier = Notifier.from_environment(environment)
    assert environment == {"PATH": "/bin"}
    notifier.ready("2 workers")
    assert sock.recv(1000) == b"READY=1\nSTATUS=2 workers"
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    state, microseconds, _ = sock.recv(1000).decode().split("\n")
    assert state == "RELOADING=1"
    assert before <= int(microseconds.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.stopping("draining")
    assert sock.recv(1000) == b"STOPPING=1\nSTATUS=draining"
    notifier.status("1 worker")
    assert sock.recv(1000) == b"STATUS=1 worker"


def test_ping_comes_twice_in_its_time(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    notifier = Notifier.from_environment(
        {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}
    )
    for now in range(100, 121):
        notifier.ping(float(now))
    sock.setblocking(False)
    pings = []
    while True:
        try:
            pings.append(sock.recv(1000))
        except BlockingIOError:
            break
    assert pings == [b"WATCHDOG=1"] * 5  # at 100, 105, 110, 115 and 120


@pytest.mark.parametrize(
    ("environment", "watchdog"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, 0.0),  # for somebody else
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_watchdog(environment: dict[str, str], watchdog: float) -> None:
    assert Notifier.from_environment(environment).watchdog == watchdog
    assert not environment


def test_nobody_listens(tmp_path: Path) -> None:
    Notifier().ready("x")
    Notifier().ping(1.0)
    Notifier(str(tmp_path / "gone")).ready("x")
