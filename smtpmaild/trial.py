"""What would happen: a session played through the very code the daemon runs, with stores that store nothing.

The client's lines go into a real `Dialogue` of the listener's real service; of every step the reply, who decided it
and, for an accepted recipient, where the mail would land are kept. Nothing touches the network or the disk.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from smtpmaild.auth import Authenticated, Authenticator, ChannelBinding
from smtpmaild.dialogue import Dialogue
from smtpmaild.envelope import Destination, Peer, Rule, Session, Tls, Transaction
from smtpmaild.service import Service
from smtpmaild.sink import Sink
from smtpmaild.sink.discard import DiscardSink
from smtpmaild.smtp.address import Address, parse_forward_path
from smtpmaild.smtp.extension import Security
from smtpmaild.smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class Question:
    """A session to try.

    client: the address it would come from, "" for a Unix socket.  client_name: its name in the DNS.  message: None
    ends the trial before DATA; CRLF line ends.  tls: None for a session in clear text.  is_implicit: TLS comes first.
    user: who signs in, "" for nobody; the password is taken for right.
    """

    sender: str
    recipients: Sequence[str]
    client: str = "192.0.2.1"
    helo: str = "client.example"
    message: bytes | None = None
    client_name: str = ""
    tls: Tls | None = None
    is_implicit: bool = False
    user: str = ""


@dataclass(slots=True)
class TrialStep:
    """One command and what came of it. reply: exactly as sent, its lines separated by "\\n".  rule: the policy or rule
    that decided, "" if it was the protocol itself.  where: the line of the config.  lands_in: paths.  goes_to: stores
    by their names, and what travels on by its routes.  notes: what monitored policies would have said, and why rules
    did not match.  conditions: what the rule asks that decided.  travels: route and domain of what goes on from the
    queue.  onward: what lies ahead of that, in words.  mailboxes: whose mail it is then."""

    command: str
    reply: str
    rule: str = ""
    where: str = ""
    lands_in: list[str] = field(default_factory=list)
    goes_to: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    conditions: Mapping[str, object] = field(default_factory=dict)
    travels: list[tuple[str, str]] = field(default_factory=list)
    onward: list[Mapping[str, object]] = field(default_factory=list)
    mailboxes: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The reply code."""
        return int(self.reply[:3])


class _DrySink(DiscardSink):
    """A store that says yes and keeps nothing; it knows its real one's paths and health."""

    def __init__(self, real: Sink) -> None:
        self._real = real

    def unhealthy(self) -> Reply | None:
        return self._real.unhealthy()

    def locate(self, destination: Destination) -> str:
        return self._real.locate(destination)


class _Doorkeeper:
    """Accounts that take everybody for whom he says he is."""

    def __init__(self, real: Authenticator, user: str) -> None:
        self.mechanisms = real.mechanisms
        self._user = user

    def begin(self, mechanism: str, session: Session, binding: ChannelBinding | None) -> _Welcome:
        return _Welcome(self._user)


@dataclass(frozen=True, slots=True)
class _Welcome:
    user: str

    def respond(self, response: bytes | None) -> Authenticated:
        return Authenticated(self.user)

    def cancel(self) -> None:
        """Never comes to that: the first answer is the last."""


