"""The message as policies and callbacks see it at the end of data.

The header is always at hand, bounded; the whole body is kept only where somebody in the chain asked for it, in memory
up to a threshold and then in an unnamed temporary file. Stores get their bytes elsewhere, chunk by chunk.
"""

from __future__ import annotations

import tempfile
from typing import IO

#: Header bytes kept for policies; what lies behind is passed on but not looked at. Every client may make us keep so
#: much, beside what the stores hold: a hundred Received fields take 30 KiB, and Postfix keeps 100 KiB.
HEADER_LIMIT = 64 * 1024
#: How much of a header is searched for the fields that are remembered, and what is kept of each.
_SEARCHED = 16 * 1024
_FIELD_LIMIT = 256
_BLANK = (ord(" "), ord("\t"))
#: Body bytes kept in memory before a temporary file takes over.
MEMORY_LIMIT = 256 * 1024


class Content:
    """A message, read-only for policies.

    header: the bytes before the empty line, CRLF line ends, at most HEADER_LIMIT.  size: bytes of the message with
    CRLF line ends, without dot-stuffing, without the fields we add.
    """

    __slots__ = ("_file", "_head", "_header_done", "size")

    def __init__(self, *, keep_body: bool) -> None:
        self.size = 0
        self._head = b""
        self._header_done = False
        self._file: IO[bytes] | None = tempfile.SpooledTemporaryFile(MEMORY_LIMIT) if keep_body else None  # noqa: SIM115

    def write(self, chunk: bytes) -> None:
        """Append a piece of the message."""
        self.size += len(chunk)
        if not self._header_done:
            self._collect_header(chunk)
        if self._file is not None:
            self._file.write(chunk)

    def _collect_header(self, chunk: bytes) -> None:
        searched = max(0, len(self._head) - 3)
        self._head += chunk[: HEADER_LIMIT - len(self._head)]
        end = 0 if self._head.startswith(b"\r\n") else self._head.find(b"\r\n\r\n", searched)
        if end >= 0:
            self._head = self._head[: end + 2 if end else 0]
            self._header_done = True
        elif len(self._head) >= HEADER_LIMIT:
            self._header_done = True

    @property
    def header(self) -> bytes:
        """The header fields, each with its CRLF, without the empty line behind them."""
        return self._head

    def message_id_and_subject(self) -> tuple[str, str]:
        """One of each field, of several written alike the last, unfolded; "" where none is in the last 16 KiB."""
        head = (b"\n" + self._head)[-_SEARCHED:]
        # Nearly always they are written so. From below: what relays add stands above what the author's program wrote
        # (RFC 5321 §4.4), and is most of a header.
        message_id, subject = head.rfind(b"\nMessage-ID: "), head.rfind(b"\nSubject: ")
        if message_id < 0 or subject < 0:
            lowered = head.lower()
            message_id, subject = lowered.rfind(b"\nmessage-id:"), lowered.rfind(b"\nsubject:")
        return (
            _field(head, message_id + 12) if message_id >= 0 else "",
            _field(head, subject + 9) if subject >= 0 else "",
        )

    def open(self) -> IO[bytes]:
        """The whole message from its beginning, for reading; valid until the transaction ends.

        Raises LookupError where no policy of the chain asked for bodies.
        """
        if self._file is None:
            raise LookupError("the body is not there: no policy has needs_body, or the transaction has ended")
        self._file.seek(0)
        return self._file

    def read(self) -> bytes:
        """The whole message in memory: for small programs, not for large mail."""
        return self.open().read()

    def close(self) -> None:
        """Forget the body."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _field(head: bytes, start: int) -> str:
    """What stands from here to the end of the field."""
    end = head.find(b"\r\n", start, start + _FIELD_LIMIT)
    after = end + 2
    if end >= 0 and (after == len(head) or head[after] not in _BLANK):
        return head[start:end].strip().decode("utf-8", "replace")
    # RFC 5322 §2.2.3: a line that begins with white space goes on with the field.
    first, *rest = head[start : start + _FIELD_LIMIT].split(b"\r\n")
    for line in rest:
        if not line.startswith((b" ", b"\t")):
            break
        first += line
    return first.strip().decode("utf-8", "replace")
