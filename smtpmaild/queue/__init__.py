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

All verbs block; they are called in threads, never in the event loop's. SQLite now (sqlite.py), a replicated engine
later: nothing of SQL leaves that file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import BinaryIO, Protocol

from smtpmaild.envelope import BodyType
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
    parameters: dict[str, str] = field(default_factory=dict)
    user: str = ""
    listener: str = ""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """One forward-path and how far it came.

    number: within its message, from 0.  route: the name of what decides where it goes (queue-wide, such as
    "relay:smarthost").  parameters: of RCPT (NOTIFY, ORCPT).  next_attempt: seconds since the epoch.  last: what the
    last attempt came to, None before the first.  remote: who said so.
    """

    number: int
    address: Address
    route: str
    state: State = State.QUEUED
    parameters: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    next_attempt: float = 0.0
    last: Reply | None = None
    remote: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """Work that is ours until the lease ends: a message, and those of its recipients that go to one destination.

    destination: what concurrency is counted by: a relay's name, or the recipients' domain where MX decides.
    """

    message: QueuedMessage
    recipients: Sequence[QueuedRecipient]
    destination: str
    lease_until: float


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of one recipient of a claim: its new state, and why.

    next_attempt: for DEFERRED, seconds since the epoch.  reply: what was said.  remote: by whom.
    """

    number: int
    state: State
    reply: Reply
    remote: str = ""
    next_attempt: float = 0.0


@dataclass(frozen=True, slots=True)
class Query:
    """Which recipients: all conditions together; an empty one asks nothing.

    queue_ids: of messages.  sender, recipient: addresses, compared without case.  domain: of the recipient.
    older_than: seconds since it was received.
    """

    queue_ids: Collection[str] = ()
    sender: str | None = None
    recipient: str = ""
    domain: str = ""
    states: Collection[State] = ()
    older_than: float = 0.0
    limit: int = 0


class QueueStore(Protocol):
    """Where the queue lives. Every verb is durable when it returns; OSError where it could not be."""

    def put(self, messages: Sequence[tuple[QueuedMessage, Sequence[QueuedRecipient]]]) -> None:
        """Take messages in, all or none of them."""
        ...

    def claim(self, now: float, lease_until: float, limit: int, busy: Collection[str]) -> Sequence[Claim]:
        """At most `limit` claims that are due, the longest waiting first, none for a destination in `busy`."""
        ...

    def settle(self, settled: Sequence[tuple[Claim, Sequence[Settlement]]]) -> None:
        """What became of claims. A message whose recipients all have an end is gone with it, its body too."""
        ...

    def find(self, query: Query) -> Iterable[tuple[QueuedMessage, Sequence[QueuedRecipient]]]:
        """Messages with those of their recipients that the query asks for, oldest first."""
        ...
