"""What the tests of the queue share: mail to put in, and a QueueStore in memory that is slow and simple.

`MemoryQueue` is the reference: the real store must answer as it does, but for the order of fairness. It also stands
in for a store where a test is about something else.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from smtpmaild.envelope import BodyType
from smtpmaild.queue import (
    BY_MX,
    Claim,
    Entry,
    Query,
    QueuedMessage,
    QueuedRecipient,
    Room,
    Settlement,
    State,
    Usage,
)
from smtpmaild.queue.body import BytesBody
from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address, parse_mailbox
from smtpmaild.smtp.reply import Reply

NOW = 1_700_000_000.0
LATER = Reply(451, "4.3.0", "Later")
OK = Reply(250, "2.0.0", "Ok")
NO = Reply(550, "5.1.1", "No such user")
_ids = itertools.count(1)
WAITING = (State.QUEUED, State.DEFERRED, State.IN_DELIVERY)


def address(text: str) -> Address:
    if not text:
        return NULL_REVERSE_PATH
    found = parse_mailbox(text)
    assert found is not None, text
    return found


def entry(
    *recipients: str,
    sender: str = "a@x.example",
    body: bytes = b"Subject: x\r\n\r\nHello\r\n",
    at: float = NOW,
    route: str = BY_MX,
    queue_id: str = "",
    state: State = State.QUEUED,
    user: str = "",
) -> Entry:
    """A message that was received at `at` and is due since then."""
    message = QueuedMessage(
        queue_id=queue_id or f"{next(_ids):018X}",
        reverse_path=address(sender),
        received_at=at,
        body=BytesBody(body),
        body_type=BodyType.EIGHT_BIT_MIME,
        parameters={"ENVID": "e1"},
        user=user,
        listener="mx",
        peer="192.0.2.1:4000",
    )
    each = [
        QueuedRecipient(number, address(text), route, state, {"NOTIFY": "NEVER"}, next_attempt=at)
        for number, text in enumerate(recipients or ("b@y.example",))
    ]
    return message, each


def all_of(claim: Claim, state: State, reply: Reply | None = OK, at: float = NOW) -> tuple[Claim, list[Settlement]]:
    """Every recipient of a claim comes to this end, or is tried again five minutes later."""
    return claim, [
        Settlement(one.number, state, reply, "mx.y.example", at, at + 300 if not state.is_final else 0.0)
        for one in claim.recipients
    ]


@dataclass
class MemoryQueue:
    """The reference. `fails`: what the next verb that writes raises."""

    held: dict[str, tuple[QueuedMessage, list[QueuedRecipient]]] = field(default_factory=dict)
    fails: OSError | None = None

    def _check(self) -> None:
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error

    def open(self) -> None:
        """There is nothing to open."""

    def close(self) -> None:
        """Nor to close."""

    def stop_claiming(self) -> None:
        """Nobody else is there."""

    def put(self, messages: Sequence[Entry]) -> None:
        self.settle((), messages)

    def claim(self, now: float, lease_until: float, limit: int, room: Room) -> Sequence[Claim]:
        self._check()
        left = dict(room.of)
        claims: list[Claim] = []
        for message, recipients in sorted(self.held.values(), key=lambda one: min(r.next_attempt for r in one[1])):
            for destination in sorted({one.destination for one in recipients}):
                due = [
                    one
                    for one in recipients
                    if one.destination == destination and one.state in WAITING and one.next_attempt <= now
                ]
                is_old = message.received_at < room.received_before
                is_old = is_old or (
                    0 < message.deadline <= now and any(one.attempted_at < message.deadline for one in due)
                )
                if due and len(claims) < limit and (is_old or left.setdefault(destination, room.other) > 0):
                    left[destination] = left.get(destination, 0) - 1
                    taken = [replace(one, state=State.IN_DELIVERY, next_attempt=lease_until) for one in due]
                    for one in taken:
                        recipients[one.number] = one
                    claims.append(Claim(message, taken, destination, lease_until))
        return claims

    def settle(self, settled: Sequence[tuple[Claim, Sequence[Settlement]]], new: Sequence[Entry] = ()) -> None:
        self._check()
        for claim, settlements in settled:
            _, recipients = self.held.get(claim.message.queue_id, (None, []))
            for one in settlements:
                if recipients:
                    before = recipients[one.number]
                    is_ours = before.state is State.IN_DELIVERY and before.next_attempt == claim.lease_until
                    if is_ours or (one.state.is_final and not before.state.is_final):
                        recipients[one.number] = self._settled(before, one)
            self._forget(claim.message.queue_id)
        for message, its_recipients in new:
            assert message.queue_id not in self.held
            self.held[message.queue_id] = (message, list(its_recipients))

    def _settled(self, before: QueuedRecipient, one: Settlement) -> QueuedRecipient:
        after = replace(before, state=one.state, next_attempt=one.next_attempt)
        if one.reply is None:
            return after
        return replace(after, attempts=before.attempts + 1, attempted_at=one.at, last=one.reply, remote=one.remote)

    def _forget(self, queue_id: str) -> None:
        if all(one.state.is_final for one in self.held.get(queue_id, (None, []))[1]):
            self.held.pop(queue_id, None)

    def find(self, query: Query) -> Iterator[Entry]:
        found = 0
        for message, recipients in sorted(self.held.values(), key=lambda one: one[0].received_at):
            asked = [one for one in recipients if _matches(query, message, one)]
            if asked and (not query.limit or found < query.limit):
                found += 1
                yield message, asked

    def change(self, query: Query, settlement: Settlement) -> Sequence[Entry]:
        changed = []
        for message, recipients in [*self.find(query)]:
            free = [one for one in recipients if one.state is not State.IN_DELIVERY and not one.state.is_final]
            for one in free:
                self.held[message.queue_id][1][one.number] = self._settled(one, settlement)
            if free:
                changed.append((message, free))
            self._forget(message.queue_id)
        return changed

    def usage(self) -> Usage:
        return Usage(len(self.held), sum(message.body.size for message, _ in self.held.values()))

    def whole_usage(self) -> Usage:
        return self.usage()


def _matches(query: Query, message: QueuedMessage, one: QueuedRecipient) -> bool:
    below, relay = query.below.lower(), query.relay
    return (
        (not below or f".{one.address.domain}".endswith(f".{below}"))
        and (not relay or one.route in (f"relay:{relay}", f"{BY_MX}/{relay}"))
        and (not query.queue_ids or message.queue_id in query.queue_ids)
        and (query.sender is None or message.reverse_path.text.lower() == query.sender.lower())
        and (not query.recipient or one.address.text.lower() == query.recipient.lower())
        and (not query.domain or one.address.domain == query.domain.lower())
        and (not query.states or one.state in query.states)
        and (not query.received_before or message.received_at < query.received_before)
    )