class Notes:
    """The log of what is tried: what policies in monitor mode report becomes part of the answer."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def info(self, event: str, /, **facts: object) -> object:
        if event.startswith("policy_would"):
            self.notes.append(f"{facts['policy']} (monitored) would say: {facts['reply']}")
        return None

    warning = error = info

    def exception(self, event: str, /, **facts: object) -> object:
        self.notes.append(f"{facts.get('policy', 'smtpmaild')} raised {sys.exception()!r}")
        return None


#: (transaction, forward-path) -> the rules that were asked before the one that decided, each with why it did not.
Missed = Callable[[Transaction, Address], Sequence[tuple[Rule, str]]]


async def run(service: Service, question: Question, notes: Notes, missed: Missed = lambda *_: ()) -> list[TrialStep]:
    """Play the session; the steps in order. Ends where the daemon would end it, or has nothing left to decide.

    notes: the log that the service was built with.  missed: asked for each recipient that was refused.
    """
    return await _Trial(dry(service, question.user), question, notes, missed).run()


def dry(service: Service, user: str) -> Service:
    """A service that stores nothing, looks nothing up, and takes whoever signs in for this user."""
    sinks: Mapping[str, Sink] = {name: _DrySink(sink) for name, sink in service.sinks.items()}
    authenticator = service.authenticator and _Doorkeeper(service.authenticator, user)
    return replace(service, sinks=sinks, client_names=None, authenticator=authenticator)


class _Trial:
    def __init__(self, service: Service, question: Question, notes: Notes, missed: Missed) -> None:
        self._service = service
        self._question = question
        self._notes = notes
        self._missed = missed
        self._steps: list[TrialStep] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialogue = Dialogue(service, Peer(question.client, 0), self._spawn, lambda: None)
        self._dialogue.receiver.session.client_name = question.client_name

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> list[TrialStep]:
        try:
            await self._play()
        finally:
            self._dialogue.stop("trial")
        return self._steps

    async def _play(self) -> None:
        question = self._question
        if question.tls is not None and question.is_implicit:
            self._dialogue.secure(question.tls, None)
        self._dialogue.advance()
        if not (await self._keep("connect") and await self._introduce()):
            return
        # SMTPUTF8 is asked for where an address needs it, as a client would.
        utf8 = "" if question.sender.isascii() and "".join(question.recipients).isascii() else " SMTPUTF8"
        if not await self._say(f"MAIL FROM:<{question.sender}>{utf8}"):
            return
        accepted = [await self._say_rcpt(recipient) for recipient in question.recipients]
        if question.message is not None and any(accepted) and await self._say("DATA"):
            stuffed = (b"\r\n" + question.message).replace(b"\r\n.", b"\r\n..")[2:]
            end = b"" if stuffed.endswith(b"\r\n") or not stuffed else b"\r\n"
            await self._say("message", stuffed + end + b".")

    async def _introduce(self) -> bool:
        """Everything before the first message: who we are, and that nobody listens."""
        question, dialect = self._question, self._service.dialect
        greeting = f"{'LHLO' if dialect.is_lmtp else 'EHLO'} {question.helo}"
        if not await self._say(greeting):
            return False
        if question.tls is not None and not question.is_implicit:
            if not await self._say("STARTTLS"):
                return False
            self._dialogue.secure(question.tls, None)
            if not await self._say(greeting):
                return False
        if not question.user:
            return True
        mechanisms = dialect.at(Security.CLEAR if question.tls is None else Security.TLS).options.mechanisms
        mechanism = mechanisms[0] if mechanisms else "PLAIN"
        return await self._say(f"AUTH {mechanism} ({question.user})", f"AUTH {mechanism} =".encode())

    async def _say_rcpt(self, recipient: str) -> bool:
        is_accepted = await self._say(f"RCPT TO:<{recipient}>")
        transaction, step = self._dialogue.receiver.transaction, self._steps[-1]
        parsed = parse_forward_path(f"<{recipient}>", self._service.dialect.options.to_ascii)
        if transaction is None or parsed is None:
            return is_accepted
        route = self._service.router.route(transaction, parsed[0])
        if route.rule.name == step.rule:  # no policy was faster
            step.lands_in = [self._service.sinks[to.sink].locate(to) for to in route.destinations]
            step.mailboxes = [f"{to.mailbox}@{to.domain}" for to in route.destinations]
            step.travels = [*dict.fromkeys((to.route, to.domain) for to in route.destinations if to.route)]
            step.goes_to = [*dict.fromkeys(to.route or to.sink for to in route.destinations)]
            step.notes += [
                f"not by '{rule.name}'{f' ({rule.where})' if rule.where else ''}: {condition} does not hold"
                for rule, condition in self._missed(transaction, parsed[0])
            ]
        return is_accepted

    async def _say(self, command: str, line: bytes | None = None) -> bool:
        if self._dialogue.protocol.is_closed:
            return False
        self._dialogue.receive_data((command.encode() if line is None else line) + b"\r\n")
        return await self._keep(command)

    async def _keep(self, command: str) -> bool:
        while self._tasks:
            await asyncio.wait(self._tasks)
        receiver = self._dialogue.receiver
        step = TrialStep(command, _text(self._dialogue.protocol.data_to_send()), receiver.session.decided_by)
        step.notes, self._notes.notes = self._notes.notes, []
        if step.rule.endswith(")"):
            step.rule, _, where = step.rule[:-1].rpartition(" (")
            step.where = where
        if command.startswith("RCPT") and step.code < 400 and receiver.transaction is not None:
            route = receiver.transaction.envelope.recipients[-1].route
            step.rule, step.where = route.rule.name, route.rule.where
        self._steps.append(step)
        return step.code < 400


def _text(output: bytes) -> str:
    return "\n".join(output.decode("ascii").splitlines())


def outcome(steps: Sequence[TrialStep]) -> str:
    """accept, defer or reject: the worst of all steps, as the sender's server would have to report it."""
    worst = max(step.code // 100 for step in steps)
    return {4: "defer", 5: "reject"}.get(worst, "accept")


def with_crlf(message: bytes) -> bytes:
    """A message from a file, with the line ends it would have on the wire."""
    return message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
