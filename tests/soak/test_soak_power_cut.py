"""Power that fails at random moments under load: what was acknowledged is on the disk, once and whole, and nothing that
is visible is partial.

A kill leaves the page cache; a power cut takes it along. The daemon works on an ext4 whose image is a file of a btrfs,
where a file is copied in one moment (FICLONE): what ext4 had written by then is in the copy, and nothing else. Each
copy is mounted afterwards, as by a machine that has its power back: the journal is replayed, and the stores are looked
into. Without any one of the syncs these tests fail.
"""

from __future__ import annotations

import fcntl
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from real_daemon import Load, RealDaemon, Shelves, numbers, scaled, until
from receiving import RecordingLog
from test_soak_faults import NeedsProgram
from test_soak_queue_faults import Ledger
from test_soak_relaying import RelayDaemon, message_of

from smtpmaild.queue import Query
from smtpmaild.queue.sqlite import SqliteQueue

pytestmark = [pytest.mark.soak, pytest.mark.debian]
CUTS = scaled(3, 60)
#: ioctl_ficlone(2)
FICLONE = 0x40049409


class Disk:
    """path: where it is mounted."""

    def __init__(self, root: Path, make_outer: str, make_inner: str, stack: ExitStack) -> None:
        self.path = root / "disk"
        self._outer, self._after = root / "outer", root / "after"
        self._cuts = 0
        self._after.mkdir()
        stack.enter_context(_mounted(_image(root / "outer.img", 2048, make_outer), self._outer))
        self._inner = _image(self._outer / "image", 96, make_inner, "-F")
        stack.enter_context(_mounted(self._inner, self.path))

    def cut_power(self) -> Path:
        """The image as it is on the disk now."""
        self._cuts += 1
        cut = self._outer / f"cut-{self._cuts}"
        with self._inner.open("rb") as source, cut.open("wb") as copy:
            fcntl.ioctl(copy, FICLONE, source.fileno())
        return cut

    @contextmanager
    def restored(self, cut: Path) -> Iterator[Path]:
        """Mounted again, its journal replayed."""
        with _mounted(cut, self._after):
            yield self._after


def _image(path: Path, megabytes: int, *make: str) -> Path:
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run([*make, "-q", str(path)], check=True)
    return path


@contextmanager
def _mounted(image: Path, path: Path) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        until(lambda: subprocess.run(["umount", str(path)], capture_output=True, check=False).returncode == 0, "umount")


@pytest.fixture
def disk(tmp_path: Path, needs_program: NeedsProgram) -> Iterator[Disk]:
    outer, inner = needs_program("mkfs.btrfs"), needs_program("mkfs.ext4")
    with ExitStack() as stack:
        yield Disk(tmp_path, outer, inner, stack)


@pytest.mark.parametrize("workers", [1, 2])
def test_stores(tmp_path: Path, disk: Disk, workers: int) -> None:
    dice, cuts = random.Random(), []
    with RealDaemon(tmp_path, workers=workers, stores=disk.path) as daemon:
        with Load(daemon, numbers(), clients=10) as load:
            for _ in range(CUTS):
                load.wait_for_accepted(5)
                time.sleep(dice.uniform(0.0, 0.1))
                accepted = frozenset(load.accepted)
                cuts.append((accepted, disk.cut_power()))
        assert not load.refused
        daemon.assert_no_mistakes()
    for accepted, cut in cuts:
        with disk.restored(cut) as root:
            Shelves(root).check(accepted)


def test_queue(tmp_path: Path, disk: Disk) -> None:
    cuts = []
    with RelayDaemon(tmp_path, 9, 1, disk=disk.path, min_free="0") as daemon:
        ledger = Ledger(daemon)
        for _ in range(CUTS):
            assert ledger.send(random.randrange(1, 12)) == {"250 2.0.0"}
            cuts.append((frozenset(ledger.accepted), disk.cut_power()))
        daemon.assert_no_mistakes()
    for accepted, cut in cuts:
        with disk.restored(cut) as root:
            assert accepted == _queued(root / "queue")


def _queued(path: Path) -> set[int]:
    """The numbers of the messages there, all of them whole."""
    queue = SqliteQueue(str(path), RecordingLog())
    queue.open()
    found = set()
    for message, _ in queue.find(Query()):
        with message.body.open() as body:
            data = body.read()
        start = data.index(b"X-Number: ")
        number = int(data[start + 10 : data.index(b"\r", start)])
        assert data[start:] == message_of(number)
        assert number not in found
        found.add(number)
    queue.close()
    return found
