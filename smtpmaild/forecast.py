"""What another configuration would have said to the mail of the last days: its verdicts beside those on record.

A decision is one recipient (or a sender that was refused) as the history has it, with all that rules ask of a client.
It is played through the trial; what comes out otherwise is a change. What a trial cannot know is not compared, and
counted: clients that talked too early, limits, what was in a message. Decisions that differ in nothing that is asked
are played once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from smtpmaild.config.listeners import Listener
from smtpmaild.envelope import ClientCertificate, Tls
from smtpmaild.history import Event
from smtpmaild.history.events import MESSAGES, host_of
from smtpmaild.rehearsal import Stage, no_handshake
from smtpmaild.trial import Question, TrialStep, outcome

#: Events that hold decisions.
DECIDED = MESSAGES | {"session_closed"}
#: Who decides by what a trial does not have: time, other sessions, the message.
_NOT_PLAYED = frozenset(("early_talker", "messages_per_session", "mail_loop"))
_ASKED_OF = frozenset(("RCPT", "MAIL"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """outcome: accept, defer or reject.  reply: "550 5.7.1 Relaying denied"; "" for what was accepted.  goes_to: stores
    and routes.  rule, where: who decided.  mailboxes: whose mail it is there."""

    outcome: str
    reply: str = ""
    goes_to: tuple[str, ...] = ()
    rule: str = ""
    where: str = ""
    mailboxes: tuple[str, ...] = ()

    def is_like(self, other: Verdict) -> bool:
        """Neither the client's server nor the mail would see a difference, whichever rule it was and in what words."""
        return self.without_mailboxes_is_like(other) and {*self.mailboxes} == {*other.mailboxes}

    def without_mailboxes_is_like(self, other: Verdict) -> bool:
        """The same, where it does not matter whose mail it is."""
        return (self.outcome, self.reply[:3], {*self.goes_to}) == (other.outcome, other.reply[:3], {*other.goes_to})


@dataclass(frozen=True, slots=True)
class Decision:
    """Who wanted what, and what was said. recipient: "" where the sender was refused.  tls: as the log has it, "" for
    none.  at: seconds since the epoch, of the last one."""

    at: float
    listener: str
    client: str
    client_name: str
    helo: str
    tls: str
    certificate: str
    user: str
    sender: str
    recipient: str
    verdict: Verdict


@dataclass(slots=True)
class Change:
    """Verdicts that would change in the same way. decision: the latest of them.  count: of decisions."""

    decision: Decision
    after: Verdict
    count: int = 0


@dataclass(slots=True)
class Forecast:
    """decisions: that were played.  kinds: of them, that differ.  left_out: what could not be, by the rule.  since: the
    oldest, seconds since the epoch.  changes: the most frequent first."""

    decisions: int = 0
    kinds: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    since: float = 0.0
    changes: list[Change] = field(default_factory=list)


def decisions(events: Iterable[Event]) -> Iterator[Decision]:
    """Those on record, in the order of the events."""
    for event in events:
        facts = event.facts
        for one in facts.get("accepted", ()):
            places = tuple(dict.fromkeys(to["route"] or to["store"] for to in one["to"]))
            mailboxes = tuple(f"{to['mailbox']}@{to['domain']}" for to in one["to"])
            verdict = Verdict("accept", "", places, one["rule"], one["where"], mailboxes)
            yield _decision(event, facts["reverse_path"], one["address"], verdict)
        for refusal in facts.get("refusals") or ():
            if refusal["command"] in _ASKED_OF:
                is_recipient = refusal["command"] == "RCPT"
                sender = refusal.get("reverse_path", "") if is_recipient else refusal["argument"]
                rule, where = _split(refusal["rule"])
                reply = refusal["reply"].rpartition("\n")[2]
                said = Verdict("reject" if reply.startswith("5") else "defer", reply, (), rule, where)
                yield _decision(event, sender, refusal["argument"] if is_recipient else "", said)


def _decision(event: Event, sender: str, recipient: str, verdict: Verdict) -> Decision:
    facts: Mapping[str, Any] = event.facts
    return Decision(
        at=event.at,
        listener=facts["listener"],
        client="" if facts["peer"] == "local" else host_of(facts["peer"]),
        client_name=facts.get("client_name", ""),
        helo=facts.get("helo") or "client.example",
        tls=facts.get("tls", ""),
        certificate=facts.get("client_certificate", ""),
        user=facts.get("user", ""),
        sender=sender,
        recipient=recipient,
        verdict=verdict,
    )


def _split(rule: str) -> tuple[str, str]:
    """name (place)"""
    if not rule.endswith(")"):
        return rule, ""
    name, _, where = rule[:-1].rpartition(" (")
    return name, where


def forecast(stage: Stage, found: Iterable[Decision]) -> Forecast:
    """Play them through a configuration. Runs a loop of its own."""
    return asyncio.run(_forecast(stage, found))


async def _forecast(stage: Stage, found: Iterable[Decision]) -> Forecast:
    made = Forecast()
    kinds: dict[Decision, tuple[Decision, int]] = {}
    for one in found:
        if one.verdict.rule in _NOT_PLAYED:
            made.left_out[one.verdict.rule] = made.left_out.get(one.verdict.rule, 0) + 1
            continue
        made.decisions += 1
        made.since = min(made.since or one.at, one.at)
        kind = replace(one, at=0.0)
        latest, count = kinds.get(kind, (one, 0))
        kinds[kind] = (latest if latest.at >= one.at else one, count + 1)
    made.kinds = len(kinds)
    listeners = {listener.name: listener for listener in stage.config.listeners}
    changes: dict[tuple[object, ...], Change] = {}
    for decision, count in kinds.values():
        after = await _verdict(stage, listeners.get(decision.listener), decision)
        if not after.is_like(decision.verdict):
            before = decision.verdict
            if not after.without_mailboxes_is_like(before):  # the larger change; one line for all mailboxes
                before, after = replace(before, mailboxes=()), replace(after, mailboxes=())
            changed = replace(decision, verdict=before)
            changes.setdefault((decision.listener, before, after), Change(changed, after)).count += count
    made.changes = sorted(changes.values(), key=lambda change: -change.count)
    return made


async def _verdict(stage: Stage, listener: Listener | None, one: Decision) -> Verdict:
    if listener is None:
        return Verdict("reject", f"there is no listener '{one.listener}' any more")
    if why := no_handshake(stage.config, listener, is_encrypted=bool(one.tls), has_certificate=bool(one.certificate)):
        return Verdict("reject", why)
    version, _, cipher = one.tls.partition(" ")
    client = ClientCertificate(one.certificate, "") if one.certificate else None
    tls = Tls(version, cipher, client=client) if one.tls and listener.tls != "none" else None
    question = Question(
        one.sender,
        [one.recipient] if one.recipient else [],
        one.client,
        one.helo,
        client_name=one.client_name if listener.reverse_dns or listener.xclient_from else "",
        tls=tls,
        is_implicit=tls is not None and listener.tls == "implicit",
        user=one.user if listener.auth != "none" else "",
    )
    steps = await stage.play(listener, question)
    return _said(steps[-1], outcome(steps))


def _said(last: TrialStep, verdict: str) -> Verdict:
    reply = "" if verdict == "accept" else last.reply.rpartition("\n")[2]
    if verdict != "accept":
        return Verdict(verdict, reply, (), last.rule, last.where)
    return Verdict(verdict, reply, tuple(last.goes_to), last.rule, last.where, tuple(last.mailboxes))
