"""A store that gets Date and Message-ID with every message that came without (RFC 6409 §8.2 and §8.3).

It stands before a real store at the listeners that want it; the others deliver as ever. Whether a field is missing is
known when the header has ended, so its bytes wait here, at most HEADER_LIMIT of them: of a header that is longer we
have not seen everything, and add nothing. What we add goes in front, behind our Received field; no byte of the message
changes. From is not ours to invent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from smtpmaild import trace
from smtpmaild.envelope import Destination, Envelope
from smtpmaild.sink import Delivery, Outcome
from smtpmaild.sink.front import Front

#: As much of a header as policies get to see.
HEADER_LIMIT = 64 * 1024
# RFC 5322 §4.5: an obsolete field name may have blanks before its colon.
_DATE = re.compile(rb"^date[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:", re.IGNORECASE | re.MULTILINE)


class CompletingSink(Front):
    """Before a store."""

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Delivery:
        return _CompletingDelivery(super().begin(envelope, destinations, drained), envelope)


class _CompletingDelivery:
    """The seam smtpmaild.sink.Delivery. The first write is our Received field, then comes the message."""

    def __init__(self, delivery: Delivery, envelope: Envelope) -> None:
        self._delivery = delivery
        self._envelope = envelope
        self._is_begun = False
        self._head: bytes | None = b""  # None: it has gone on its way

    def write(self, chunk: bytes) -> bool:
        if self._head is None:
            return self._delivery.write(chunk)
        if not self._is_begun:
            self._is_begun = True
            return self._delivery.write(chunk)
        searched = max(0, len(self._head) - 3)
        self._head += chunk
        if self._head.startswith(b"\r\n"):
            return self._let_go(b"")
        end = self._head.find(b"\r\n\r\n", searched, HEADER_LIMIT)
        if end >= 0:
            return self._let_go(self._head[: end + 2])
        return self._let_go(None) if len(self._head) >= HEADER_LIMIT else True

    def commit(self, done: Callable[[Outcome], None]) -> None:
        if self._head is not None:  # a message that is all header
            self._let_go(self._head)
        self._delivery.commit(done)

    def abort(self) -> None:
        self._delivery.abort()

    def _let_go(self, header: bytes | None) -> bool:
        """header: None where it is too long to know what is missing."""
        assert self._head is not None
        added = b"" if header is None else _missing(header, self._envelope)
        head, self._head = added + self._head, None
        return self._delivery.write(head) if head else True


def _missing(header: bytes, envelope: Envelope) -> bytes:
    date = b"" if _DATE.search(header) else trace.date(envelope)
    message_id = b"" if _MESSAGE_ID.search(header) else trace.message_id(envelope)
    return date + message_id
