"""The receive buffer of a session: hands out command lines, or the raw bytes of a body.

Bounded: of a line without an end never more than the limit is kept, and the driver feeds no more while the session is
paused. Knows where lines end and how long they may be; does not know what they say.
"""

from __future__ import annotations

from enum import Enum


class BadLine(Enum):
    """Why there is no line to parse."""

    TOO_LONG = "longer than the limit; the rest of it is skipped up to its line feed"
    BARE_LINE_FEED = "ended in LF without CR"


class LineBuffer:
    """Input that was received and not yet interpreted.

    limit: octets of the longest line, its CRLF included; may change between two lines.
    """

    __slots__ = ("_allow_bare_lf", "_data", "_position", "_searched", "_skipping", "limit")

    def __init__(self, limit: int, *, allow_bare_lf: bool) -> None:
        self.limit = limit
        self._allow_bare_lf = allow_bare_lf
        self._data = b""
        self._position = 0
        self._searched = 0  # no line feed before this index: a line that arrives byte by byte is searched once
        self._skipping = False

    def __len__(self) -> int:
        return len(self._data) - self._position

    def feed(self, data: bytes) -> None:
        """Append what the network brought."""
        if self._position == len(self._data):
            self._data = data
            self._searched = 0
        else:
            self._searched -= self._position
            self._data = self._data[self._position :] + data
        self._position = 0

    def next_line(self) -> bytes | BadLine | None:
        """The next line without its line end; None until there is one."""
        if self._skipping:
            self._skip_to_line_feed()
        data = self._data
        start = self._position
        if start == len(data):
            self.clear()
            return None
        end = data.find(b"\n", max(start, self._searched))
        if end < 0:
            return self._unfinished_line()
        self._position = self._searched = end + 1
        if end + 1 - start > self.limit:
            return BadLine.TOO_LONG
        if end > start and data[end - 1] == 13:
            return data[start : end - 1]
        return data[start:end] if self._allow_bare_lf else BadLine.BARE_LINE_FEED

    def _unfinished_line(self) -> BadLine | None:
        if len(self) <= self.limit:
            # What was read is let go: a session that idles after a large group of commands keeps none of it.
            self._data = self._data[self._position :]
            self._position = 0
            self._searched = len(self._data)
            return None
        self.clear()
        self._skipping = True
        return BadLine.TOO_LONG

    def _skip_to_line_feed(self) -> None:
        end = self._data.find(b"\n", self._position)
        if end < 0:
            self.clear()
        else:
            self._position = self._searched = end + 1
            self._skipping = False

    def take_all(self) -> bytes:
        """Everything there is."""
        data = self._data[self._position :] if self._position else self._data
        self.clear()
        return data

    def take(self, count: int) -> bytes:
        """At most `count` bytes."""
        if count >= len(self):
            return self.take_all()
        start = self._position
        self._position = self._searched = start + count
        return self._data[start : self._position]

    def give_back(self, data: bytes) -> None:
        """Put back what take_all() returned too much of; only while the buffer is empty."""
        self._data = data
        self._position = self._searched = 0

    def clear(self) -> None:
        """Forget everything."""
        self._data = b""
        self._position = self._searched = 0
