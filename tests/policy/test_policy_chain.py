"""The chain of policies and callbacks: who is asked when, who wins, what a broken one does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import cast

import pytest

from smtpmaild.envelope import Session, Transaction
from smtpmaild.metrics import Metrics
from smtpmaild.policy import Answer, Mode, Policy, Verdict
from smtpmaild.policy.chain import STAGES, Chain, Event, Step
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import LOCAL_ERROR, Reply

REFUSED = Reply(550, "5.7.1", "No")
DEFERRED = Reply(450, "4.7.1", "Later")
ACCEPTED = Reply(250, "2.0.0", "Yes")
BOB = Address("bob", "example.com", "bob@example.com")


class Recorder:
    """A Log that remembers."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, /, **facts: object) -> None:
        self.facts.append(("info", event, facts))

    def warning(self, event: str, /, **facts: object) -> None:
        self.facts.append(("warning", event, facts))

    def error(self, event: str, /, **facts: object) -> None:
        self.facts.append(("error", event, facts))

    def exception(self, event: str, /, **facts: object) -> None:
        self.facts.append(("exception", event, facts))


@pytest.fixture
def log() -> Recorder:
    return Recorder()


class Says(Policy):
    """Answers HELO, EHLO and RCPT with what it was given."""

    def __init__(self, name: str, verdict: Verdict) -> None:
        self.name = name
        self.verdict = verdict
        self.asked = 0

    def helo(self, session: Session) -> Answer:
        self.asked += 1
        return self.verdict

    def rcpt(self, transaction: Transaction, forward_path: Address) -> Answer:
        assert forward_path == BOB
        return self.verdict


class SaysLater(Policy):
    """The same, after a turn of the loop."""

    def __init__(self, name: str, verdict: Verdict) -> None:
        self.name = name
        self.verdict = verdict

    async def helo(self, session: Session) -> Verdict:
        await asyncio.sleep(0)
        return self.verdict


class Breaks(Policy):
    name = "broken"

    def helo(self, session: Session) -> Answer:
        raise RuntimeError("a bug")


class BreaksLater(Policy):
    name = "broken"

    async def helo(self, session: Session) -> Verdict:
        await asyncio.sleep(0)
        raise RuntimeError("a bug")


class ReadsBodies(Policy):
    name = "reader"
    needs_body = True

    def connect(self, session: Session) -> Answer:
        return None

    def message(self, transaction: Transaction, content: object) -> Answer:
        return None


def ask(chain: Chain, session: Session, event: Event = Event.HELO) -> Verdict:
    """Ask at an event whose argument is the session; runs a loop only where the chain wants to wait."""
    answer = chain.ask(chain.steps(event), session, session)
    return answer if answer is None or isinstance(answer, Reply) else asyncio.run(_result(answer))


async def _result(answer: Awaitable[Verdict]) -> Verdict:
    return await answer


def test_values_are_the_names_of_the_events() -> None:
    assert [event.value for event in Event] == [
        "banner", "HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA-INIT", "DATA-PART", "DATA", "RSET", "NOOP", "VRFY",
        "EXPN", "HELP", "SEND", "SOML", "SAML", "TURN", "QUIT", "XFORWARD", "STARTTLS", "timeout", "linetobig",
        "stop_session",
    ]  # fmt: skip
    assert {Event("HELO"): 1}[Event.HELO] == 1


def test_every_stage_of_the_seam_has_its_events() -> None:
    methods = {name for name, member in vars(Policy).items() if callable(member)}
    assert methods == set(STAGES)


def test_only_overridden_methods_become_steps(log: Recorder) -> None:
    chain = Chain.compile([(Says("one", None), Mode.ENFORCE)], log)
    assert {event for event in Event if chain.listens(event)} == {Event.HELO, Event.EHLO, Event.LHLO, Event.RCPT}
    assert [step.name for step in chain.steps(Event.EHLO)] == ["one"]
    assert chain.steps(Event.MAIL) == ()


def test_first_verdict_wins_and_is_named(log: Recorder, session: Session) -> None:
    late = Says("late", DEFERRED)
    chain = Chain.compile(
        [(Says("none", None), Mode.ENFORCE), (Says("first", REFUSED), Mode.ENFORCE), (late, Mode.ENFORCE)], log
    )
    assert ask(chain, session) is REFUSED
    assert session.decided_by == "first"
    assert late.asked == 0


