"""The directory of a queue: its files by name, its locks, and the sweep of what a crash left.

sqlite.py says what the files are for and in which order they change.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Collection
from typing import BinaryIO

_SHARD = re.compile(r"queue-(\d+)\.sqlite", re.ASCII)
_COPY_AT_ONCE = 1024 * 1024
_MODE = 0o700


def shard_path(directory: str, number: int) -> str:
    """The database of a worker."""
    return f"{directory}/queue-{number}.sqlite"


def lock_path(directory: str, number: int) -> str:
    """What is locked by the process that claims from it."""
    return f"{directory}/queue-{number}.lock"


def users_path(directory: str, number: int) -> str:
    """What is locked, shared, by every process that may write to it."""
    return f"{directory}/queue-{number}.users"


def shards(directory: str) -> list[tuple[int, str]]:
    """(number, path) of the databases that are there."""
    names = [_SHARD.fullmatch(name) for name in (os.listdir(directory) if os.path.isdir(directory) else ())]
    return sorted((int(name[1]), f"{directory}/{name[0]}") for name in names if name)


def make_directories(directory: str) -> None:
    """The directory with those of large bodies, durably; only its owner may look into it. OSError if not writable."""
    for path in (directory, f"{directory}/bodies", f"{directory}/bodies/tmp"):
        if not os.path.isdir(path):
            os.makedirs(path, _MODE, exist_ok=True)
            sync_directory(os.path.dirname(path) or ".")
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), directory)


def store_body(source: BinaryIO, directory: str, name: str) -> str:
    """Write a body to its place under bodies/, durable when this returns; its path."""
    staged, path = f"{directory}/bodies/tmp/{name}", f"{directory}/bodies/{name}"
    try:
        with open(staged, "wb") as target:
            while block := source.read(_COPY_AT_ONCE):
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        os.rename(staged, path)
    except OSError:
        unlink_if_there(staged)
        raise
    sync_directory(f"{directory}/bodies")
    return path


def sweep_bodies(directory: str, known: Collection[str], older_than: float, removed: Callable[[str], object]) -> None:
    """Unlink the bodies that no row names and that nobody has touched since `older_than`."""
    for folder in (f"{directory}/bodies", f"{directory}/bodies/tmp"):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file() and entry.name not in known and entry.stat().st_mtime < older_than:
                    unlink_if_there(entry.path)
                    removed(entry.path)


def share(path: str) -> int:
    """The descriptor that holds a shared lock; waits while somebody has it for himself."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def lock(path: str) -> int | None:
    """The descriptor that holds the lock; None while another process holds it. Files of locks are never removed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def sync_directory(path: str) -> None:
    """Make the names in it durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlink_if_there(path: str) -> None:
    """Gone is gone, whoever did it."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
