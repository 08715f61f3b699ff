"""All messages that were caught: so many, so large at most, the oldest makes room for the newest.

May be used from any thread; who waits for a message is woken by the one that matches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from smtpmaild.dev.caught import Caught

#: (what happened, to which message; None: to all).
Change = tuple[Literal["caught", "deleted"], Caught | None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """messages, octets: what is kept at most.  message: octets of one message."""

    messages: int = 1000
    octets: int = 256 * 1024 * 1024
    message: int = 128 * 1024 * 1024


class Inbox:
    """The messages, oldest first. dropped: how many had to make room."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.dropped = 0
        self._changed = threading.Condition()
        self._messages: dict[str, Caught] = {}
        self._octets = 0
        self._listeners: list[Callable[[Change], object]] = []

    @property
    def messages(self) -> list[Caught]:
        """Those that are there now."""
        with self._changed:
            return [*self._messages.values()]

    def get(self, name: str) -> Caught | None:
        """The message with this id."""
        with self._changed:
            return self._messages.get(name)

    def listen(self, listener: Callable[[Change], object]) -> Callable[[], None]:
        """Call this for each change, in the thread that makes it; what is returned ends that."""
        with self._changed:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def add(self, message: Caught) -> None:
        """Keep this message, and forget the oldest ones it has no room beside."""
        changes: list[Change] = []
        with self._changed:
            while self._messages and (
                len(self._messages) >= self.bounds.messages or self._octets + len(message.raw) > self.bounds.octets
            ):
                oldest = self._messages.pop(next(iter(self._messages)))
                self._octets -= len(oldest.raw)
                self.dropped += 1
                changes.append(("deleted", oldest))
            self._messages[message.id] = message
            self._octets += len(message.raw)
            self._changed.notify_all()
        self._tell(*changes, ("caught", message))

    def delete(self, name: str) -> bool:
        """Forget the one with this id; False if it was not there."""
        with self._changed:
            message = self._messages.pop(name, None)
            if message is None:
                return False
            self._octets -= len(message.raw)
        self._tell(("deleted", message))
        return True

    def clear(self) -> None:
        """Forget all."""
        with self._changed:
            self._messages.clear()
            self._octets = 0
        self._tell(("deleted", None))

    def wait(self, found: Callable[[Sequence[Caught]], bool], timeout: float) -> bool:
        """Block until the messages are what `found` is looking for; False if the time is over before."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not found([*self._messages.values()]):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
        return True

    def _tell(self, *changes: Change) -> None:
        for listener in [*self._listeners]:
            for change in changes:
                listener(change)