def test_arguments_reach_the_step(log: Recorder, session: Session, transaction: Transaction) -> None:
    chain = Chain.compile([(Says("one", ACCEPTED), Mode.ENFORCE)], log)
    assert chain.ask(chain.steps(Event.RCPT), session, transaction, BOB) is ACCEPTED


def test_no_opinion_leaves_the_decider_alone(log: Recorder, session: Session) -> None:
    session.decided_by = "before"
    chain = Chain.compile([(Says("one", None), Mode.ENFORCE)], log)
    assert ask(chain, session) is None
    assert ask(chain, session, Event.QUIT) is None
    assert session.decided_by == "before"


def test_only_an_awaitable_needs_a_loop(log: Recorder, session: Session) -> None:
    later = SaysLater("later", REFUSED)
    chain = Chain.compile([(Says("now", DEFERRED), Mode.ENFORCE), (later, Mode.ENFORCE)], log)
    assert chain.ask(chain.steps(Event.HELO), session, session) is DEFERRED


@pytest.mark.parametrize(
    ("policies", "verdict", "decided_by"),
    [
        # The one that waits decides.
        ([SaysLater("later", REFUSED), Says("now", DEFERRED)], REFUSED, "later"),
        # It has no opinion, the next one decides without waiting.
        ([Says("none", None), SaysLater("later", None), Says("now", DEFERRED)], DEFERRED, "now"),
        # Two wait one after the other.
        ([SaysLater("later", None), SaysLater("latest", REFUSED)], REFUSED, "latest"),
        # Nobody has an opinion.
        ([SaysLater("later", None), Says("none", None)], None, ""),
    ],
)
def test_goes_on_behind_one_that_waits(
    log: Recorder, session: Session, policies: list[Policy], verdict: Verdict, decided_by: str
) -> None:
    chain = Chain.compile([(policy, Mode.ENFORCE) for policy in policies], log)
    assert ask(chain, session) is verdict
    assert session.decided_by == decided_by


@pytest.mark.parametrize("broken", [Breaks(), BreaksLater()])
def test_broken_policy_is_a_temporary_failure(log: Recorder, session: Session, broken: Policy) -> None:
    chain = Chain.compile([(Says("none", None), Mode.ENFORCE), (broken, Mode.ENFORCE)], log)
    assert ask(chain, session) is LOCAL_ERROR
    assert session.decided_by == "broken"
    assert log.facts == [("exception", "policy_failed", {"policy": "broken", "session_id": "S1"})]


def test_errors_are_counted(log: Recorder, session: Session) -> None:
    metrics = Metrics()
    chain = Chain.compile([(Breaks(), Mode.MONITOR), (Breaks(), Mode.ENFORCE)], log, metrics)
    ask(chain.without(Event.QUIT, "nobody"), session)
    assert metrics.policy_errors == 2


def test_what_would_have_been_said_is_counted(log: Recorder, session: Session) -> None:
    metrics = Metrics()
    chain = Chain.compile([(Says("hard", Reply(550, "5.7.1", "No")), Mode.MONITOR)], log, metrics)
    assert ask(chain, session) is None
    assert metrics.monitored.names == {("hard", "5yz"): 1}


def test_broken_behind_one_that_waits_is_logged_once(log: Recorder, session: Session) -> None:
    chain = Chain.compile([(SaysLater("later", None), Mode.ENFORCE), (Breaks(), Mode.ENFORCE)], log)
    assert ask(chain, session) is LOCAL_ERROR
    assert len(log.facts) == 1


def test_an_answer_that_is_no_answer_is_a_bug_of_the_step(log: Recorder, session: Session) -> None:
    chain = Chain.compile([], log).with_step(Event.HELO, Step("odd", lambda _: cast("Verdict", True)))
    assert ask(chain, session) is LOCAL_ERROR
    assert log.facts[0][:2] == ("exception", "policy_failed")


