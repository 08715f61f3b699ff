"""Compiles policies and callbacks into one tuple of steps per event, and walks such a tuple.

Which step is asked at which event is settled once, when the configuration is read; a session only looks up its
event's tuple and calls. A policy and a user's callback are the same thing here: a `Step`. A policy in monitor mode is
a step that logs what it would have said and has no opinion.

Knows no loop: a step that must wait makes `ask` return a coroutine, and the caller decides what runs it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from smtpmaild.envelope import Session, Transaction
from smtpmaild.facts import Log
from smtpmaild.metrics import Metrics
from smtpmaild.policy import Answer, Mode, Policy, Verdict
from smtpmaild.smtp.reply import LOCAL_ERROR, Reply


class Event(Enum):
    """The moments of a session at which steps are asked. The values are the names callbacks are set by."""

    BANNER = "banner"
    HELO = "HELO"
    EHLO = "EHLO"
    LHLO = "LHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA_INIT = "DATA-INIT"
    DATA_PART = "DATA-PART"
    DATA = "DATA"
    RSET = "RSET"
    NOOP = "NOOP"
    VRFY = "VRFY"
    EXPN = "EXPN"
    HELP = "HELP"
    SEND = "SEND"
    SOML = "SOML"
    SAML = "SAML"
    TURN = "TURN"
    QUIT = "QUIT"
    XFORWARD = "XFORWARD"
    STARTTLS = "STARTTLS"
    TIMEOUT = "timeout"
    LINE_TOO_LONG = "linetobig"
    STOP_SESSION = "stop_session"

    # Members are compared by identity, so the hash may be that of any object. Enum's own is a Python function:
    # looking up an event in a dict takes 170 ns with it and 100 ns without.
    __hash__ = object.__hash__


#: The stages of a policy: the name of its method, and the events at which it is asked.
STAGES: Mapping[str, tuple[Event, ...]] = MappingProxyType(
    {
        "connect": (Event.BANNER,),
        "helo": (Event.HELO, Event.EHLO, Event.LHLO),
        "mail": (Event.MAIL,),
        "rcpt": (Event.RCPT,),
        "data": (Event.DATA_INIT,),
        "part": (Event.DATA_PART,),
        "message": (Event.DATA,),
    }
)


@dataclass(frozen=True, slots=True)
class Step:
    """One who is asked at an event.

    name: for the log, and for setting it again.  ask: called with the arguments of the event; a policy's bound
    method or anything else that gives an Answer.  needs_body: at Event.DATA, wants content.open().  rule: the name with
    its place in the config, "helo_syntax (smtp.yaml:12)": what a verdict is decided by.
    """

    name: str
    ask: Callable[..., Answer]
    needs_body: bool = False
    rule: str = ""

    def __post_init__(self) -> None:
        if not self.rule:
            object.__setattr__(self, "rule", self.name)


@dataclass(frozen=True, slots=True)
class Chain:
    """Who is asked at each event, in order. Never changes: setting a callback makes a new chain.

    needs_body: somebody asked at the end of data reads the body.
    """

    by_event: Mapping[Event, tuple[Step, ...]]
    log: Log
    metrics: Metrics = field(default_factory=Metrics)
    needs_body: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs_body", any(step.needs_body for step in self.steps(Event.DATA)))

    @classmethod
    def compile(
        cls,
        policies: Sequence[tuple[Policy, Mode]],
        log: Log,
        metrics: Metrics | None = None,
        where: Callable[[str], str] = lambda _: "",
    ) -> Chain:
        """The chain of these policies, in their order. Only the methods a policy overrides become steps.

        where: the name of a policy -> its line in the config, "" for none.
        """
        metrics = metrics or Metrics()
        by_event: dict[Event, tuple[Step, ...]] = {}
        for policy, mode in policies:
            for event, step in _steps_of(policy, mode, where(policy.name), log, metrics):
                by_event[event] = (*by_event.get(event, ()), step)
        return cls(by_event, log, metrics)

    def steps(self, event: Event) -> tuple[Step, ...]:
        """Who is asked at this event; empty for most."""
        return self.by_event.get(event, ())

    def listens(self, event: Event) -> bool:
        """True if anybody is asked at this event."""
        return event in self.by_event

    def with_step(self, event: Event, step: Step) -> Chain:
        """A chain with this step: in the place of the one of the same name, or else as the last of its event."""
        steps = self.steps(event)
        if any(old.name == step.name for old in steps):
            return self._with(event, tuple(step if old.name == step.name else old for old in steps))
        return self._with(event, (*steps, step))

    def without(self, event: Event, name: str) -> Chain:
        """A chain in which nobody of this name is asked at this event."""
        return self._with(event, tuple(step for step in self.steps(event) if step.name != name))

    def _with(self, event: Event, steps: tuple[Step, ...]) -> Chain:
        by_event = {**self.by_event, event: steps}
        if not steps:
            del by_event[event]
        return Chain(by_event, self.log, self.metrics)

    def ask(self, steps: tuple[Step, ...], session: Session, *arguments: object) -> Answer:
        """Ask one after the other until somebody gives a verdict; session.decided_by then names who it was.

        None: nobody had an opinion. A coroutine, which gives the same: one of them has to wait. A step that raises
        is logged and answers 451. Costs 0.1 µs and 0.1 µs for each step; callers skip an empty tuple.
        """
        remaining = iter(steps)
        step = None
        try:
            for step in remaining:
                answer = step.ask(*arguments)
                if answer is None:
                    continue
                if not isinstance(answer, Reply):
                    return self._wait(answer, step, remaining, session, arguments)
                session.decided_by = step.rule
                return answer
        except Exception:
            return self._failed(step, session)
        return None

    async def _wait(
        self,
        answer: Awaitable[Verdict],
        step: Step,
        remaining: Iterator[Step],
        session: Session,
        arguments: tuple[object, ...],
    ) -> Verdict:
        try:
            verdict = await answer
        except Exception:
            return self._failed(step, session)
        if verdict is not None:
            session.decided_by = step.rule
            return verdict
        rest = self.ask(tuple(remaining), session, *arguments)
        return rest if rest is None or isinstance(rest, Reply) else await rest

    def _failed(self, step: Step | None, session: Session) -> Reply:
        assert step is not None
        session.decided_by = step.rule
        self.metrics.policy_errors += 1
        self.log.exception("policy_failed", policy=step.name, session_id=session.session_id)
        return LOCAL_ERROR


def _steps_of(policy: Policy, mode: Mode, where: str, log: Log, metrics: Metrics) -> Iterator[tuple[Event, Step]]:
    if mode is Mode.OFF:
        return
    rule = f"{policy.name} ({where})" if where else policy.name
    for stage, events in STAGES.items():
        method = attrgetter(stage)
        if method(type(policy)) is method(Policy):
            continue
        needs_body = policy.needs_body and stage == "message"
        for event in events:
            ask = method(policy)
            if mode is Mode.MONITOR:
                ask = _Monitor(policy.name, rule, event, ask, log, metrics)
            yield event, Step(policy.name, ask, needs_body, rule)


# The first digit of a reply code -> what a monitored policy reports.
_WOULD = {2: "policy_would_accept", 3: "policy_would_accept", 4: "policy_would_defer", 5: "policy_would_refuse"}


@dataclass(frozen=True, slots=True)
class _Monitor:
    """A policy's method of which only the log hears. What it waits for, the session waits for, as it would enforced."""

    policy: str
    rule: str
    event: Event
    method: Callable[..., Answer]
    log: Log
    metrics: Metrics

    def __call__(self, *arguments: Any) -> Answer:
        # The first argument of every stage is the session or its transaction.
        subject: Session | Transaction = arguments[0]
        session = subject if isinstance(subject, Session) else subject.session
        try:
            answer = self.method(*arguments)
        except Exception:
            return self._failed(session)
        if answer is None or isinstance(answer, Reply):
            return self._report(answer, session)
        return self._wait(answer, session)

    async def _wait(self, answer: Awaitable[Verdict], session: Session) -> Verdict:
        try:
            verdict = await answer
        except Exception:
            return self._failed(session)
        return self._report(verdict, session)

    def _report(self, verdict: Verdict, session: Session) -> Verdict:
        if verdict is not None:
            would = _WOULD[verdict.code // 100]
            self.metrics.monitored.count(self.policy, f"{verdict.code // 100}yz")
            self.log.info(would, **self._facts(session), reply=str(verdict))
        return None

    def _failed(self, session: Session) -> Verdict:
        self.metrics.policy_errors += 1
        self.log.exception("policy_failed", **self._facts(session), monitored=True)
        return None

    def _facts(self, session: Session) -> dict[str, object]:
        return {
            "policy": self.policy,
            "rule": self.rule,
            "stage": self.event.value,
            "session_id": session.session_id,
        }
