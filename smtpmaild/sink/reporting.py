"""A store whose senders are told that their mail has arrived, where they asked for it (RFC 3461 §5.2: NOTIFY=SUCCESS).

It stands before a real store of a listener that offers DSN; who does not ask pays one look at the parameters of the
recipients. The report is put into the queue between the store's commit and the 250: the client waits for both, so no
success that was to be told goes untold. Where the queue cannot take it the mail has arrived all the same, and the log
says that nobody was told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from smtpmaild.envelope import Destination, Envelope, Recipient
from smtpmaild.facts import Log
from smtpmaild.queue import Entry, QueuedMessage, QueuedRecipient, State
from smtpmaild.queue.body import BytesBody
from smtpmaild.queue.dsn import HEADER_LIMIT
from smtpmaild.queue.reports import Action, Reporter, Told
from smtpmaild.sink import Delivery, Outcome, Sink
from smtpmaild.sink.front import Front
from smtpmaild.smtp.reply import Reply

#: Where mail goes that ends here; no attempt is made with it.
_ROUTE = "local"


class Put(Protocol):
    """QueueThread.put."""

    def __call__(self, entry: Entry, done: Callable[[OSError | None], object]) -> None: ...


class ReportingSink(Front):
    """Before a store."""

    def __init__(self, store: Sink, reporter: Reporter, put: Put, log: Log) -> None:
        super().__init__(store)
        self._reporter = reporter
        self._put = put
        self._log = log

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Delivery:
        delivery = super().begin(envelope, destinations, drained)
        if not any(map(_wants_success, envelope.recipients)):
            return delivery
        return _ReportedDelivery(self, delivery, envelope, destinations)

    def report(
        self, message: QueuedMessage, told: Sequence[Told], outcome: Outcome, done: Callable[[Outcome], None]
    ) -> None:
        """Put what tells the sender into the queue, then answer."""
        try:
            reports = [*self._reporter(message, told)]
        except Exception as error:  # a mistake of ours: the mail is stored, and stays so
            self._log.error("report_failed", queue_id=message.queue_id, exc_info=error)
            reports = []

        def put(error: OSError | None) -> None:
            if error is not None:
                self._log.error("report_failed", queue_id=message.queue_id, cause=str(error))
            if reports:
                self._put(reports.pop(), put)
            else:
                done(outcome)

        put(None)


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
            here = [arrived[id(one)] for one in recipient.route.destinations if id(one) in arrived]
            if here and _wants_success(recipient):
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
