r"""Turns what follows DATA or BDAT into the bytes of the message, and for a client the message into what follows DATA.

`DotDecoder` finds the end of data and takes the dot-stuffing away (RFC 5321 §4.5.2); `BodyChecker` looks at what comes
out, whichever way it came; `DotEncoder` is the way back. All work by chunk at the speed of `bytes` methods: no loop
over lines or bytes. None raises on bad input: what is wrong with a body is a flag to ask for when it has ended. They
know no size limit.

Only CRLF.CRLF ends a body, whatever mixture of CR, LF and dots came before: a server that also took LF.LF for the
end could be made to see a second message where the sender's server saw one (SMTP smuggling).
"""

from __future__ import annotations

from io import IncrementalNewlineDecoder

_END_OF_DATA = b"\r\n.\r\n"
_LINE_WITH_DOT = b"\r\n."
# What a chunk may end in that could become the end of data with the next one, longest first.
_BEGINNINGS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")
# What IncrementalNewlineDecoder.newlines may be without a CR or a LF that stands alone.
_PAIRED = (None, "\r\n")
_LARGE_CHUNK = 16 * 1024


class DotDecoder:
    """The octets after 354, to be fed in chunks of any size.

    Holds back the longest tail that could begin CRLF.CRLF, at most four bytes. The line before the first is taken to
    have ended in CRLF, so that a body of nothing but "." CRLF is the empty message.
    """

    __slots__ = ("_held", "_virtual")

    def __init__(self) -> None:
        self._held = b"\r\n"
        self._virtual = 2  # bytes of the CRLF before the first line still to be cut from the output

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Decode a chunk: (message bytes, None), or (message bytes, the input behind the end of data)."""
        data = self._held + data
        # One search finds both what ends a body and what is stuffed; most bodies have one such place, their end. First
        # look for a single octet: that is 50 times as fast, and what is encoded in base64 has no dots.
        dot = data.find(b".")
        if dot >= 0:
            dot = data.find(_LINE_WITH_DOT, max(0, dot - 2))
        end = dot if dot < 0 or data.startswith(_END_OF_DATA, dot) else data.find(_END_OF_DATA, dot)
        if end >= 0:
            self._held = b""
            return self._decoded(data[: end + 2], dot), data[end + 5 :]
        held = b""
        if data[-1:] in b"\r\n.":
            held = next((tail for tail in _BEGINNINGS if data.endswith(tail)), b"")
        self._held = held
        return self._decoded(data[: len(data) - len(held)], dot), None

    def _decoded(self, data: bytes, dot: int) -> bytes:
        # RFC 5321 §4.5.2: "If the first character is a period and there are other characters on the line, the first
        # character is deleted." A CRLF is held back with its dot, so none is ever cut between two chunks.
        if 0 <= dot <= len(data) - len(_LINE_WITH_DOT):
            data = data.replace(_LINE_WITH_DOT, b"\r\n")
        if self._virtual and data:
            data, self._virtual = data[self._virtual :], 0
        return data


class DotEncoder:
    """A message for DATA: dots stuffed, and an end that nobody can take for another one.

    RFC 5321 §2.3.8: "SMTP client implementations MUST NOT transmit these characters [CR and LF] except when they are
    intended as line terminators and then MUST ... transmit them only as a <CRLF> sequence". A bare one becomes a CRLF
    here: where a server took LF.LF for the end of data, the rest of the message would be commands in our name.
    """

    __slots__ = ("_held_cr", "_tail")

    def __init__(self) -> None:
        self._tail = b"\r\n"  # what was sent last: a dot behind it begins a line
        self._held_cr = b""  # a CR at the end of a chunk waits for its LF

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes to send; chunks may end anywhere. May return b""."""
        data = self._held_cr + chunk
        self._held_cr = b"\r" if data.endswith(b"\r") else b""
        data = data[: len(data) - len(self._held_cr)]
        pairs = data.count(b"\r\n")
        if data.count(b"\n") != pairs or data.count(b"\r") != pairs:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        before, data = len(self._tail), self._tail + data
        self._tail = data[-2:]
        return data.replace(b"\r\n.", b"\r\n..")[before:]

    def finish(self) -> bytes:
        """The end of data, behind a line end that the message may lack (RFC 5321 §4.1.1.4)."""
        is_line_begun = self._held_cr or self._tail != b"\r\n"
        return b"\r\n.\r\n" if is_line_begun else b".\r\n"


class BodyChecker:
    """Watches message bytes go by: their number, bare CR or LF, and lines that are too long.

    longest_line: octets without CRLF, 0 for any length.  is_binary: a BINARYMIME body, which has no lines at all
    (RFC 3030 §3).
    """

    __slots__ = ("_column", "_is_binary", "_longest_line", "_newlines", "has_bare_newline", "has_long_line", "size")

    def __init__(self, longest_line: int, *, is_binary: bool = False) -> None:
        self.size = 0
        self.has_bare_newline = False
        self.has_long_line = False
        self._longest_line = longest_line
        self._is_binary = is_binary
        self._newlines = IncrementalNewlineDecoder(None, translate=False)
        self._column = 0  # octets since the last LF

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes; chunks may end anywhere, in the middle of a CRLF too. Not to be called with b""."""
        self.size += len(chunk)
        if self._is_binary:
            return
        if not self.has_bare_newline:
            self._look_for_bare_newlines(chunk)
        if self._longest_line and not self.has_long_line:
            self._measure_lines(chunk)

    def finish(self) -> None:
        """The body has ended: a CR that waited for its LF waits in vain, and a line without CRLF is a line too."""
        self._newlines.decode("", final=True)
        self.has_bare_newline = self.has_bare_newline or self._newlines.newlines not in _PAIRED
        self.has_long_line = self.has_long_line or 0 < self._longest_line < self._column

    def _look_for_bare_newlines(self, chunk: bytes) -> None:
        # Python's own reader of text files notes which line ends it has seen, across chunks: 0.5 ms for a MB. Counting
        # CR, LF and CRLF takes three times as long.
        newlines = self._newlines
        newlines.decode(chunk.decode("latin-1"))
        self.has_bare_newline = newlines.newlines not in _PAIRED

    def _measure_lines(self, chunk: bytes) -> None:
        if len(chunk) >= _LARGE_CHUNK and self._has_even_lines(chunk):
            self._column = len(chunk) - 1 - chunk.rfind(b"\n")
            return
        # From a line's beginning look for the LAST line feed within the longest line: one step for every kilobyte,
        # however short the lines are.
        window = self._longest_line + 2
        position = 0
        column = self._column
        length = len(chunk)
        while length - position + column >= window:
            line_feed = chunk.rfind(b"\n", position, position + window - column)
            if line_feed < 0:
                self.has_long_line = True
                return
            position, column = line_feed + 1, 0
        last = chunk.rfind(b"\n", position)
        self._column = length - position + column if last < 0 else length - 1 - last

    def _has_even_lines(self, chunk: bytes) -> bool:
        """True if there is a line feed wherever the first two lines let one expect it, and those are short enough.

        What is large is an attachment, and base64 has lines of one length: a stride along them costs nothing.
        """
        window = self._longest_line + 2
        first = chunk.find(b"\n")
        length = chunk.find(b"\n", first + 1) - first
        if not (0 <= first < window - self._column and 0 < length <= window):
            return False
        ends = chunk[first::length]
        return ends == b"\n" * len(ends)
