"""Plays sessions through a configuration before it serves: what `try` asks, and the cases under `tests:`.

Turns what a person says of a session (a listener's name, who signs in) into a Question of the trial, with what the
configuration makes of it, and compares what came of a case with what the case expects. What fails becomes a mistake of
the file like any other. Builds nothing: app/ hands in a Stage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from smtpmaild.config.check_tls import clients_of
from smtpmaild.config.listeners import Listener
from smtpmaild.config.mistakes import Mistake
from smtpmaild.config.models import Config
from smtpmaild.config.names import certificate_name
from smtpmaild.config.rules import RelayRule
from smtpmaild.config.signing_in import login
from smtpmaild.config.tests import Case
from smtpmaild.config.tls import is_offered
from smtpmaild.config.yaml_nodes import Loc
from smtpmaild.delivery.agents import route_to
from smtpmaild.envelope import ClientCertificate, Peer, Tls
from smtpmaild.routing import Routing
from smtpmaild.service import Service
from smtpmaild.trial import Notes, Question, TrialStep, outcome, run


@dataclass(frozen=True, slots=True)
class Stage:
    """A configuration, built to be tried.

    service: what a listener, by its name, has for this peer.  notes: the log that all of it was built with.
    """

    config: Config
    service: Callable[[str, Peer], Service]
    routing: Routing
    notes: Notes

    async def play(self, listener: Listener, question: Question) -> list[TrialStep]:
        """The session, step by step, each with the line that decided where that is a policy's."""
        service = self.service(listener.name, Peer(question.client))
        steps = await run(service, question, self.notes, self.routing.missed)
        for step in steps:
            step.where = step.where or place_of_policy(self.config, listener, step.rule)
        return steps


class QuestionError(ValueError):
    """There is no such session. key: of what was asked."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def listener_of(config: Config, name: str | None) -> Listener:
    """The listener of that name, the first by default."""
    listeners = {listener.name: listener for listener in config.listeners}
    if name is None:
        return config.listeners[0]
    if name not in listeners:
        raise QuestionError("listener", f"there is no listener {name!r}, only {', '.join(listeners)}")
    return listeners[name]


def tls_of(config: Config, listener: Listener, wanted: bool | None, user: str, certificate: str) -> Tls | None:
    """The encryption of the session, as a client has it that gets what it wants. wanted: None where it may choose."""
    if listener.tls == "none" and (wanted or certificate):
        raise QuestionError("tls" if wanted else "client_certificate", f"listener {listener.name!r} has no TLS")
    if wanted is False and (listener.tls == "implicit" or certificate):
        why = "with a client certificate" if certificate else f"at listener {listener.name!r}, where TLS comes first"
        raise QuestionError("tls", f"there is no session without TLS {why}")
    is_needed = listener.tls in ("required", "implicit") or (listener.tls == "optional" and bool(user or certificate))
    if not (is_needed if wanted is None else wanted):
        return None
    if not certificate and clients_of(config, listener) == "require":
        why = f"listener {listener.name!r} ends a handshake without a certificate: say which one the client shows"
        raise QuestionError("client_certificate", why)
    try:
        name = certificate_name(certificate) if certificate else ""
    except ValueError as error:
        raise QuestionError("client_certificate", str(error)) from None
    client = ClientCertificate(name, name) if name else None
    return Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, client=client)


def no_handshake(config: Config, listener: Listener, *, is_encrypted: bool, has_certificate: bool) -> str:
    """Why a client that was like that elsewhere does not come as far as SMTP here; "" where it does."""
    if listener.tls == "implicit" and not is_encrypted:
        return f"at listener {listener.name!r} TLS comes first"
    is_asked = is_encrypted and is_offered(listener.tls) and clients_of(config, listener) == "require"
    if is_asked and not has_certificate:
        return f"listener {listener.name!r} ends a handshake without a certificate"
    return ""


def name_of(listener: Listener, name: str) -> str:
    """The client's name in the DNS, where the daemon would know it."""
    if name and not (listener.reverse_dns or listener.xclient_from):
        why = f"clients have no names at listener {listener.name!r}: it has no 'reverse_dns'"
        raise QuestionError("client_name", why)
    return name


def user_of(config: Config, listener: Listener, user: str) -> tuple[str, str]:
    """Who signs in, as the accounts write the name, and what is doubtful about that."""
    if not user:
        return "", ""
    if listener.auth == "none":
        raise QuestionError("user", f"nobody can sign in at listener {listener.name!r}: it has no 'auth'")
    return login(config, user)


