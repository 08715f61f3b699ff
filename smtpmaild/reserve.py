"""A copy of a message that is for several stores, in case one of them cannot take it now and another one has.

The client of such a message would send all of it again, and who has it would get it twice. So a copy goes along to the
queue, which forgets it when the stores agree; where they do not, it keeps the part of those that could not, and they
get it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from smtpmaild import queue_id
from smtpmaild.envelope import Destination, Envelope
from smtpmaild.outcomes import destinations_by_sink, through_queue
from smtpmaild.sink import Delivery, Outcome, Sink


class Reserve:
    """One message. name: what the queue is called among the stores. Exactly one of take() and abort() ends it."""

    def __init__(self, queue: Sink, name: str, envelope: Envelope, drained: Callable[[], None]) -> None:
        self._name = name
        self._recipients = envelope.recipients
        # It may be in the queue as well, for those who are elsewhere: this is another message there.
        self._envelope = replace(envelope, queue_id=queue_id.make(), recipients=[])
        self._destinations: list[Destination] = []  # read by the queue when it commits
        self._delivery: Delivery = queue.begin(self._envelope, self._destinations, drained)

    @property
    def queue_id(self) -> str:
        """As the queue will call it."""
        return self._envelope.queue_id

    def write(self, chunk: bytes) -> bool:
        """As Delivery.write."""
        return self._delivery.write(chunk)

    def take(self, stores: Collection[str], done: Callable[[Outcome], None]) -> None:
        """Keep the part of these stores; done() as Delivery.commit has it."""
        for recipient in self._recipients:
            here = [to for to in recipient.route.destinations if to.sink in stores]
            if here:
                part = replace(recipient, route=replace(recipient.route, destinations=tuple(here)))
                self._envelope.recipients.append(through_queue(part, self._name, stores))
        for destinations in destinations_by_sink(self._envelope.recipients).values():
            self._destinations.extend(destinations)
        self._delivery.commit(done)

    def abort(self) -> None:
        """All stores have said the same."""
        self._delivery.abort()
