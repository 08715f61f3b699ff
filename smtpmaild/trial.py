"""What would happen: a session played through the very code the daemon runs, with stores that store nothing.

The client's lines go into a real `Dialogue` of the listener's real service; of every step the reply, who decided it
and, for an accepted recipient, where the mail would land are kept. Nothing touches the network or the disk.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from smtpmaild.dialogue import Dialogue
from smtpmaild.envelope import Destination, Peer
from smtpmaild.receiver import Service
from smtpmaild.sink import Sink
from smtpmaild.sink.discard import DiscardSink
from smtpmaild.smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class Question:
    """A session to try. client: the address it would come from, "" for a Unix socket.  message: None ends the trial
    before DATA; CRLF line ends."""

    sender: str
    recipients: Sequence[str]
    client: str = "192.0.2.1"
    helo: str = "client.example"
    message: bytes | None = None


@dataclass(slots=True)
class TrialStep:
    """One command and what came of it. reply: exactly as sent, its lines separated by "\\n".  rule: the policy or rule
    that decided, "" if it was the protocol itself.  where: the line of the config.  lands_in: paths.  notes: what
    monitored policies would have said."""

    command: str
    reply: str
    rule: str = ""
    where: str = ""
    lands_in: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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


class Notes:
    """The log of what is tried: what policies in monitor mode report becomes part of the answer."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def info(self, event: str, **facts: object) -> object:
        if event.startswith("policy_would"):
            self.notes.append(f"{facts['policy']} (monitored) would say: {facts['reply']}")
        return None

    warning = error = info

    def exception(self, event: str, **facts: object) -> object:
        self.notes.append(f"{facts.get('policy', 'smtpmaild')} raised {sys.exception()!r}")
        return None


async def run(service: Service, question: Question, notes: Notes) -> list[TrialStep]:
    """Play the session; the steps in order. Ends where the daemon would end it, or has nothing left to decide.

    notes: the log that the service was built with.
    """
    sinks: Mapping[str, Sink] = {name: _DrySink(sink) for name, sink in service.sinks.items()}
    return await _Trial(replace(service, sinks=sinks, client_names=None), question, notes).run()


class _Trial:
    def __init__(self, service: Service, question: Question, notes: Notes) -> None:
        self._service = service
        self._question = question
        self._notes = notes
        self._steps: list[TrialStep] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialogue = Dialogue(service, Peer(question.client, 0), self._spawn, lambda: None)

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
        self._dialogue.advance()
        if not await self._keep("connect"):
            return
        # SMTPUTF8 is asked for where an address needs it, as a client would.
        utf8 = "" if question.sender.isascii() and "".join(question.recipients).isascii() else " SMTPUTF8"
        greeting = "LHLO" if self._service.dialect.is_lmtp else "EHLO"
        for command in (f"{greeting} {question.helo}", f"MAIL FROM:<{question.sender}>{utf8}"):
            if not await self._say(command):
                return
        accepted = [await self._say(f"RCPT TO:<{recipient}>") for recipient in question.recipients]
        if question.message is not None and any(accepted) and await self._say("DATA"):
            stuffed = (b"\r\n" + question.message).replace(b"\r\n.", b"\r\n..")[2:]
            end = b"" if stuffed.endswith(b"\r\n") or not stuffed else b"\r\n"
            await self._say("message", stuffed + end + b".")

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
            step.lands_in = [self._service.sinks[to.sink].locate(to) for to in route.destinations]
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
