"""The seam of the queue: messages that must travel on, kept until each of their recipients has an end.

A message is put before its 250 and is durable then. The runner claims what is due, an agent (delivery/) tries it, and
`settle` says for each recipient what came of it. A claim is a lease: who died with one gives it back by not renewing
it. So a crash at any point delivers again at worst, and loses nothing.

| state       | what it waits for                      | what a crash leaves | who moves it on                         |
|-------------|----------------------------------------|---------------------|-----------------------------------------|
| queued      | its first attempt                      | queued              | claim                                   |
| in delivery | settle, or the end of the lease        | in delivery         | settle; claim, when the lease is over   |
| deferred    | its next attempt                       | deferred            | claim                                   |
| held        | a person                               | held                | release                                 |
| delivered   | nothing: its message goes with the last recipient that has an end                             |
| bounced     | nothing: refused for good (5yz), the sender is told                                           |
| expired     | nothing: too old, the sender is told                                                          |

The route of a recipient is stored by name (the rule that accepted it) and its target is looked up at each attempt: a
corrected config heals mail that waits.

All verbs block; they are called in threads, never in the event loop's. SQLite now (sqlite.py and the files it names),
a replicated engine later: nothing of SQL leaves them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import BinaryIO, Protocol

from smtpmaild.envelope import NO_PARAMETERS, BodyType
from smtpmaild.smtp import timing
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import Reply


class State(Enum):
    """Where a recipient of a queued message stands."""

    QUEUED = "queued"
    IN_DELIVERY = "in delivery"
    DEFERRED = "deferred"
    HELD = "held"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    EXPIRED = "expired"

    __hash__ = object.__hash__

    @property
    def is_final(self) -> bool:
        """Nothing more will be tried."""
        return self in (State.DELIVERED, State.BOUNCED, State.EXPIRED)


class Body(Protocol):
    """The bytes of a message as it will travel: CRLF line ends, no dot-stuffing, our Received field in front."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def open(self) -> BinaryIO:
        """All of it from the beginning, for reading; small ones from memory, large ones from a file. Blocks."""
        ...


#: The route of mail that goes by the MX records of each recipient's domain; with "/NAME" in a way of its own.
BY_MX = "relay:mx"


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """What all recipients of a message share.

    received_at: seconds since the epoch, when it was accepted.  user, listener, peer: who handed it in, for logs.
    parameters: of MAIL (RET, ENVID, SIZE, BODY, ...; keys in upper case).  is_utf8: it needs SMTPUTF8.
    """

    queue_id: str
    reverse_path: Address
    received_at: float
    body: Body = field(repr=False)
    body_type: BodyType = BodyType.SEVEN_BIT
    is_utf8: bool = False
    parameters: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)
    user: str = ""
    listener: str = ""
    peer: str = ""

    @property
    def flow(self) -> str:
        """Whose mail it is, where senders are to have equal parts: a login's, else that of the sender's domain. With
        how urgent it is, where somebody said so: priority_of() reads it."""
        flow = self.user or self.reverse_path.domain
        if not self.parameters:
            return flow
        priority = timing.priority(self.parameters)
        return f"{flow}{_URGENCY}{priority}" if priority else flow

    @property
    def requires_tls(self) -> bool:
        """It travels within verified TLS or not at all (REQUIRETLS). A report goes on without rather than not at all
        (RFC 8689 §5)."""
        return "REQUIRETLS" in self.parameters and not self.reverse_path.is_null

    @property
    def deadline(self) -> float:
        """When it is to be delivered by (DELIVERBY); 0.0: it may take its time, or was late before it came."""
        by = timing.deliver_by(self.parameters) if self.parameters else None
        return self.received_at + by.seconds if by is not None and by.seconds > 0 else 0.0

    @property
    def released_at(self) -> float:
        """Since when it is tried: since it came, or what its sender had it held back for (FUTURERELEASE) is over."""
        if not self.parameters:
            return self.received_at
        return max(timing.release_at(self.parameters, self.received_at), self.received_at)


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """One forward-path and how far it came.

    number: within its message, from 0.  route: the name of what decides where it goes (queue-wide, such as
    "relay:smarthost").  parameters: of RCPT (NOTIFY, ORCPT).  next_attempt: seconds since the epoch; in delivery the
    end of the lease.  attempted_at: when it was tried last, 0 for never.  last: what that came to.  remote: who said
    so.  accepted_as: the address that the client named, as it wrote it, where an alias led from there to `address`; ""
    where it is the same.
    """

    number: int
    address: Address
    route: str
    state: State = State.QUEUED
    parameters: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)
    attempts: int = 0
    next_attempt: float = 0.0
    attempted_at: float = 0.0
    last: Reply | None = None
    remote: str = ""
    accepted_as: str = ""

    @property
    def destination(self) -> str:
        """What concurrency is counted by: the route, or with it the domain where MX decides ("mx:example.com")."""
        if self.route == BY_MX or self.route.startswith(f"{BY_MX}/"):
            return f"{self.route.removeprefix('relay:')}:{self.address.domain}"
        return self.route


