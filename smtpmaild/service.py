"""What the receiver is given and what it gives back: the values that those who build and drive it share with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from smtpmaild.auth import Authenticator
from smtpmaild.envelope import IpAddress, Session
from smtpmaild.facts import Log, Remember
from smtpmaild.metrics import Metrics
from smtpmaild.policy.chain import Chain, Step
from smtpmaild.routing import Router
from smtpmaild.sink import Sink
from smtpmaild.smtp.extension import Dialect
from smtpmaild.smtp.reply import Reply


class Wait(Enum):
    """The answer comes later, through the `resume` function of the receiver."""

    WAIT = "wait"


WAIT: Final = Wait.WAIT
#: None: the event takes no reply (a piece of a body), go on.  A tuple: one reply for each recipient, under LMTP.
Result = Reply | tuple[Reply, ...] | Wait | None
#: A client's address -> its name in the DNS, "" for none; or an awaitable of it.
LookUp = Callable[[IpAddress], str | Awaitable[str]]
#: (session, verb, reply) -> the reply to send instead: what an extension makes of it.
ReplyFilter = Callable[[Session, str, Reply], Reply]


@dataclass(frozen=True, slots=True)
class Service:
    """What the sessions of one listener share; made by app/ or embedding/, never changed.

    verbs: what extensions answer themselves.  filters: verb -> functions that may change its reply.  authenticator:
    who knows the accounts; None where nobody can sign in.  recipient_steps: under LMTP, who is asked at the end of data
    about each recipient: the callbacks of a program, which has no stores.  hides_client: Received tells nothing of it.
    client_names: finds a client's name in the DNS; None where nobody wants to know.  record: told of messages and
    sessions in place of the log, which it tells; None where no history is kept.  queue: the name of the one among the
    sinks that is the queue, "" where there is none.  most_urgent: the highest priority that a client may give its mail
    (MT-PRIORITY).
    """

    listener: str
    dialect: Dialect
    chain: Chain
    router: Router
    sinks: Mapping[str, Sink]
    log: Log
    metrics: Metrics
    verbs: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    filters: Mapping[str, Sequence[ReplyFilter]] = field(default_factory=dict)
    authenticator: Authenticator | None = None
    recipient_steps: tuple[Step, ...] = ()
    hides_client: bool = False
    client_names: LookUp | None = None
    record: Remember | None = None
    queue: str = ""
    most_urgent: Callable[[Session], int] = field(default=lambda _: 0)
