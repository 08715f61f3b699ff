"""The users file as it is now: read again when it has changed, the last good reading kept when it cannot be used.

`UsersFile.current` is called with every attempt to sign in, in a thread beside the loop: it asks the file system
whether the file is the one that was read (one system call) and reads it if not. A file that every user of the machine
can read is refused, as a password can be guessed from its hash at leisure.
"""

from __future__ import annotations

import os
import stat
import threading

from smtpmaild.auth.accounts import Accounts, UsersFileError, read_lines
from smtpmaild.facts import Log

# 100,000 accounts have 12 MB; what is larger was named by mistake.
_LARGEST = 64 * 1024 * 1024
#: What tells that a file is another or has been written: device, inode, size, times of content and of mode.
Signature = tuple[int, int, int, int, int]


def read(path: str) -> tuple[Accounts, Signature]:
    """The accounts of a file, and which file it was; raises UsersFileError or OSError. Blocks."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())  # before the content: what changes meanwhile is noticed next time
        if not stat.S_ISREG(status.st_mode):
            raise UsersFileError(path, f"{path}: this is no regular file")
        if status.st_mode & stat.S_IROTH:
            raise UsersFileError(path, f"{path}: every user can read it: chmod o-rwx it")
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise UsersFileError(path, f"{path}: too large for a users file")
    return read_lines(path, content), _signature(status)


def _signature(status: os.stat_result) -> Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


_NOBODY = Accounts.of(iter(()))


class UsersFile:
    """One users file. Any thread may ask."""

    def __init__(self, path: str, log: Log) -> None:
        self.path = path
        self._log = log
        self._accounts = _NOBODY
        self._seen: Signature | None = None  # of the file that was read last, good or bad
        self._trouble = ""
        self._lock = threading.Lock()

    def current(self) -> Accounts:
        """The accounts of the last good reading. Blocks."""
        with self._lock:
            try:
                seen = _signature(os.stat(self.path))
                if seen != self._seen:
                    self._read(seen)
            except OSError as error:
                self._seen = None
                self._tell(f"{self.path}: {error.strerror}")
            return self._accounts

    def _read(self, seen: Signature) -> None:
        is_first = self._seen is None and not self._trouble
        try:
            self._accounts, self._seen = read(self.path)
        except UsersFileError as error:
            self._seen = seen
            self._tell(str(error))
            return
        self._trouble = ""
        if not is_first:
            self._log.info("users_file_read", path=self.path, accounts=len(self._accounts.by_name))

    def _tell(self, trouble: str) -> None:
        """Once for each new trouble: it is met again with every attempt."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error("users_file_refused", path=self.path, cause=trouble)
