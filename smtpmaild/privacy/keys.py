"""The key of the day: in memory, and in a file that all processes of the daemon read, so that they agree.

Who needs it first on a day makes it, at random, in the place of the one before. It survives a restart; it does not
survive midnight (UTC). Without the file, because of its rights or its disk, a process has a key of its own and says so.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable

_DAY = 86400


class Keys:
    """now: seconds since the epoch.  tell: hears once a day why the file cannot be had."""

    def __init__(self, path: str, tell: Callable[[str], object], now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._tell = tell
        self._now = now
        self._day = -1
        self._key = b""

    def today(self) -> tuple[int, bytes]:
        """The number of the day and its key. Touches the disk once a day."""
        day = int(self._now()) // _DAY
        if day != self._day:
            self._day = day
            try:
                self._key = self._shared(day)
            except (OSError, ValueError) as error:
                self._key = secrets.token_bytes(32)
                self._tell(str(error))
        return day, self._key

    def _shared(self, day: int) -> bytes:
        os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            key = read(self._path, day)
            if key is None:
                key = secrets.token_bytes(32)
                self._write(day, key)
            return key
        finally:
            os.close(lock)

    def _write(self, day: int, key: bytes) -> None:
        descriptor = os.open(f"{self._path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            json.dump({"day": day, "key": key.hex()}, file)
        os.rename(f"{self._path}.new", self._path)


def read(path: str, day: int) -> bytes | None:
    """The key of this day, if the file has it. Raises OSError, and ValueError for a file that is none of ours."""
    try:
        with open(path, encoding="ascii") as file:
            record = json.load(file)
            return bytes.fromhex(record["key"]) if record["day"] == day else None
    except FileNotFoundError:
        return None
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} is no file of keys") from error
