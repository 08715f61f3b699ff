"""Which stores a message needs, and what their answers mean for the client: pure functions of a transaction.

SMTP has one reply for a message, the worst of all. LMTP (RFC 2033) has one for each recipient, the worst of the stores
that this recipient needs; a recipient with several, by an alias, is served when all of them hold the message.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

from smtpmaild.envelope import Destination, Recipient
from smtpmaild.sink import STORE_ROUTE, Outcome
from smtpmaild.smtp.reply import Reply

_WORSE = {2: 0, 3: 0, 5: 1, 4: 2}


def destinations_by_sink(recipients: Collection[Recipient]) -> dict[str, list[Destination]]:
    """Sink -> what is for it, in the order of the recipients."""
    by_sink: dict[str, list[Destination]] = {}
    for recipient in recipients:
        for destination in recipient.route.destinations:
            by_sink.setdefault(destination.sink, []).append(destination)
    return by_sink


def without_trouble(recipients: Collection[Recipient], troubles: Mapping[str, Reply]) -> list[Recipient]:
    """Those who need no store that is in trouble: of what the others would get, nothing is stored anywhere."""
    return [each for each in recipients if not any(to.sink in troubles for to in each.route.destinations)]


def replies_by_recipient(
    recipients: Sequence[Recipient], outcomes: Mapping[str, Outcome], troubles: Mapping[str, Reply]
) -> Iterator[Reply | None]:
    """For each recipient the worst reply of the stores it needed, None where it needed none.

    outcomes: of each sink, whose destinations were given to it in the order of the recipients.
    """
    remaining = {sink: repeat(said) if isinstance(said, Reply) else iter(said) for sink, said in outcomes.items()}
    for recipient in recipients:
        sinks = [destination.sink for destination in recipient.route.destinations]
        refusals = [troubles[sink] for sink in sinks if sink in troubles]
        yield worst_reply(refusals or [next(remaining[sink]) for sink in sinks])


def through_queue(recipient: Recipient, queue: str, stores: Collection[str]) -> Recipient:
    """The same, with a way through the queue in place of each of these stores: it gets its part from there."""
    route, address = recipient.route, recipient.address
    others = [to for to in route.destinations if to.sink not in stores]
    ways = dict.fromkeys([to.sink for to in route.destinations if to.sink in stores])
    later = [
        Destination(queue, address.domain, address.local_part, "", address, f"{STORE_ROUTE}{store}") for store in ways
    ]
    return replace(recipient, route=replace(route, destinations=(*others, *later)))


def deferred_stores(outcomes: Mapping[str, Outcome]) -> set[str]:
    """Stores that could not take a message now, where another one has it already; empty where it can be sent again."""
    worst = {store: worst_reply((said,)) for store, said in outcomes.items()}
    deferred = {store for store, reply in worst.items() if reply is not None and 400 <= reply.code < 500}
    is_somewhere = any(reply is not None and reply.is_positive for reply in worst.values())
    return deferred if is_somewhere else set()


def worst_reply(outcomes: Iterable[Outcome]) -> Reply | None:
    """The reply a SMTP client gets for several stores: 4yz before 5yz before 2yz.

    A temporary failure wins: the client tries again, and nothing is lost that a store did not have.
    """
    replies = [reply for outcome in outcomes for reply in ((outcome,) if isinstance(outcome, Reply) else outcome)]
    return max(replies, key=badness, default=None)


def badness(reply: Reply) -> int:
    """How much worse a reply is than success."""
    return _WORSE[reply.code // 100]
