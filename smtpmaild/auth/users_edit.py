"""Changes to a users file: one line is added, changed or removed, and nothing else.

The new file is written beside the old one, with its owner and permissions, synced, and put in its place by a rename:
who reads meanwhile reads the one or the other. Two who change it at the same time take turns, by a lock on its folder.
Every other line stays as it is, comments and mistakes included; in the changed one what follows the password stays.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from smtpmaild.auth.accounts import canonical, split_line

_LINE = re.compile("[^\n]*\n|[^\n]+")
_NEW_FILE_MODE = 0o640
_PATIENCE_SECONDS = 10.0
_TURN_SECONDS = 0.05


class EditError(Exception):
    """It was not changed; the text says why."""


class NoSuchAccountError(EditError):
    """There is no line of that name."""


class BusyError(EditError):
    """Somebody else is changing it, for longer than we wait."""


def add(path: str, name: str, hashed: str, group: int | None = None) -> None:
    """A new line at the end; makes the file if there is none. group: who may read a file that is made."""

    def change(lines: list[str]) -> None:
        if _find(lines, name) is not None:
            raise EditError(f"there is an account '{name}' already: `smtpmaild user passwd` changes its password")
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        lines.append(f"{name}:{hashed}\n")

    _edit(path, change, group=group, may_make=True)


def set_password(path: str, name: str, hashed: str) -> None:
    """Another password in the line of that name."""

    def change(lines: list[str]) -> None:
        number = _number(lines, name)
        line = lines[number]
        end = line[len(line.rstrip("\r\n")) :]
        written, *rest = line.rstrip("\r\n").split(":")
        lines[number] = ":".join((written, hashed, *rest[1:])) + end

    _edit(path, change)


def remove(path: str, name: str) -> None:
    """No line of that name any more."""

    def change(lines: list[str]) -> None:
        del lines[_number(lines, name)]

    _edit(path, change)


def _find(lines: list[str], name: str) -> int | None:
    wanted = canonical(name)
    for number, line in enumerate(lines):
        entry = split_line(line.rstrip("\n"))
        if entry is not None and canonical(entry[0]) == wanted:
            return number
    return None


def _number(lines: list[str], name: str) -> int:
    number = _find(lines, name)
    if number is None:
        raise NoSuchAccountError(f"there is no account '{name}'")
    return number


def _edit(path: str, change: Callable[[list[str]], None], *, group: int | None = None, may_make: bool = False) -> None:
    path = os.path.realpath(path)  # a symbolic link stays one
    with _turn(os.path.dirname(path)) as folder:
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                lines = _LINE.findall(file.read().decode("utf-8", "surrogateescape"))
            mode, owner, gid = status.st_mode & 0o7777, status.st_uid, status.st_gid
        except FileNotFoundError:
            if not may_make:
                raise
            lines, mode, owner, gid = [], _NEW_FILE_MODE, -1, -1 if group is None else group
        change(lines)
        new = f"{path}.{os.getpid()}.new"
        try:
            _write(new, "".join(lines).encode("utf-8", "surrogateescape"), mode, owner, gid)
            os.rename(new, path)
        except BaseException:
            if os.path.exists(new):
                os.unlink(new)
            raise
        os.fsync(folder)


def _write(path: str, content: bytes, mode: int, owner: int, group: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        os.fchown(descriptor, owner, group)
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


@contextmanager
def _turn(folder: str) -> Iterator[int]:
    """The descriptor of the folder, locked."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, folder)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: str) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise BusyError(f"somebody else is changing a file in {folder}") from None
            time.sleep(_TURN_SECONDS)
