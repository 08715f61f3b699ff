"""One message on its way into files: collected in memory, spilled when large, staged in tmp/, renamed.

Two threads touch a delivery. The event loop calls write, commit, abort, flushed and settle; a writer thread calls the
steps of writer.Job in between. A small message is handed over once, at commit. A large one is handed over in blocks
while it arrives: `_blocks` passes them (append and popleft are atomic), and `_lock` sees that whoever writes them, a
flush or the commit behind it, writes them in order.

A message for several directories is written once and shared: as a hard link where the whole file is the same, else
(Delivered-To differs) copied inside the kernel when it is large, or written again when it is small.

Under SMTP a message has one answer, so a copy that cannot be made takes the others with it: the client sends all of it
again. Under LMTP each destination has its own: a copy that cannot be made is lost, alone, and the others go on. Only
what nobody can tell apart is everybody's under LMTP too: a sync that fails.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from smtpmaild.sink import Outcome, disk
from smtpmaild.sink.folder import Folder
from smtpmaild.sink.writer import Fault, Health, Writer, reply_to
from smtpmaild.smtp.reply import Reply

#: What is smaller stays in memory until its commit; what is larger goes to disk in blocks of this size. Messages of
#: 1 MiB, 10 at a time, went through at 307/s with 64 KiB, 365/s with 128 KiB, 400/s with 256 KiB, 230/s in one piece.
SPILL_FROM = 256 * 1024
#: The same once half of the worker's memory for messages is taken.
SPILL_EARLY = 32 * 1024
#: Bytes of one message that wait for the disk before the peer is told to wait too, and when it may go on.
HIGH_WATER = 2 * SPILL_FROM
LOW_WATER = SPILL_FROM
_COPY_AT_ONCE = 1024 * 1024


class Copy:
    """One file a message becomes: where it goes and the header fields in front of it.

    places: of the destinations it is for, in the order given to begin().
    """

    __slots__ = ("folder", "head", "places")

    def __init__(self, folder: Folder, head: bytes, place: int) -> None:
        self.folder = folder
        self.head = head
        self.places = [place]


class _File:
    """A file in tmp/ that will be renamed. fd: -1 when closed.  target: "" until its name is known."""

    __slots__ = ("copy", "fd", "is_published", "target", "tmp")

    def __init__(self, copy: Copy, tmp: str, target: str, fd: int) -> None:
        self.copy = copy
        self.tmp = tmp
        self.target = target
        self.fd = fd
        self.is_published = False


class FileDelivery:
    """A delivery into one file per directory; stores say in four methods how it is named and what else is written."""

    __slots__ = (
        "_blocks",
        "_chunks",
        "_copies",
        "_done",
        "_drained",
        "_error",
        "_files",
        "_health",
        "_held",
        "_is_over",
        "_is_paused",
        "_last",
        "_lock",
        "_lost",
        "_pending",
        "_stored",
        "_taken",
        "_waiting",
        "_writer",
    )

    def __init__(
        self, writer: Writer, health: Health, copies: Sequence[Copy], drained: Callable[[], None], *, is_lmtp: bool
    ) -> None:
        self._writer = writer
        self._health = health
        self._copies = copies
        self._drained = drained
        # Of the loop's thread.
        self._chunks: list[bytes] = []
        self._pending = 0  # bytes in _chunks
        self._waiting = 0  # bytes in _blocks, as far as the loop has heard
        self._held = 0  # our part of writer.held
        self._is_paused = False
        self._is_over = False
        self._done: Callable[[Outcome], None] | None = None
        # Passed to the writer threads.
        self._lock: threading.Lock | None = None  # None: never spilled
        self._blocks: deque[list[bytes]] = deque()
        # Of a writer thread.
        self._files: list[_File] = []
        self._last: list[_File] = []
        self._stored = 0  # bytes of a large message in its file, without the head
        self._taken = 0  # the same before encode()
        self._error: Exception | None = None
        self._lost: list[tuple[Copy, OSError]] | None = [] if is_lmtp else None  # None: none may be lost alone

    # What a store says about its files. All run in a writer thread.

    def encode(self, data: bytes) -> bytes:
        """The bytes as the store keeps them. Only for whole messages; see encode_block."""
        return data

    def encode_block(self, data: bytes, *, is_last: bool) -> bytes:
        """The same for a block of a large message."""
        return data

    def tmp_name(self) -> str:
        """A name in tmp/ for a message whose size is not known yet."""
        raise NotImplementedError

    def name(self, size: int, wire_size: int) -> str:
        """The final name of a file of that size; wire_size: the same before encode(), with CRLF line ends."""
        raise NotImplementedError

    def stage_more(self, copy: Copy) -> None:
        """Write what belongs to a copy beside it."""

    # The seam smtpmaild.sink.Delivery: in the loop's thread.

    def write(self, chunk: bytes) -> bool:
        """Collect, and pass a block to the writer when there is enough for one."""
        if self._error is not None:
            return True  # it has failed already: commit will say so
        size = len(chunk)
        self._chunks.append(chunk)
        self._pending += size
        self._held += size
        self._writer.held += size
        if self._pending < SPILL_FROM and (self._pending < SPILL_EARLY or self._writer.held < self._writer.plenty):
            return True
        self._spill()
        self._is_paused = self._waiting > HIGH_WATER
        return not self._is_paused

    def _spill(self) -> None:
        if self._lock is None:
            self._lock = threading.Lock()
        self._waiting += self._pending
        self._blocks.append(self._chunks)
        self._chunks, self._pending = [], 0
        self._writer.flush(self)

    def commit(self, done: Callable[[Outcome], None]) -> None:
        """Hand over to the writer."""
        self._done = done
        self._writer.commit(self)

    def abort(self) -> None:
        """Forget the message; where it was spilled a writer thread removes the file."""
        self._chunks = []
        self._let_go()
        if self._lock is not None:
            self._writer.discard(self)

    def flushed(self, size: int) -> None:
        """Blocks were written, or dropped: their memory is free."""
        if self._is_over:
            return
        self._waiting -= size
        self._held -= size
        self._writer.held -= size
        if self._is_paused and self._waiting <= LOW_WATER:
            self._is_paused = False
            self._drained()

    def settle(self, reply: Reply) -> None:
        """The writer's answer."""
        self._let_go()
        self._chunks = []
        if self._done is not None:
            self._done(self._outcome(reply, self._lost) if self._lost else reply)

    def _outcome(self, reply: Reply, lost: Sequence[tuple[Copy, OSError]]) -> Outcome:
        by_place = {place: reply for copy in self._copies for place in copy.places}
        for copy, error in lost:
            by_place.update(dict.fromkeys(copy.places, reply_to(error)))
        return [by_place[place] for place in range(len(by_place))]

    def _let_go(self) -> None:
        self._is_over = True
        self._writer.held -= self._held
        self._held = 0

    # The seam writer.Job: in a writer thread.

    @property
    def folders(self) -> Sequence[Folder]:
        return [copy.folder for copy in self._copies]

    @property
    def has_last(self) -> bool:
        return bool(self._last)

    def flush(self) -> int:
        assert self._lock is not None
        with self._lock:
            return self._write_blocks()

    def make_folders(self) -> None:
        for copy in self._copies:
            try:
                copy.folder.make()
            except OSError as error:
                self._lose(copy, "make folder", error)

    def stage(self, *, keep_open: bool) -> None:
        if self._lock is None:
            self._stage_small(keep_open=keep_open)
        else:
            with self._lock:
                self._stage_large()
        for copy in self._copies:
            try:
                self.stage_more(copy)
            except OSError as error:
                self._lose(copy, "write", error)
        if not keep_open:
            for file in (*self._files, *self._last):
                _close(file)

    def sync(self) -> None:
        for file in (*self._files, *self._last):
            if file.fd >= 0:  # a hard link is synced with the file it is a link to
                disk.fsync(file.fd)
                _close(file)

    def publish(self) -> None:
        self._rename(self._files)

    def publish_last(self) -> None:
        self._rename(self._last)

    def lose(self, target: str, step: str, error: OSError) -> None:
        for copy in self._copies:
            if copy.folder.target == target:
                self._lose(copy, step, error)

    def withdraw(self) -> None:
        if self._lock is None:
            self._remove()
        else:
            with self._lock:
                self._error = self._error or OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
                self._blocks.clear()
                self._remove()

    def failed(self, error: OSError) -> str:
        self._health.failed(error)
        return str(error.filename or self._copies[0].folder.path)

    # How.

    def _lose(self, copy: Copy, step: str, error: OSError) -> None:
        """Go on without this copy, or raise: where one answer is for all, or no other copy is left."""
        if self._lost is None or len(self._copies) == 1:
            raise error
        self._health.failed(error)
        self._lost.append((copy, error))
        self._writer.note(Fault(step, str(error.filename or copy.folder.path), error))
        self._copies = [other for other in self._copies if other is not copy]
        _unlink([file for file in (*self._last, *self._files) if file.copy is copy])
        self._last = [file for file in self._last if file.copy is not copy]
        self._files = [file for file in self._files if file.copy is not copy]

    def _stage_small(self, *, keep_open: bool) -> None:
        body = b"".join(self._chunks)
        shared: dict[tuple[bytes, int], str] = {}
        for copy in self._copies:
            folder = copy.folder
            original = shared.get((copy.head, folder.device))
            whole = copy.head + body
            data = self.encode(whole)
            name = self.name(len(data), len(whole))
            try:
                if original is None or not self._link(original, copy, name):
                    file = self._create(copy, name, f"{folder.target}/{name}")
                    disk.write(file.fd, data)
                    if not keep_open:
                        _close(file)
                    shared[copy.head, folder.device] = file.tmp
            except OSError as error:
                self._lose(copy, "write", error)

    def _stage_large(self) -> None:
        self._write_blocks()
        self._append(b"".join(self._chunks), is_last=True)
        if self._error is not None:
            raise self._error
        source = self._files[0]
        source_head = self.encode(source.copy.head)
        shared: dict[tuple[bytes, int], str] = {}
        for copy in self._copies:  # the first of them is the source's: those before it were lost
            folder = copy.folder
            head = self.encode(copy.head)
            name = self.name(len(head) + self._stored, len(copy.head) + self._taken)
            target = f"{folder.target}/{name}"
            original = shared.get((head, folder.device))
            if copy is source.copy:
                source.target = target
                shared[head, folder.device] = source.tmp
                continue
            try:
                if original is None or not self._link(original, copy, name):
                    file = self._create(copy, name, target)
                    disk.write(file.fd, head)
                    _copy_content(source.fd, len(source_head), self._stored, file.fd)
                    shared[head, folder.device] = file.tmp
            except OSError as error:
                self._lose(copy, "write", error)

    def _write_blocks(self) -> int:
        size = 0
        while self._blocks:
            block = b"".join(self._blocks.popleft())
            size += len(block)
            self._append(block, is_last=False)
        return size

    def _append(self, block: bytes, *, is_last: bool) -> None:
        if self._error is not None:
            return
        try:
            if not self._files:
                self._open_large()
            data = self.encode_block(block, is_last=is_last)
            try:
                disk.write(self._files[0].fd, data)
            except OSError as error:
                self._move_on(error, data)
            self._stored += len(data)
            self._taken += len(block)
        except Exception as error:
            # Kept for stage(): what lacks a block must never be committed, whatever the reason. The room goes back at
            # once: a disk is not kept full by what cannot be finished.
            self._remove()
            self._error = error

    def _open_large(self) -> None:
        """Begin the file in the first directory that takes it."""
        for copy in self._copies:
            try:
                copy.folder.make()
                file = self._create(copy, self.tmp_name(), "")
                disk.write(file.fd, self.encode(copy.head))
                return
            except OSError as error:
                self._lose(copy, "write", error)

    def _move_on(self, error: OSError, data: bytes) -> None:
        """The directory with the file takes no more: go on, from the bytes that are there, in the next that does."""
        if self._lost is None:
            raise error
        offset = len(self.encode(self._files[0].copy.head))
        written = os.dup(self._files[0].fd)
        try:
            while True:
                self._lose(self._files[0].copy, "write", error)
                self._open_large()
                try:
                    _copy_content(written, offset, self._stored, self._files[0].fd)
                    disk.write(self._files[0].fd, data)
                    return
                except OSError as another:
                    error = another
        finally:
            disk.close(written)

    def _create(self, copy: Copy, name: str, target: str) -> _File:
        file = _File(copy, f"{copy.folder.tmp}/{name}", target, copy.folder.create(name))
        self._files.append(file)
        return file

    def create_last(self, copy: Copy, name: str, data: bytes) -> None:
        """Stage a file that becomes visible behind all others."""
        folder = copy.folder
        file = _File(copy, f"{folder.tmp}/{name}", f"{folder.target}/{name}", folder.create(name))
        self._last.append(file)
        disk.write(file.fd, data)

    def _link(self, original: str, copy: Copy, name: str) -> bool:
        tmp = f"{copy.folder.tmp}/{name}"
        try:
            disk.link(original, tmp)
        except OSError as error:
            if error.errno in _CANNOT_LINK:
                return False
            raise
        self._files.append(_File(copy, tmp, f"{copy.folder.target}/{name}", -1))
        return True

    def _rename(self, files: Sequence[_File]) -> None:
        for file in files:
            try:
                disk.rename(file.tmp, file.target)
                file.is_published = True
            except OSError as error:
                self._lose(file.copy, "rename", error)

    def _remove(self) -> None:
        _unlink([*self._last, *self._files])
        self._last, self._files = [], []


#: A file system without hard links, another one after all, or too many links to one file: then the copy is written.
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}
_CANNOT_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def _close(file: _File) -> None:
    if file.fd >= 0:
        fd, file.fd = file.fd, -1
        disk.close(fd)


def _unlink(files: Sequence[_File]) -> None:
    for file in files:
        _close(file)
        try:
            disk.unlink(file.target if file.is_published else file.tmp)
        except OSError:
            pass  # what could not be undone is swept from tmp/ by a later start


def _copy_content(source: int, offset: int, size: int, target: int) -> None:
    """Append so many bytes of one file to another, inside the kernel where it can (and shared where the disk can)."""
    while size > 0:
        try:
            count = disk.copy_file_range(source, target, size, offset)
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
            data = os.pread(source, min(size, _COPY_AT_ONCE), offset)
            disk.write(target, data)
            count = len(data)
        if count == 0:
            raise OSError(errno.EIO, "a file in tmp/ became shorter")
        offset += count
        size -= count
