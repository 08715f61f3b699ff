"""Storage that fails under the queue of a running daemon: syncs and writes that return an error, a full disk, one that
has become read-only.

Clients hear 451 or 452 and may try again; what was acknowledged arrives at the next hop when the fault is over.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from real_daemon import IS_WHOLE, Client, is_alive, until
from test_soak_faults import Faulty, Mount, NeedsProgram, mount, small_ext4
from test_soak_relaying import FlakyHop, RelayDaemon, _is_empty, message_of

__all__ = ["mount"]  # the fixture
pytestmark = [pytest.mark.soak, pytest.mark.debian]
only_whole = pytest.mark.skipif(not IS_WHOLE, reason="left to `make soak`")
_PATIENCE = 60.0


def send(daemon: RelayDaemon, number: int) -> str:
    with Client(daemon.address) as client:
        client.greet()
        return client.send_message(message_of(number), ["bob@far.example"])


class Ledger:
    """Numbered messages, one after the other. accepted: those with a 250."""

    def __init__(self, daemon: RelayDaemon) -> None:
        self.accepted: set[int] = set()
        self._daemon = daemon
        self._next = 0

    def send(self, count: int = 1) -> set[str]:
        """The beginnings of the replies."""
        replies = set()
        for _ in range(count):
            number, self._next = self._next, self._next + 1
            reply = send(self._daemon, number)
            replies.add(reply[:9])
            if reply.startswith("250 "):
                self.accepted.add(number)
        return replies

    def is_taken(self) -> bool:
        return self.send() == {"250 2.0.0"}


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def all_arrive(root: Path, hop: FlakyHop, ledger: Ledger) -> None:
    until(lambda: ledger.accepted <= set(hop.taken) and _is_empty(root), "what was acknowledged", _PATIENCE)


FAULTS = [
    pytest.param("fsync,fdatasync:error=EIO", "451 4.3.0", id="sync"),
    pytest.param("pwrite64:error=EIO", "451 4.3.0", id="write", marks=only_whole),
    pytest.param("pwrite64:error=EROFS", "451 4.3.0", id="read-only", marks=only_whole),
    pytest.param("pwrite64:error=ENOSPC", "452 4.3.1", id="no-space", marks=only_whole),
]


@pytest.mark.parametrize(("fault", "reply"), FAULTS)
def test_failing_system_calls_of_the_queue(tmp_path: Path, needs_program: NeedsProgram, fault: str, reply: str) -> None:
    strace = needs_program("strace")
    with FlakyHop() as hop, RelayDaemon(tmp_path, hop.port, 1) as daemon:
        ledger = Ledger(daemon)
        assert ledger.send(5) == {"250 2.0.0"}
        with Faulty(strace, daemon.pid, fault):
            assert ledger.send(5) == {reply}
        until(ledger.is_taken, "a queue that takes mail again", _PATIENCE)
        all_arrive(tmp_path, hop, ledger)
        assert daemon.named("queue_failed")
        assert is_alive(daemon.pid)
        daemon.assert_no_mistakes()


def test_full_disk_of_the_queue(tmp_path: Path, mount: Mount) -> None:
    disk = mount("-t", "tmpfs", "-o", "size=4m", "none")
    with FlakyHop() as hop:
        daemon = RelayDaemon(tmp_path, hop.port, 1, disk=disk, min_free="0")
        with daemon:
            ledger = Ledger(daemon)
            assert ledger.send() == {"250 2.0.0"}
            fill(disk)
            until(lambda: "452 4.3.1" in ledger.send(), "a full disk")
            (disk / "filler").unlink()
            until(ledger.is_taken, "a queue that takes mail again", _PATIENCE)
            all_arrive(disk, hop, ledger)
            daemon.assert_no_mistakes()


def test_disk_of_the_queue_that_has_become_read_only(
    tmp_path: Path, mount: Mount, needs_program: Callable[[str], str]
) -> None:
    image = small_ext4(tmp_path, needs_program)
    disk = mount("-o", "loop", image)
    with FlakyHop() as hop:
        # Nobody is at the next hop while mail is taken in.
        daemon = RelayDaemon(tmp_path, 9, 1, disk=disk, min_free="0")
        with daemon:
            ledger = Ledger(daemon)
            assert ledger.send(5) == {"250 2.0.0"}
            # With files open no file system can be remounted read-only; it becomes so by itself when its journal fails.
            subprocess.run(["mount", "-o", "remount,abort", str(disk)], check=True, capture_output=True)
            assert {reply[:3] for reply in ledger.send(3)} <= {"451", "452"}
            assert is_alive(daemon.pid)
        subprocess.run(["umount", str(disk)], check=True)
        subprocess.run([needs_program("fsck.ext4"), "-p", image], check=False, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, str(disk)], check=True)
        with RelayDaemon(tmp_path, hop.port, 1, disk=disk, min_free="0"):
            all_arrive(disk, hop, ledger)
