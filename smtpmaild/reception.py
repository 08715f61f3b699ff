"""A message on its way into the stores: from DATA to the reply to its end.

Each store that the message is for begins a delivery and gets our Received field, then the body as it comes. At the end
of data each is asked to keep it; when all have answered, the worst that they say is the reply, under LMTP one for each
recipient. Where there are several stores and a queue, a reserve goes along for those that cannot take their part now.

Knows no policy, no command and no session: whether there is a message at all, and what is said where all went well, is
receiver.py's to decide. Stores call back in the loop's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from smtpmaild import trace
from smtpmaild.content import Content
from smtpmaild.envelope import Destination, Transaction
from smtpmaild.outcomes import deferred_stores, replies_by_recipient, worst_reply
from smtpmaild.reserve import Reserve
from smtpmaild.service import WAIT, Result, Service
from smtpmaild.sink import Delivery, Outcome
from smtpmaild.smtp.reply import Reply

#: One for the message, or under LMTP one for each recipient.
Replies = Reply | tuple[Reply, ...]


class Reception:
    """One message. It ends by commit() or by abort(), which may come at any time: what is being kept then is kept.

    by_sink: what is for each store.  troubles: under LMTP, stores that could not take it from the beginning.  content:
    what policies see of it.  resume: called with what commit() could only answer with WAIT, and with None when more can
    be written.  concluded: called once with the answer, before it is given.

    stores: how many there are.  refusal: a verdict on the way; the rest of the body is read and dropped.  refused_by:
    who gave it.
    """

    __slots__ = (
        "_answers_later", "_concluded", "_deliveries", "_ended_at", "_full", "_outcomes", "_reserve", "_resume",
        "_service", "_transaction", "_troubles", "content", "refusal", "refused_by", "stores",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        transaction: Transaction,
        by_sink: Mapping[str, Sequence[Destination]],
        troubles: Mapping[str, Reply],
        content: Content,
        resume: Callable[[Result], None],
        concluded: Callable[[Transaction, Replies, Content, int], None],
    ) -> None:
        self.content = content
        self.refusal: Reply | None = None
        self.refused_by = ""
        self.stores = len(by_sink)
        self._service = service
        self._transaction = transaction
        self._troubles = troubles
        self._resume = resume
        self._concluded = concluded
        self._full = 0  # deliveries that asked for a break
        self._outcomes: dict[str, Outcome] = {}  # what the stores said so far
        self._answers_later = False  # commit() has answered with WAIT
        self._ended_at = 0.0  # when the stores were asked to keep it
        self._reserve: Reserve | None = None
        envelope, sinks = transaction.envelope, service.sinks
        self._deliveries: list[tuple[str, Delivery]] = [
            (name, sinks[name].begin(envelope, to, self._drained)) for name, to in by_sink.items()
        ]
        received = trace.received(envelope, hides_client=service.hides_client)
        for _, delivery in self._deliveries:
            delivery.write(received)
        if self.stores > 1 and service.queue and not envelope.is_lmtp:
            self._reserve = Reserve(sinks[service.queue], service.queue, envelope, self._drained)
            self._reserve.write(received)

    def write(self, chunk: bytes) -> bool:
        """A piece of the body. False: a store asks for a break, and `resume` is called when it is over."""
        self.content.write(chunk)
        for _, delivery in self._deliveries:
            self._full += not delivery.write(chunk)
        if self._reserve is not None:
            self._full += not self._reserve.write(chunk)
        return not self._full

    def _drained(self) -> None:
        """A delivery that asked for a break can take more."""
        if self._full:
            self._full -= 1
            if not self._full:
                self._resume(None)

    def refuse(self, refusal: Reply, by: str) -> None:
        """No store shall have it, though its body has not ended."""
        self.refusal, self.refused_by = refusal, by
        self.abort()

    def abort(self) -> None:
        """Forget it. What a store is keeping already it keeps, and the end is logged, but nobody waits for that."""
        self._resume = nobody_waits
        if self._reserve is not None:
            self._reserve.abort()
            self._reserve = None
        for _, delivery in self._deliveries:
            delivery.abort()
        self._deliveries = []
        self.content.close()

    def commit(self, success: Reply) -> Result:
        """All of it is here: the answer of the stores, WAIT where it comes later. success: where all keep it."""
        self._ended_at = time.time()

        def done(sink: str, outcome: Outcome) -> None:
            self._outcomes[sink] = outcome
            if self._answers_later and len(self._outcomes) == self.stores:
                self._resume(self._stored(success))

        while self._deliveries:
            sink, delivery = self._deliveries.pop(0)
            delivery.commit(partial(done, sink))  # from here on the store's own: nobody may abort it
        if len(self._outcomes) == self.stores:
            return self._stored(success)
        self._answers_later = True
        return WAIT

    def _stored(self, success: Reply) -> Result:
        """All stores have answered: the worst of their replies is the reply to the message.

        Under LMTP to each recipient the worst of those that concern it.
        """
        self.content.close()
        self._service.metrics.commit_seconds.observe(time.time() - self._ended_at)
        envelope = self._transaction.envelope
        if envelope.is_lmtp:
            found = replies_by_recipient(envelope.recipients, self._outcomes, self._troubles)
            return self._conclude(tuple(success if one is None or one.is_positive else one for one in found))
        worst = worst_reply(self._outcomes.values())
        reply = success if worst is None or worst.is_positive else worst
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            stores = deferred_stores(self._outcomes)
            if stores and self._service.queue not in stores:
                return self._keep(reserve, stores, success, reply)
            reserve.abort()
        return self._conclude(reply)

    def _keep(self, reserve: Reserve, stores: Collection[str], success: Reply, failure: Reply) -> Result:
        """Some stores have the message, and these could not take it: they get it from the queue."""
        answers: list[Result] = []
        is_late = False

        def taken(outcome: Outcome) -> None:
            worst = worst_reply((outcome,))
            is_kept = worst is None or worst.is_positive
            self._service.log.warning(
                "stores_deferred",
                queue_id=self._transaction.envelope.queue_id,
                queued_as=reserve.queue_id if is_kept else "",
                stores=sorted(stores),
                reply=str(failure),
            )
            answers.append(self._conclude(success if is_kept else failure))
            if is_late:
                self._resume(answers[0])

        reserve.take(stores, taken)
        if answers:
            return answers[0]
        is_late = True
        return WAIT

    def _conclude(self, replies: Replies) -> Result:
        self._concluded(self._transaction, replies, self.content, self.content.size)
        return replies


def nobody_waits(result: Result) -> None:
    """In place of `resume` once nobody waits."""
