"""Mail from the queue into our own stores: reports to senders in local domains, what its sender had held back, and what
a store could not take when the message came.

The names of a recipient are looked up at each attempt, and what stores say of the message is the outcome, as it is the
reply to a client: 250 when all of them hold it, else the worst. A body is read in blocks, no faster than the stores
take it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from smtpmaild import queue_id
from smtpmaild.delivery import Outcome, Passed
from smtpmaild.delivery.attempt import attempt
from smtpmaild.delivery.channel import BLOCK
from smtpmaild.envelope import Destination, Envelope, Peer, Recipient, Route, Rule
from smtpmaild.facts import Log
from smtpmaild.outcomes import through_queue
from smtpmaild.queue import QueuedMessage, QueuedRecipient
from smtpmaild.sink import Delivery, Sink
from smtpmaild.sink import Outcome as Stored
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, RECIPIENT_OK, Reply

#: The route of mail to local domains.
LOCAL = "local"
_BY_RULE = Rule("deliver")
NOT_LOCAL = Reply(451, "4.3.5", "The domain is not local any more")
NOT_THERE = Reply(451, "4.3.5", "The address has no place in that store any more")


class StoreAgent:
    """Delivers to local domains.

    find: the Route of an address, None where its domain is not local.  sinks: the stores by name.  queue: the name of
    the one that leads back into the queue: an alias may.  only: the one store that the mail is for, of an address that
    may have several; "" for all.
    """

    def __init__(
        self,
        find: Callable[[Address], Route | None],
        sinks: Mapping[str, Sink],
        queue: str,
        hostname: str,
        log: Log,
        only: str = "",
    ) -> None:
        self._only = only
        self._find = find
        self._sinks = sinks
        self._queue = queue
        self._hostname = hostname
        self._log = log

    async def deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return await attempt(self._log, self._deliver, message, recipients)

    async def close(self) -> None:
        """The stores are not ours."""

    async def _deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return [Outcome(await self._store(message, one), passed=Passed.IN) for one in recipients]

    async def _store(self, message: QueuedMessage, recipient: QueuedRecipient) -> Reply:
        route = self._route(recipient.address)
        if route is None:
            return NOT_LOCAL
        if not route.destinations and route.reply.is_positive:
            return NOT_THERE
        if not route.reply.is_positive:
            return route.reply
        envelope = self._envelope(message, Recipient(recipient.address, route, recipient.parameters))
        by_sink: dict[str, list[Destination]] = {}
        for destination in route.destinations:
            by_sink.setdefault(destination.sink, []).append(destination)
        for name in by_sink:
            trouble = self._sinks[name].unhealthy()
            if trouble is not None:
                return trouble
        copies = [_Copy(self._sinks[name], self._named(name, envelope), to) for name, to in by_sink.items()]
        try:
            await _write(message, copies)
        except BaseException:
            for copy in copies:
                copy.delivery.abort()
            raise
        replies = {name: await copy.commit() for name, copy in zip(by_sink, copies, strict=True)}
        refused = {name: reply for name, reply in replies.items() if not reply.is_positive}
        if refused and len(refused) < len(replies) and await self._is_kept(message, envelope, refused):
            return MESSAGE_ACCEPTED
        return next(iter(refused.values()), MESSAGE_ACCEPTED)

    async def _is_kept(self, message: QueuedMessage, envelope: Envelope, refused: Mapping[str, Reply]) -> bool:
        """Who has it must not get it again with those who could not take it now: these get a message of their own."""
        queue = self._sinks.get(self._queue)
        if queue is None or self._queue in refused or any(reply.is_permanent for reply in refused.values()):
            return False
        (recipient,) = envelope.recipients
        here = tuple(to for to in recipient.route.destinations if to.sink in refused)
        part = replace(recipient, route=replace(recipient.route, destinations=here))
        later = through_queue(part, self._queue, refused)
        copy = _Copy(queue, self._named(self._queue, replace(envelope, recipients=[later])), later.route.destinations)
        try:
            await _write(message, [copy])
        except BaseException:
            copy.delivery.abort()
            raise
        return (await copy.commit()).is_positive

    def _route(self, address: Address) -> Route | None:
        """Where mail for it goes now."""
        route = self._find(address)
        if not self._only:
            return route
        if route is None:  # a relay rule has put it there
            name = address.local_part.casefold()
            here = Destination(self._only, address.domain or self._hostname, name, "", address)
            return Route(_BY_RULE, RECIPIENT_OK, (here,))
        return replace(route, destinations=tuple(to for to in route.destinations if to.sink == self._only))

    def _named(self, sink: str, envelope: Envelope) -> Envelope:
        """What goes back into the queue is another message there."""
        return replace(envelope, queue_id=queue_id.make()) if sink == self._queue else envelope

    def _envelope(self, message: QueuedMessage, recipient: Recipient) -> Envelope:
        return Envelope(
            queue_id=message.queue_id,
            session_id="",
            listener=message.listener,
            hostname=self._hostname,
            peer=Peer(""),
            hello="",
            protocol="",
            received_at=message.received_at,
            reverse_path=message.reverse_path,
            body=message.body_type,
            is_utf8=message.is_utf8,
            parameters=message.parameters,
            recipients=[recipient],
            user=message.user,
        )


class _Copy:
    """The message on its way into one store."""

    def __init__(self, sink: Sink, envelope: Envelope, to: Sequence[Destination]) -> None:
        self._has_room = asyncio.Event()
        self.delivery: Delivery = sink.begin(envelope, to, self._has_room.set)

    async def write(self, block: bytes) -> None:
        """Returns when the store can take more."""
        self._has_room.clear()
        if not self.delivery.write(block):
            await self._has_room.wait()

    async def commit(self) -> Reply:
        stored: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()

        def done(outcome: Stored) -> None:
            if not stored.done():
                stored.set_result(outcome)

        self.delivery.commit(done)
        outcome = await stored
        return outcome if isinstance(outcome, Reply) else min(outcome, key=lambda reply: reply.is_positive)


async def _write(message: QueuedMessage, copies: Sequence[_Copy]) -> None:
    source = await asyncio.to_thread(message.body.open)
    try:
        while block := await asyncio.to_thread(source.read, BLOCK):
            for copy in copies:
                await copy.write(block)
    finally:
        source.close()