def test_cancelling_the_session_passes_through(log: Recorder, session: Session) -> None:
    chain = Chain.compile([(SaysLater("later", None), Mode.ENFORCE)], log)

    async def cancel() -> None:
        answer = chain.ask(chain.steps(Event.HELO), session, session)
        assert answer is not None and not isinstance(answer, Reply)
        task = asyncio.ensure_future(answer)
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert log.facts == []


def test_off_is_not_asked(log: Recorder) -> None:
    chain = Chain.compile([(Says("one", REFUSED), Mode.OFF), (ReadsBodies(), Mode.OFF)], log)
    assert not any(chain.listens(event) for event in Event)
    assert not chain.needs_body


@pytest.mark.parametrize(
    ("verdict", "fact"),
    [
        (REFUSED, "policy_would_refuse"),
        (DEFERRED, "policy_would_defer"),
        (ACCEPTED, "policy_would_accept"),
    ],
)
def test_monitor_only_logs(log: Recorder, session: Session, verdict: Reply, fact: str) -> None:
    for policy in (Says("one", verdict), SaysLater("one", verdict)):
        log.facts.clear()
        chain = Chain.compile([(policy, Mode.MONITOR)], log)
        assert ask(chain, session, Event.EHLO) is None
        assert session.decided_by == ""
        facts = {"policy": "one", "rule": "one", "stage": "EHLO", "session_id": "S1", "reply": str(verdict)}
        assert log.facts == [("info", fact, facts)]


def test_monitor_finds_the_session_of_a_transaction(log: Recorder, session: Session, transaction: Transaction) -> None:
    chain = Chain.compile([(Says("one", REFUSED), Mode.MONITOR)], log)
    assert chain.ask(chain.steps(Event.RCPT), session, transaction, BOB) is None
    assert log.facts[0][2]["session_id"] == "S1"


def test_monitor_of_no_opinion_logs_nothing(log: Recorder, session: Session) -> None:
    for policy in (Says("one", None), SaysLater("one", None)):
        assert ask(Chain.compile([(policy, Mode.MONITOR)], log), session) is None
    assert log.facts == []


@pytest.mark.parametrize("broken", [Breaks(), BreaksLater()])
def test_monitored_policy_may_break(log: Recorder, session: Session, broken: Policy) -> None:
    chain = Chain.compile([(broken, Mode.MONITOR), (Says("next", REFUSED), Mode.ENFORCE)], log)
    assert ask(chain, session) is REFUSED
    facts = {"policy": "broken", "rule": "broken", "stage": "HELO", "session_id": "S1", "monitored": True}
    assert log.facts == [("exception", "policy_failed", facts)]


def test_setting_a_step_appends_or_replaces(log: Recorder, session: Session) -> None:
    empty = Chain.compile([(Says("policy", None), Mode.ENFORCE)], log)
    once = empty.with_step(Event.HELO, Step("callback", lambda _: REFUSED))
    again = once.with_step(Event.HELO, Step("callback", lambda _: DEFERRED))
    assert [step.name for step in again.steps(Event.HELO)] == ["policy", "callback"]
    # Chains are values: the earlier ones still say what they said.
    assert [ask(chain, session) for chain in (empty, once, again)] == [None, REFUSED, DEFERRED]


def test_without_forgets_one_name_at_one_event(log: Recorder) -> None:
    step = Step("callback", lambda *_: None)
    chain = Chain.compile([], log).with_step(Event.VRFY, step).with_step(Event.EXPN, step)
    less = chain.without(Event.VRFY, "callback")
    assert not less.listens(Event.VRFY)
    assert less.listens(Event.EXPN)
    assert less.without(Event.QUIT, "callback").steps(Event.EXPN) == (step,)


def test_needs_body_counts_at_the_end_of_data(log: Recorder) -> None:
    chain = Chain.compile([(Says("one", None), Mode.ENFORCE)], log)
    assert not chain.needs_body
    assert Chain.compile([(ReadsBodies(), Mode.MONITOR)], log).needs_body
    assert chain.with_step(Event.DATA, Step("callback", lambda *_: None, needs_body=True)).needs_body
    assert not chain.with_step(Event.DATA, Step("callback", lambda *_: None)).needs_body
    connect = Chain.compile([(ReadsBodies(), Mode.ENFORCE)], log).steps(Event.BANNER)
    assert [step.needs_body for step in connect] == [False]