#: Between whose mail a flow is and how urgent it is: hardly a login and no domain has it.
_URGENCY = "\t"
_PRIORITIES = {str(number): number for number in range(-9, 10)}


def priority_of(flow: str) -> int:
    """How urgent the mail of a flow is, from -9 to 9 (RFC 6710)."""
    return _PRIORITIES.get(flow.rpartition(_URGENCY)[2], 0) if _URGENCY in flow else 0


#: A message with some or all of its recipients.
Entry = tuple[QueuedMessage, Sequence[QueuedRecipient]]


@dataclass(frozen=True, slots=True)
class Claim:
    """Work that is ours until the lease ends: a message, and those of its recipients that go to one destination."""

    message: QueuedMessage
    recipients: Sequence[QueuedRecipient]
    destination: str
    lease_until: float


#: The next attempt of what a person wants tried now: even where nobody answered a moment ago, one message is.
AT_ONCE = 0.0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of one recipient of a claim: its new state, and why.

    reply: what was said; None: nothing was tried, what was said before stays.  remote: who said it.  at: when, in
    seconds since the epoch.  next_attempt: for DEFERRED; for IN_DELIVERY, which renews the lease, its new end.
    """

    number: int
    state: State
    reply: Reply | None = None
    remote: str = ""
    at: float = 0.0
    next_attempt: float = 0.0


@dataclass(frozen=True, slots=True)
class Room:
    """How many claims each destination may get.

    of: destinations that are known.  other: each of those that are not.  received_before: mail that was accepted
    before this time is claimed whatever room there is: it is too old to be tried.  Where mail waits that is to be tried
    AT_ONCE, there is room for one claim more than none, once for each time that somebody said so.
    """

    of: Mapping[str, int] = field(default_factory=dict)
    other: int = 1
    received_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Query:
    """Which recipients: all conditions together; an empty one asks nothing.

    queue_ids: of messages.  sender, recipient: addresses, compared without case; sender "" is the null sender.
    domain: of the recipient.  below: the same, or any domain below it.  relay: what takes it on, a name under relays.
    received_before: seconds since the epoch; 0 for any time.  limit: of messages; 0 for all.
    """

    queue_ids: Collection[str] = ()
    sender: str | None = None
    recipient: str = ""
    domain: str = ""
    states: Collection[State] = ()
    received_before: float = 0.0
    limit: int = 0
    below: str = ""
    relay: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """How much there is in a queue: messages, and the bytes of their bodies."""

    messages: int
    size: int


class QueueStore(Protocol):
    """Where the queue lives. What a verb changed is durable when it returns; OSError where it could not be."""

    def open(self) -> None:
        """In the process that will use it, before any verb."""
        ...

    def close(self) -> None:
        """Let go of everything; what we claimed and did not settle is free for others."""
        ...

    def stop_claiming(self) -> None:
        """Let another process claim what this one could. What is claimed is settled by now."""
        ...

    def put(self, messages: Sequence[Entry]) -> None:
        """Take messages in, all or none of them."""
        ...

    def claim(self, now: float, lease_until: float, limit: int, room: Room) -> Sequence[Claim]:
        """At most `limit` claims that are due, fair between destinations and, within one, between flows.

        Urgent flows come before others, most of the time. Of one flow to one destination the longest waiting comes
        first. What was not tried since its deadline came is claimed whatever room there is. A lease that is lost in a
        crash is no loss.
        """
        ...

    def settle(self, settled: Sequence[tuple[Claim, Sequence[Settlement]]], new: Sequence[Entry] = ()) -> None:
        """What became of claims; with it, all or none, messages that come of it are taken in.

        An end always counts; anything else only while the claim is still ours. A message whose recipients all have an
        end is gone with it, its body too.
        """
        ...

    def find(self, query: Query) -> Iterable[Entry]:
        """Messages with those of their recipients that the query asks for, oldest first."""
        ...

    def change(self, query: Query, settlement: Settlement) -> Sequence[Entry]:
        """A person's word on the recipients that the query asks for and that are not in delivery: as settle() does,
        whatever the number. What they were before."""
        ...

    def usage(self) -> Usage:
        """How much there is for us, nearly: other processes may have changed it a moment ago. Does not block."""
        ...

    def whole_usage(self) -> Usage:
        """The same of all workers together."""
        ...
