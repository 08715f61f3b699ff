"""Failures that somebody chose: a policy that refuses, drops or stalls sessions where it was told to.

A failure is written STAGE=ACTION[:CONDITION]..., in the command line, in the JSON API and for `parse`:

    rcpt=451                every recipient is answered 451
    message=554:10%         one message in ten (0.1 is the same)
    mail=421:2x             the next two times, and then no more
    rcpt=550:*@example.org  recipients like this one; the last three conditions go together
    data=drop               the connection is closed without a word
    data=stall              nothing is answered, for ten minutes

A message may ask for its own failure, too: by the word fail-ACTION or fail-ACTION-STAGE in the local part of an address
(fail-550-rcpt@example.org) or in its Subject, where the end of the message is meant.

`Failures` may be changed from any thread; sessions ask it in theirs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from smtpmaild.content import Content
from smtpmaild.dev.reading import subject_of
from smtpmaild.envelope import Session, Transaction
from smtpmaild.policy import Answer, Policy
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import Reply

STAGES: Final = ("connect", "helo", "auth", "mail", "rcpt", "data", "message")
DROP, STALL = "drop", "stall"
#: Longer than any client waits: the longest timeout of RFC 5321 §4.5.3.2 is ten minutes.
STALL_SECONDS = 660.0

#: Where no address is known yet.
_BEFORE_ADDRESSES = frozenset(("connect", "helo", "auth"))
#: Replies to these carry no enhanced status code (RFC 2034 §4).
_PLAIN = frozenset(("connect", "helo"))
# fail-451, fail-451-rcpt, fail-drop-message; a word of its own.
_TRIGGER = re.compile(
    r"(?<![a-z0-9])fail-(?P<action>[45][0-9]{2}|drop|stall)(?:-(?P<stage>mail|rcpt|data|message))?(?![a-z0-9])",
    re.ASCII | re.IGNORECASE,
)
_WRITTEN = re.compile(r"(?P<stage>[a-z]+)=(?P<action>[a-z0-9]+)(?P<conditions>(?::[^:]+)*)", re.ASCII)
_TIMES = re.compile(r"([1-9][0-9]{0,5})x", re.ASCII)
_PROBABILITY = re.compile(r"([0-9]{0,3}(?:\.[0-9]{1,6})?)(%?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure that is to happen.

    stage: one of STAGES.  action: a reply code from 400 to 599, or DROP, or STALL.  probability: from 0 to 1.  times:
    how often at most, 0 for always.  address: what a recipient (the sender, at the stage mail) must look like, with
    * and ?; "" for any.  text: of the reply.  Raises ValueError for what cannot be.
    """

    stage: str
    action: int | str
    probability: float = 1.0
    times: int = 0
    address: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"there is no stage {self.stage!r}, only {', '.join(STAGES)}")
        is_code = isinstance(self.action, int) and 400 <= self.action <= 599
        if not (is_code or self.action in (DROP, STALL)):
            raise ValueError(f"a failure is a reply code from 400 to 599, drop or stall, not {self.action!r}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"a probability is a number from 0 to 1, or from 0% to 100%, not {self.probability:g}")
        if self.address and self.stage in _BEFORE_ADDRESSES:
            raise ValueError(f"at the stage {self.stage} no address is known yet")

    def __str__(self) -> str:
        """As parse() reads it."""
        conditions = [
            f"{self.probability:g}" if self.probability < 1 else "",
            f"{self.times}x" if self.times else "",
            self.address,
        ]
        return ":".join([f"{self.stage}={self.action}", *filter(None, conditions)])

    @property
    def reply(self) -> Reply:
        """What is answered, where something is."""
        assert isinstance(self.action, int), "a dropped session hears nothing"
        enhanced = "" if self.stage in _PLAIN else f"{self.action // 100}.0.0"
        return Reply(self.action, enhanced, self.text or f"Failure chosen at {self.stage}")


def parse(text: str) -> Failure:
    """A failure as people write it. Raises ValueError, its text is for them."""
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not STAGE=CODE[:CONDITION], such as rcpt=451:0.1 or message=drop")
    action = found["action"]
    probability, times, address = 1.0, 0, ""
    for condition in found["conditions"].split(":")[1:]:
        if match := _TIMES.fullmatch(condition):
            times = int(match[1])
        elif "@" in condition:
            address = condition
        elif match := _PROBABILITY.fullmatch(condition):
            probability = float(match[1] or "nan") / (100 if match[2] else 1)
        else:
            raise ValueError(f"{condition!r} is no probability (0.1, 10%), no number of times (2x) and no address")
    return Failure(found["stage"], int(action) if action.isdecimal() else action, probability, times, address)


@dataclass(slots=True)
class Chosen:
    """A failure that is in force. hits: how often it has happened."""

    failure: Failure
    hits: int = 0

    @property
    def is_used_up(self) -> bool:
        """It has happened as often as it should."""
        return 0 < self.failure.times <= self.hits


@dataclass
class Failures(Policy):
    """The failures of one server.

    draw: a random number from 0 to 1.  pause: waits so many seconds.  drop: closes the connection of a session.
    """

    draw: Callable[[], float]
    pause: Callable[[float], Awaitable[object]]
    drop: Callable[[Session], None]
    _chosen: tuple[Chosen, ...] = field(default=())

    name = "failures"

    @property
    def chosen(self) -> Sequence[Chosen]:
        """Those in force, in the order in which they are asked."""
        return tuple(one for one in self._chosen if not one.is_used_up)

    def add(self, failure: Failure) -> Chosen:
        """Let one more happen; what is returned counts how often it did."""
        chosen = Chosen(failure)
        self._chosen = (*self.chosen, chosen)
        return chosen

    def replace(self, failures: Sequence[Failure]) -> None:
        """Let these happen and no others."""
        self._chosen = tuple(map(Chosen, failures))

    # The stages, as the seam of policies says.

    def connect(self, session: Session) -> Answer:
        """As the seam says."""
        return self.at("connect", session)

    def helo(self, session: Session) -> Answer:
        """As the seam says."""
        return self.at("helo", session)

    def mail(self, transaction: Transaction) -> Answer:
        """As the seam says."""
        return self.at("mail", transaction.session, transaction.envelope.reverse_path)

    def rcpt(self, transaction: Transaction, forward_path: Address) -> Answer:
        """As the seam says. What the sender's address asks for recipients is asked of each."""
        sender = _asked_by(transaction.envelope.reverse_path, "mail")
        return self.at("rcpt", transaction.session, forward_path, also=sender)

    def data(self, transaction: Transaction) -> Answer:
        """As the seam says."""
        return self._with_addresses("data", transaction)

    def message(self, transaction: Transaction, content: Content) -> Answer:
        """As the seam says."""
        return self._with_addresses("message", transaction, _asked(subject_of(content.header), "message"))

    def _with_addresses(self, stage: str, transaction: Transaction, also: Sequence[Failure] = ()) -> Answer:
        envelope = transaction.envelope
        recipients = [recipient.address for recipient in envelope.recipients]
        also = [*_asked_by(envelope.reverse_path, "mail"), *also]
        return self.at(stage, transaction.session, *recipients, also=also)

    def at(self, stage: str, session: Session, *addresses: Address, also: Sequence[Failure] = ()) -> Answer:
        """What happens to this session now, if anything. also: what this one message asks for itself."""
        for one in self._chosen:
            if self._happens(one, stage, addresses):
                one.hits += 1
                return self._carry_out(one.failure, session)
        own = [*also, *(failure for address in addresses for failure in _asked_by(address, _DEFAULT_STAGE[stage]))]
        return next((self._carry_out(failure, session) for failure in own if failure.stage == stage), None)

    def _happens(self, chosen: Chosen, stage: str, addresses: Sequence[Address]) -> bool:
        failure = chosen.failure
        if failure.stage != stage or chosen.is_used_up:
            return False
        if failure.address:
            pattern = failure.address.lower()
            if not any(fnmatchcase(address.text.lower(), pattern) for address in addresses):
                return False
        return failure.probability >= 1 or self.draw() < failure.probability

    def _carry_out(self, failure: Failure, session: Session) -> Answer:
        if failure.action == STALL:
            return self._stall()
        if failure.action == DROP:
            self.drop(session)
            return _GOODBYE
        return failure.reply

    async def _stall(self) -> Reply:
        await self.pause(STALL_SECONDS)
        return _GOODBYE


#: Nobody hears it: the connection is gone.
_GOODBYE = Reply(421, "4.4.2", "Failure chosen")
#: The stage that a word without one means, by the address it stands in: a sender's MAIL, a recipient's RCPT.
_DEFAULT_STAGE = {stage: "mail" if stage == "mail" else "rcpt" for stage in STAGES}


def _asked_by(address: Address, stage: str) -> list[Failure]:
    return _asked(address.local_part, stage)


def _asked(text: str, default_stage: str) -> list[Failure]:
    """The failures that a text asks for."""
    return [
        Failure((found["stage"] or default_stage).lower(), int(action) if action.isdecimal() else action.lower())
        for found in _TRIGGER.finditer(text)
        for action in (found["action"],)
    ]
