"""Recordings of sessions: the order for the workers, and what they bring.

An order is posted where all workers see it (server/notice.py). They write each session as a file into a directory that
is made for this order; here it is looked at twice a second, and each file is taken away and told on. When the time is
up, or who asked is gone, the order and the directory go. There is one recording at a time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from smtpmaild.facts import Log
from smtpmaild.queue.shards import Who
from smtpmaild.server.notice import Notice

_LOOK_SECONDS = 0.5
#: A recording forgets nobody for longer than this.
LONGEST = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be recorded. client: a network; "" for any, and so listener and rule.  most: sessions.  bodies: keep
    what messages say."""

    client: str = ""
    listener: str = ""
    rule: str = ""
    seconds: float = 600.0
    most: int = 1000
    bodies: bool = False


class CutOffError(Exception):
    """Another attendant has taken over, and the order of this one is gone."""


class Recordings:
    """See the head of this file. notice: where the workers look."""

    def __init__(self, notice: Notice, log: Log) -> None:
        self._notice = notice
        self._log = log
        self._is_busy = False

    @property
    def is_busy(self) -> bool:
        """Somebody records."""
        return self._is_busy

    def forget(self) -> None:
        """End what an attendant has left behind that died: nobody would fetch it."""
        directory = self._notice.read().get("directory")
        if directory:
            self._notice.post({})
            shutil.rmtree(directory, ignore_errors=True)

    async def record(self, wish: Wish, who: Who) -> AsyncGenerator[tuple[str, str]]:
        """(name, text) of each session as it ends, ("", "") twice a second besides. Raises ValueError, OSError,
        CutOffError."""
        networks = [str(ipaddress.ip_network(wish.client, strict=False))] if wish.client else []
        until = time.time() + min(wish.seconds, LONGEST)
        directory = tempfile.mkdtemp(prefix="smtpmaild-")
        self._is_busy = True
        number = -1
        try:
            order = {"networks": networks, "listener": wish.listener, "rule": wish.rule, "directory": directory}
            self._notice.post({**order, "most": wish.most, "bodies": wish.bodies, "until": until})
            number = self._notice.number
            self._log.info(
                "recording_ordered", user=who.name, client=wish.client, listener=wish.listener, rule=wish.rule
            )
            left = wish.most
            while left > 0 and time.time() < until + _LOOK_SECONDS:
                await asyncio.sleep(_LOOK_SECONDS)
                if self._notice.number != number:
                    raise CutOffError("the recording was cut off by a reload")
                yield "", ""
                for name, text in [*_taken(directory)][:left]:
                    left -= 1
                    yield name, text
        finally:
            self._is_busy = False
            if self._notice.number == number:  # not the order that the attendant after this one has taken already
                self._notice.post({})
            shutil.rmtree(directory, ignore_errors=True)


def _taken(directory: str) -> Iterator[tuple[str, str]]:
    """What is complete; it is gone then."""
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.name.endswith(".smtp"):
            with open(entry.path, encoding="utf-8") as file:
                text = file.read()
            os.unlink(entry.path)
            yield entry.name, text
