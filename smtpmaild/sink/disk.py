"""Every system call that changes a store, by name: one place to count them, and one where a test makes them fail.

Nothing here decides anything. All functions raise OSError and may be called from any thread; each of them lets go of
the GIL, so that the event loop runs on while the disk works.

What was tried for a file of 4 KiB and brought nothing (44 us of CPU as it is, in groups of 10): O_TMPFILE and linkat
41, short names in tmp/ 41, descriptors of the directories in place of paths 34 to 44, fdatasync for each 61; and the
calls of a whole group in C, so that the GIL is let go of once.
"""

from __future__ import annotations

import ctypes
import os
import re

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

fsync = os.fsync
rename = os.rename
link = os.link
unlink = os.unlink
close = os.close
mkdir = os.mkdir
copy_file_range = os.copy_file_range


def create(path: str, mode: int) -> int:
    """Make a file that did not exist, open for reading and writing; the descriptor."""
    return os.open(path, _CREATE, mode)


def write(fd: int, data: bytes) -> None:
    """Write all of it, however many calls that takes."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def open_directory(path: str) -> int:
    """A descriptor of a directory, to sync it or its file system."""
    return os.open(path, _DIRECTORY)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = open_directory(path)
    try:
        fsync(fd)
    finally:
        close(fd)


def syncfs(fd: int) -> None:
    """Make everything written to the file system of the descriptor durable."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _has_syncfs() -> bool:
    # syncfs(2): "In mainline kernel versions prior to 5.8, syncfs() will fail only when passed a bad file descriptor":
    # it waits, but does not tell that a page could not be written.
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return hasattr(_libc, "syncfs") and version is not None and (int(version[1]), int(version[2])) >= (5, 8)


_libc = ctypes.CDLL(None, use_errno=True)  # CDLL, unlike PyDLL, lets go of the GIL
HAS_SYNCFS = _has_syncfs()
