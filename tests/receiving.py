"""What the tests of the receiver, the dialogue and the trial share: a service whose stores do as they are told.

`make_service()` is a listener without sockets and disk. Its router takes any recipient and reads the stores from the
local part: `<mail@local.example>` goes to the store `mail`, `<mail+spool@local.example>` to both; `refused.example`
and `later.example` are refused and deferred by a rule each.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smtpmaild.envelope import Destination, Envelope, Route, Rule, Transaction
from smtpmaild.metrics import Metrics
from smtpmaild.policy import Mode, Policy
from smtpmaild.policy.chain import Chain
from smtpmaild.service import Service
from smtpmaild.sink import Outcome, Post
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.extension import EXTENSIONS, Dialect, Extension, ServerOptions
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, RECIPIENT_OK, Reply


class RecordingLog:
    """Keeps what was logged: (event, facts), a traceback among them where there was one."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, /, **facts: object) -> object:
        self.facts.append((event, facts))
        return None

    warning = error = info

    def exception(self, event: str, /, **facts: object) -> object:
        return self.info(event, **facts, traceback=traceback.format_exc())

    def named(self, event: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.facts if name == event]

    def only(self, event: str) -> dict[str, Any]:
        (facts,) = self.named(event)
        return facts


@dataclass
class Parcel:
    """One delivery into a Store, and what became of it."""

    store: Store
    envelope: Envelope
    destinations: Sequence[Destination]
    drained: Callable[[], None]
    chunks: list[bytes] = field(default_factory=list)
    done: Callable[[Outcome], None] | None = None
    is_aborted: bool = False

    def write(self, chunk: bytes) -> bool:
        assert self.done is None and not self.is_aborted, "written to after its end"
        self.chunks.append(chunk)
        return len(self.chunks) not in self.store.breaks_after

    def commit(self, done: Callable[[Outcome], None]) -> None:
        assert self.done is None and not self.is_aborted, "ended twice"
        self.done = done
        if self.store.answers_at_once:
            done(self.store.outcome)

    def abort(self) -> None:
        assert self.done is None and not self.is_aborted, "ended twice"
        self.is_aborted = True

    def finish(self, outcome: Outcome = MESSAGE_ACCEPTED) -> None:
        """The store is done with a commit that it was slow to answer."""
        assert self.done is not None
        self.done(outcome)

    @property
    def message(self) -> bytes:
        return b"".join(self.chunks[1:])


class Store:
    """A sink in memory.

    outcome: what commits come to.  answers_at_once: else when the test says finish().  breaks_after: after so many
    writes (the Received field is the first) it asks for a break.  trouble: what unhealthy() says.
    """

    def __init__(
        self,
        outcome: Outcome = MESSAGE_ACCEPTED,
        *,
        answers_at_once: bool = True,
        breaks_after: Sequence[int] = (),
        trouble: Reply | None = None,
    ) -> None:
        self.outcome = outcome
        self.answers_at_once = answers_at_once
        self.breaks_after = breaks_after
        self.trouble = trouble
        self.parcels: list[Parcel] = []

    def prepare(self) -> None:
        pass

    def start(self, post: Post) -> None:
        pass

    def stop(self) -> None:
        pass

    def unhealthy(self) -> Reply | None:
        return self.trouble

    def locate(self, destination: Destination) -> str:
        return f"/var/mail/{destination.sink}/{destination.mailbox}"

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Parcel:
        parcel = Parcel(self, envelope, destinations, drained)
        self.parcels.append(parcel)
        return parcel

    @property
    def parcel(self) -> Parcel:
        """The only delivery."""
        (parcel,) = self.parcels
        return parcel


class ByLocalPart:
    """The router described above."""

    refusals = {
        "refused.example": Route(Rule("spammers", "smtp.yaml:7"), Reply(550, "5.7.1", "Go away")),
        "later.example": Route(Rule("moving"), Reply(450, "4.7.1", "Come back")),
    }

    def route(self, transaction: Transaction, forward_path: Address) -> Route:
        if refusal := self.refusals.get(forward_path.domain):
            return refusal
        rule = Rule(f"local_domains.{forward_path.domain}", "smtp.yaml:3")
        to = [Destination(s, forward_path.domain, "box", "", forward_path) for s in forward_path.local_part.split("+")]
        return Route(rule, RECIPIENT_OK, tuple(to))


def make_service(
    *policies: Policy,
    stores: Mapping[str, Store] | None = None,
    mode: Mode = Mode.ENFORCE,
    extensions: Sequence[Extension] = EXTENSIONS,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Service:
    log, metrics = RecordingLog(), Metrics()
    return Service(
        listener="mx",
        dialect=Dialect(ServerOptions("mx.example", **(options or {})), tuple(extensions)),
        chain=Chain.compile([(policy, mode) for policy in policies], log, metrics),
        router=ByLocalPart(),
        sinks={"mail": Store()} if stores is None else stores,
        log=log,
        metrics=metrics,
        **more,
    )


def log_of(service: Service) -> RecordingLog:
    assert isinstance(service.log, RecordingLog)
    return service.log


class Says(Policy):
    """Gives its verdict at the stages it was told; later: as an awaitable; reads: wants the body."""

    def __init__(
        self,
        verdicts: Mapping[str, Reply | Exception] | None = None,
        *,
        later: bool = False,
        reads: bool = False,
        name: str = "tester",
    ) -> None:
        self.name = name
        self.needs_body = reads
        self.is_later = later
        self.verdicts = dict(verdicts or {})
        self.parts: list[bytes] = []
        self.body = b""
        self.header = b""

    def _say(self, stage: str) -> Any:
        return self._later(stage) if self.is_later else self._now(stage)

    def _now(self, stage: str) -> Reply | None:
        verdict = self.verdicts.get(stage)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    async def _later(self, stage: str) -> Reply | None:
        return self._now(stage)

    def connect(self, session: Any) -> Any:
        return self._say("connect")

    def helo(self, session: Any) -> Any:
        return self._say("helo")

    def mail(self, transaction: Any) -> Any:
        return self._say("mail")

    def rcpt(self, transaction: Any, forward_path: Any) -> Any:
        return self._say("rcpt")

    def data(self, transaction: Any) -> Any:
        return self._say("data")

    def part(self, transaction: Any, chunk: bytes) -> Any:
        self.parts.append(chunk)
        return self._say("part")

    def message(self, transaction: Any, content: Any) -> Any:
        self.header = content.header
        if self.needs_body:
            self.body = content.read()
        return self._say("message")
