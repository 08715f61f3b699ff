"""A word from the attendant to the workers: a page of memory that both have, because one process made it for all.

The attendant posts, the workers look once a second whether the number has changed. Nobody waits for anybody: who looks
while it is being written sees an old number, or text that is none, and looks again.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from typing import Any

_SIZE = 64 * 1024
_NUMBER = slice(0, 8)
_LENGTH = slice(8, 16)
_TEXT = 16


class Notice:
    """Made before the processes are. At most one thing is posted at a time."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _SIZE)

    @property
    def number(self) -> int:
        """Of what is posted; it grows with each post."""
        return int.from_bytes(self._page[_NUMBER], "big")

    def post(self, notice: Mapping[str, Any]) -> None:
        """In place of what was there; an empty one says that nothing is. Raises ValueError for one that is too long."""
        text = json.dumps(notice).encode()
        if len(text) > _SIZE - _TEXT:
            raise ValueError("this is too much for a notice")
        self._page[_LENGTH] = len(text).to_bytes(8, "big")
        self._page[_TEXT : _TEXT + len(text)] = text
        self._page[_NUMBER] = (self.number + 1).to_bytes(8, "big")

    def read(self) -> Mapping[str, Any]:
        """What is posted; nothing where nothing is, or somebody is just writing."""
        length = int.from_bytes(self._page[_LENGTH], "big")
        try:
            found = json.loads(self._page[_TEXT : _TEXT + length] or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}
