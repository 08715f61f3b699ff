"""A store whose senders are told that their mail has arrived, where they asked for it (RFC 3461 §5.2: NOTIFY=SUCCESS).

It stands before the stores of a listener that offers DSN, the queue among them; who does not ask pays one look at the
parameters of the recipients. The report is made in the queue's thread, and put into the queue between the store's
commit and the 250: the client waits for both. Where the queue cannot take it now the mail has arrived all the same, and
the report is tried again.

An address with several places behind it is not delivered to but `expanded` (RFC 3461 §5.2.7.2): who has the first of
them tells it, once, and what travels on from there reports no success.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from smtpmaild.envelope import Destination, Envelope, Recipient
from smtpmaild.queue import Entry, QueuedMessage, QueuedRecipient, State
from smtpmaild.queue.body import BytesBody
from smtpmaild.queue.dsn import HEADER_LIMIT
from smtpmaild.queue.reports import Action, Reporter, Told
from smtpmaild.sink import Delivery, Outcome, Sink
from smtpmaild.sink.front import Front
from smtpmaild.smtp.reply import Reply

#: Where mail goes that ends here; no attempt is made with it.
_ROUTE = "local"


class Tell(Protocol):
    """QueueThread.tell."""

    def __call__(self, make: Callable[[], Sequence[Entry]], done: Callable[[OSError | None], object]) -> None: ...


class ReportingSink(Front):
    """Before a store. is_queue: it is none where mail arrives."""

    def __init__(self, store: Sink, reporter: Reporter, tell: Tell, *, is_queue: bool = False) -> None:
        super().__init__(store)
        self._reporter = reporter
        self._tell = tell
        self.is_queue = is_queue

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Delivery:
        delivery = super().begin(envelope, destinations, drained)
        if not any(map(_wants_success, envelope.recipients)):
            return delivery
        return _ReportedDelivery(self, delivery, envelope, destinations)

    def report(
        self, message: QueuedMessage, told: Sequence[Told], outcome: Outcome, done: Callable[[Outcome], None]
    ) -> None:
        """Have the sender told, then answer."""
        self._tell(partial(self._reporter, message, told), lambda _: done(outcome))


class _ReportedDelivery:
    """The seam smtpmaild.sink.Delivery. Keeps the header, which reports give back."""

    def __init__(
        self, sink: ReportingSink, delivery: Delivery, envelope: Envelope, destinations: Sequence[Destination]
    ) -> None:
        self._sink = sink
        self._delivery = delivery
        self._envelope = envelope
        self._destinations = destinations
        self._head = b""

    def write(self, chunk: bytes) -> bool:
        if len(self._head) < HEADER_LIMIT and b"\r\n\r\n" not in self._head:
            self._head += chunk[: HEADER_LIMIT - len(self._head)]
        return self._delivery.write(chunk)

    def commit(self, done: Callable[[Outcome], None]) -> None:
        def stored(outcome: Outcome) -> None:
            told = [*self._told(outcome)]
            if told:
                self._sink.report(_message(self._envelope, self._head), told, outcome, done)
            else:
                done(outcome)

        self._delivery.commit(stored)

    def abort(self) -> None:
        self._delivery.abort()

    def _told(self, outcome: Outcome) -> list[Told]:
        """Recipients whose mail is here, each once, however many places an alias led to."""
        replies = [outcome] * len(self._destinations) if isinstance(outcome, Reply) else outcome
        arrived = {
            id(destination): reply
            for destination, reply in zip(self._destinations, replies, strict=True)
            if reply.is_positive
        }
        found = []
        for number, recipient in enumerate(self._envelope.recipients):
            places = recipient.route.destinations
            here = [arrived[id(one)] for one in places if id(one) in arrived]
            if not here or not _wants_success(recipient):
                continue
            if len(places) > 1:
                if id(places[0]) in arrived:
                    found.append(Told(Action.EXPANDED, _delivered(number, recipient, here[0])))
            elif not self._sink.is_queue:
                found.append(Told(Action.DELIVERED, _delivered(number, recipient, here[0])))
        return found


def _wants_success(recipient: Recipient) -> bool:
    return bool(recipient.parameters) and "SUCCESS" in recipient.parameters.get("NOTIFY", "").upper()


def _delivered(number: int, recipient: Recipient, reply: Reply) -> QueuedRecipient:
    return QueuedRecipient(
        number,
        recipient.address,
        _ROUTE,
        State.DELIVERED,
        recipient.parameters,
        attempts=1,
        attempted_at=time.time(),
        last=reply,
    )


def _message(envelope: Envelope, head: bytes) -> QueuedMessage:
    return QueuedMessage(
        queue_id=envelope.queue_id,
        reverse_path=envelope.reverse_path,
        received_at=envelope.received_at,
        body=BytesBody(head),
        body_type=envelope.body,
        is_utf8=envelope.is_utf8,
        parameters=envelope.parameters,
        user=envelope.user,
        listener=envelope.listener,
        peer=str(envelope.peer),
    )
