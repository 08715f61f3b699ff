"""Storage that fails under a running daemon: full, read-only, or with system calls that return an error.

Clients hear 451 or 452 and may try again, nothing that was acknowledged is lost, nothing partial is seen, tmp/ is clean
at once, and when the fault is over the daemon goes on without a restart.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from real_daemon import (
    IS_WHOLE,
    MAIL,
    PATIENCE,
    SPOOL,
    Client,
    Load,
    RealDaemon,
    Shelves,
    message_of,
    numbers,
    scaled,
    send_one,
    until,
)

pytestmark = pytest.mark.soak
NeedsProgram = Callable[[str], str]
Mount = Callable[..., Path]
only_whole = pytest.mark.skipif(not IS_WHOLE, reason="left to `make soak`")


class Faulty:
    """System calls of a running process fail while this lasts: `fault` is an expression of strace's `inject`."""

    def __init__(self, strace: str, pid: int, fault: str) -> None:
        self._command = [strace, "-f", "-e", "signal=none", "-o", os.devnull, "-e", f"inject={fault}", "-p", str(pid)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        assert b"attached" in said, said
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._process is not None and self._process.stderr is not None
        self._process.terminate()  # strace lets go of the daemon, which runs on
        self._process.stderr.close()
        self._process.wait(PATIENCE)


FAULTS = [
    # what strace makes fail, the reply, the error in the log
    pytest.param("fsync:error=EIO", "451 4.3.0", "EIO", id="fsync", marks=only_whole),
    # The first of a thread's two is that of the file: then the message has its name when its directory fails.
    pytest.param("fsync:error=EIO:when=2+2", "451 4.3.0", "EIO", id="fsync-now-and-then"),
    pytest.param("syncfs:error=EIO", "451 4.3.0", "EIO", id="syncfs"),
    pytest.param("/^rename:error=EIO:when=1+3", "451 4.3.0", "EIO", id="rename"),
    pytest.param("/^rename:error=EDQUOT", "452 4.2.2", "EDQUOT", id="rename-quota", marks=only_whole),
    pytest.param("/^rename:error=ENOSPC:when=5", "452 4.3.1", "ENOSPC", id="rename-no-space", marks=only_whole),
    pytest.param("openat:error=ENFILE", "451 4.3.0", "ENFILE", id="open"),
    pytest.param("openat:error=EIO:when=3+4", "451 4.3.0", "EIO", id="open-now-and-then", marks=only_whole),
    pytest.param("fsync,syncfs,/^rename:error=EIO:when=1+2", "451 4.3.0", "EIO", id="many", marks=only_whole),
]


@pytest.mark.debian
@pytest.mark.parametrize(("fault", "reply", "error"), FAULTS)
def test_failing_system_calls(tmp_path: Path, needs_program: NeedsProgram, fault: str, reply: str, error: str) -> None:
    strace, shelves = needs_program("strace"), Shelves(tmp_path)
    with RealDaemon(tmp_path) as daemon:
        with Load(daemon, numbers()) as load:
            load.wait_for_accepted(10)
            with Faulty(strace, daemon.pid, fault):
                until(lambda: len(load.refused) >= scaled(5, 100), "refused messages")
            load.wait_for_accepted(10)
        assert {answer[:9] for answer in load.refused.values()} == {reply}
        # strace lets the kernel enter a call that does not exist and mends the result on the way out; where it lets go
        # of the daemon in between, ENOSYS stays.
        assert {fact["error"] for fact in daemon.named("store_failed")} - {"ENOSYS"} == {error}
        shelves.check(load.accepted, load.refused)
        assert shelves.leftovers() == []
        daemon.assert_no_mistakes()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """`mount("-t", "tmpfs", "none")`: a file system of our own, where we may have one."""
    path = tmp_path / "disk"

    def mounted(*arguments: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("only root mounts file systems")
        path.mkdir()
        done = subprocess.run(["mount", *arguments, str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mount: {done.stderr.strip()}")
        return path

    yield mounted
    if path.is_mount():
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def small_ext4(tmp_path: Path, needs_program: NeedsProgram) -> str:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run([needs_program("mkfs.ext4"), "-q", "-F", str(image)], check=True)
    return str(image)


def is_accepted(daemon: RealDaemon, to: str) -> bool:
    return send_one(daemon.address, message_of(0), to).startswith("250 ")


@pytest.mark.parametrize("kind", ["tmpfs", pytest.param("ext4", marks=only_whole)])
def test_full_disk(tmp_path: Path, mount: Mount, needs_program: NeedsProgram, kind: str) -> None:
    if kind == "tmpfs":
        disk = mount("-t", "tmpfs", "-o", "size=6m", "none")
    else:
        disk = mount("-o", "loop", small_ext4(tmp_path, needs_program))
    filler, shelves = disk / "filler", Shelves(disk)
    space = os.statvfs(disk)
    filler.write_bytes(b"x" * (space.f_bavail * space.f_frsize - (2 << 20)))
    with RealDaemon(tmp_path, stores=disk) as daemon:
        with Load(daemon, numbers(), clients=3) as load:
            until(lambda: len(load.refused) >= scaled(5, 500), "a full disk")
        filler.unlink()
        for to in (f"x@{MAIL}", f"x@{SPOOL}"):  # a store that was seen full is given a moment
            until(partial(is_accepted, daemon, to), "space that is seen again")
        assert {answer[:9] for answer in load.refused.values()} == {"452 4.3.1"}
        assert {fact["error"] for fact in daemon.named("store_failed")} == {"ENOSPC"}
        shelves.check(load.accepted, load.refused)
        assert shelves.leftovers() == []
        daemon.assert_no_mistakes()


@only_whole
def test_no_inodes_left(tmp_path: Path, mount: Mount) -> None:
    disk = mount("-t", "tmpfs", "-o", "nr_inodes=10", "none")
    with RealDaemon(tmp_path, stores=disk) as daemon:
        replies = [send_one(daemon.address, to=f"x@{SPOOL}") for _ in range(5)]
        assert replies[0].startswith("250 ")
        assert replies[-1].startswith("452 4.3.1 ")
        for path in (disk / "spool").glob("*.*"):
            path.unlink()
        until(partial(is_accepted, daemon, f"x@{SPOOL}"), "space that is seen again")
        daemon.assert_no_mistakes()


def test_read_only_remount(tmp_path: Path, mount: Mount) -> None:
    disk = mount("-t", "tmpfs", "-o", "size=20m", "none")
    with RealDaemon(tmp_path, stores=disk) as daemon:
        assert send_one(daemon.address).startswith("250 ")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for to in (f"x@{MAIL}", f"new@{MAIL}", f"x@{SPOOL}"):
            assert send_one(daemon.address, to=to).startswith("451 4.3.0 ")
        assert daemon.wait_for("store_failed", 3)["error"] == "EROFS"
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        for to in (f"x@{MAIL}", f"new@{MAIL}", f"x@{SPOOL}"):
            assert send_one(daemon.address, to=to).startswith("250 ")
        assert len([*disk.glob("mail/*/new/*")]) == 3
        assert len([*disk.glob("spool/*.json")]) == 1
        assert Shelves(disk).leftovers() == []
        daemon.assert_no_mistakes()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=only_whole)])
def test_no_descriptors_left(tmp_path: Path, workers: int) -> None:
    shelves = Shelves(tmp_path)
    with RealDaemon(tmp_path, workers=workers) as daemon:
        with Load(daemon, numbers()) as load:
            load.wait_for_accepted(10)
            for pid in daemon.pids():
                taken = len(os.listdir(f"/proc/{pid}/fd"))
                _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (taken + 3, hard))
            with ExitStack() as stack:
                for _ in range(20):
                    stack.enter_context(socket.create_connection(daemon.address, PATIENCE))
                daemon.wait_for("store_failed")
            load.wait_for_accepted(10)  # as soon as the others have gone
        assert {fact["error"] for fact in daemon.named("store_failed")} == {"EMFILE"}
        shelves.check(load.accepted, load.refused)
        assert shelves.leftovers() == []


@pytest.mark.debian
def test_slow_disk(tmp_path: Path, needs_program: NeedsProgram) -> None:
    strace, shelves = needs_program("strace"), Shelves(tmp_path)
    with RealDaemon(tmp_path) as daemon, Load(daemon, numbers(), clients=10) as load:
        load.wait_for_accepted(10)
        with Faulty(strace, daemon.pid, "fsync,syncfs:delay_enter=100000"):
            load.wait_for_accepted(scaled(20, 100))
            began = time.monotonic()
            with Client(daemon.address) as client:  # the loop does not wait with its threads
                client.greet()
            assert time.monotonic() - began < 0.5
            daemon.kill()
    assert not load.refused
    shelves.check(load.accepted)
