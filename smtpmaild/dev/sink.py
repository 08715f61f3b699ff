"""The store behind the catcher: messages end in an `Inbox`, in memory, as they were sent.

The Received field, which the receiver puts in front of every message, is left out: who tests mail wants to see his own
octets. What is on its way counts as well: together no more than the inbox may hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from smtpmaild.dev.caught import Caught
from smtpmaild.dev.inbox import Inbox
from smtpmaild.envelope import Destination, Envelope, Route, Rule, Transaction
from smtpmaild.sink import Delivery, Outcome, Post
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, RECIPIENT_OK, Reply

INBOX: Final = "inbox"
_FULL = Reply(452, "4.3.1", "Too many messages come in at once")


class Everybody:
    """The Router: every recipient is one of ours."""

    def route(self, transaction: Transaction, forward_path: Address) -> Route:
        """As the seam says."""
        destination = Destination(INBOX, forward_path.domain, forward_path.local_part, "", forward_path)
        return Route(_RULE, RECIPIENT_OK, (destination,))


_RULE = Rule("everybody")


class InboxSink:
    """The Sink of a catcher."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.octets = 0  # on their way

    def prepare(self) -> None:
        """Nothing to prepare."""

    def start(self, post: Post) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def unhealthy(self) -> Reply | None:
        """As the seam says: while others bring too much."""
        return _FULL if self.is_full else None

    @property
    def is_full(self) -> bool:
        """More is on its way than the inbox may hold."""
        return self.octets > self.inbox.bounds.octets

    def locate(self, destination: Destination) -> str:
        """As the seam says."""
        return "(memory)"

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Delivery:
        """As the seam says."""
        return _Arriving(self, envelope)


class _Arriving:
    """One message on its way in."""

    def __init__(self, sink: InboxSink, envelope: Envelope) -> None:
        self._sink = sink
        self._envelope = envelope
        self._chunks: list[bytes] | None = None  # None: the Received field is still to come
        self._octets = 0
        self._is_too_much = False

    def write(self, chunk: bytes) -> bool:
        """As the seam says."""
        if self._chunks is None:
            self._chunks = []
        elif not self._is_too_much:
            self._chunks.append(chunk)
            self._count(len(chunk))
            if self._sink.is_full:
                self._is_too_much = True
                self._forget()
        return True

    def commit(self, done: Callable[[Outcome], None]) -> None:
        """As the seam says; done() is called before it returns."""
        if self._is_too_much:
            done(_FULL)
            return
        raw = b"".join(self._chunks or ())
        self._forget()
        self._sink.inbox.add(Caught.of(self._envelope, raw))
        done(MESSAGE_ACCEPTED)

    def abort(self) -> None:
        """As the seam says."""
        self._forget()

    def _count(self, octets: int) -> None:
        self._octets += octets
        self._sink.octets += octets

    def _forget(self) -> None:
        self._count(-self._octets)
        self._chunks = []