def place_of_policy(config: Config, listener: Listener, rule: str) -> str:
    """The line that turns a policy on: of the listener, of the section for all, or none where nobody mentions it."""
    if rule not in config.policies.options():
        return ""
    brought = f"role {listener.role}" if rule in listener.policies.model_fields_set else ""
    return config.where_policy(listener, rule) or brought


# The cases of the file


def failures(stage: Stage) -> list[Mistake]:
    """The cases of a configuration that do not come out as they should. Runs a loop of its own, without a network."""
    return asyncio.run(_failures(stage))


async def _failures(stage: Stage) -> list[Mistake]:
    found = []
    for number, case in enumerate(stage.config.tests):
        failure = await _failure(stage, case)
        if failure is not None:
            key, message = failure
            found.append(_mistake(stage.config, ("tests", number, key), message))
    return found


def _mistake(config: Config, loc: Loc, message: str) -> Mistake:
    document = config.document
    if document is None:  # built in a program
        return Mistake(".".join(map(str, loc)), 0, 0, 0, message)
    return document.mistake(document.place(loc), message)


async def _failure(stage: Stage, case: Case) -> tuple[str, str] | None:
    """The key of the case that does not hold, and the words for it."""
    try:
        listener, question = _question(stage.config, case)
    except QuestionError as error:
        return error.key, f"test {case.title} cannot be: {error}"
    steps = await stage.play(listener, question)
    last, verdict = steps[-1], outcome(steps)
    key, expected = _unmet(stage.config, case, verdict, last)
    if not key:
        return None
    hint = _hint(case, listener, last) if verdict != "accept" == case.expect.outcome else ""
    return key, f"test {case.title} failed: expected {expected}, and {_happened(verdict, last)}{hint}"


def _question(config: Config, case: Case) -> tuple[Listener, Question]:
    listener = listener_of(config, case.listener)
    user, _ = user_of(config, listener, case.user)
    question = Question(
        case.sender,
        [case.to],
        case.client,
        case.helo,
        client_name=name_of(listener, case.client_name),
        tls=tls_of(config, listener, case.tls, case.user, case.client_certificate),
        is_implicit=listener.tls == "implicit",
        user=user,
    )
    return listener, question


def _unmet(config: Config, case: Case, verdict: str, last: TrialStep) -> tuple[str, str]:
    """The first expectation that does not hold: its key and what it expects; nothing where all do."""
    if not case.expect.is_met_by(verdict, last.reply.rpartition("\n")[2]):
        return "expect", str(case.expect)
    if case.rule is not None and case.rule != last.rule:
        return "rule", f"'{case.rule}' to decide"
    if case.delivered_to or case.relayed_to:
        wanted = [*case.delivered_to, *(route_to(relay, config.relays) for relay in case.relayed_to)]
        if {*wanted} != {*last.goes_to}:
            key = "delivered_to" if case.delivered_to else "relayed_to"
            return key, f"it to go to {' and '.join((*case.delivered_to, *case.relayed_to))}"
    return "", ""


def _happened(verdict: str, last: TrialStep) -> str:
    """What came of it, and the line that decided."""
    where = f" ({last.where})" if last.where else ""
    by = f"'{last.rule}'{where}" if last.rule else "the protocol and its limits"
    to = f", it goes to {' and '.join(last.goes_to)}" if last.goes_to and verdict == "accept" else ""
    reply = last.reply.rpartition("\n")[2]
    return f"{last.command} is answered {reply}, decided by {by}{to}"


def _hint(case: Case, listener: Listener, last: TrialStep) -> str:
    """Why the daemon might say something else to the real client."""
    is_missing = listener.reverse_dns and not case.client_name
    if is_missing and any("client_names does not hold" in note for note in last.notes):
        return "; nothing is looked up in the DNS: give the client's name as 'client_name'"
    return ""


def conditions_of(config: Config, step: TrialStep) -> dict[str, object]:
    """What the relay rule asks that decided a step, as the file has it."""
    for number, rule in enumerate(config.relay_rules):
        if rule.name == step.rule and config.where("relay_rules", number) == step.where:
            return conditions_of_rule(rule)
    return {}


def conditions_of_rule(rule: RelayRule) -> dict[str, object]:
    """What a rule asks, as the file has it."""
    asked = rule.model_dump(mode="json", exclude_unset=True, exclude=_DECISIONS)
    return {key: value for key, value in asked.items() if value not in ([], None)}


_DECISIONS = {"name", "deliver", "reject", "defer", "relay"}
