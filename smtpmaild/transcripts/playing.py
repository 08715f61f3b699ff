"""Plays transcripts and finds where what is said differs first from what was expected.

`rehearse` plays against a service in this process: nothing is stored, every password is right. `play` plays against a
server that is running somewhere. Where both differ from a real client: a body that was left out is one of the same
length with nothing in it, and against a server the client is this machine.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from smtpmaild.dialogue import Dialogue
from smtpmaild.envelope import Peer, Tls
from smtpmaild.service import Service
from smtpmaild.transcripts import Expect, Instead, Mark, Say, Step, Transcript
from smtpmaild.trial import dry

_HEADER = b"Subject: replayed\r\n\r\n"
_LINE = b"x" * 76 + b"\r\n"
#: Seconds that a running server has for its next line.
_PATIENCE = 60.0
_FAREWELL = 2.0


#: What the reply to the command before is for.
_WITHOUT_REPLY = (Mark.TLS, Mark.OCTETS)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first one. where: of the step.  before: what the client had said and waits for.  expected, said: lines as
    transcripts have them; "" for nothing.  rule: who decided, where that is known."""

    where: str
    before: str
    expected: str
    said: str
    rule: str = ""

    def render(self) -> str:
        """As a diff shows it."""
        by = f"   decided by '{self.rule}'" if self.rule else ""
        lines = [f"  {self.before}"] if self.before else []
        lines += [f"- {self.expected}"] if self.expected else []
        lines += [f"+ {self.said}{by}"] if self.said else [f"+ (nothing){by}"]
        return "\n".join([f"{self.where}:", *lines])


class NotPlayedError(Exception):
    """The transcript cannot be played on: here, with what there is."""


class Server(Protocol):
    """Who is talked to. rule: who decided what it said last, "" where nobody can know."""

    rule: str

    async def send(self, data: bytes) -> None: ...
    async def begin_tls(self) -> None: ...
    async def sign_in(self, mechanism: str, user: str) -> None: ...
    async def next_line(self) -> str | None:
        """Without CRLF; None where no line comes any more."""
        ...

    async def has_closed(self) -> bool:
        """Nothing else is to come."""
        ...


async def compare(transcript: Transcript, server: Server) -> Difference | None:
    """Play the steps until one of them is answered otherwise. Raises NotPlayedError."""
    unanswered: deque[str] = deque()
    for step in transcript.steps:
        if isinstance(step, Expect):
            before = unanswered[0] if unanswered else ""
            difference = await _heard(step, server, before)
            if difference is not None:
                return difference
            if unanswered and step.pattern[3:4] != "-":
                unanswered.popleft()
        else:
            if not isinstance(step, Instead) or step.mark not in _WITHOUT_REPLY:
                unanswered.append(step.source)
            await _act(step, server)
    before = unanswered[0] if unanswered else ""
    line = await server.next_line() if transcript.is_closed else None
    if line is not None:
        return Difference(transcript.name, before, "", f"S: {line}", server.rule)
    if await server.has_closed() != transcript.is_closed:
        ended, open_ = "S.", "(the connection stays open)"
        expected, said = (ended, open_) if transcript.is_closed else (open_, ended)
        return Difference(transcript.name, before, expected, said, server.rule)
    return None


async def _heard(step: Expect, server: Server, before: str) -> Difference | None:
    line = await server.next_line()
    while line is not None and step.skips and not step.matches(line):
        line = await server.next_line()
    if line is not None and step.matches(line):
        return None
    return Difference(step.where, before, step.source, "" if line is None else f"S: {line}", server.rule)


async def _act(step: Say | Instead, server: Server) -> None:
    if isinstance(step, Say):
        await server.send(step.data)
    elif step.mark is Mark.TLS:
        await server.begin_tls()
    elif step.mark is Mark.AUTH:
        mechanism, _, user = step.argument.partition(" ")
        await server.sign_in(mechanism, user)
    else:
        await server.send(_instead_of(step.mark, int(step.argument)))


def _instead_of(mark: Mark, size: int) -> bytes:
    if mark is Mark.OCTETS:
        return filler(size)
    return filler(size - 2) + b"\r\n.\r\n" if size >= 2 else b".\r\n"


def filler(size: int) -> bytes:
    """A message of so many octets with nothing in it."""
    if size < len(_HEADER):
        return b"x" * size
    body = _LINE * (1 + size // len(_LINE))
    made = _HEADER + body[: size - len(_HEADER)]
    return made[:-1] + b"x" if made.endswith(b"\r") else made  # a bare CR would be refused


# In this process


@dataclass(slots=True)
class _Rehearsed:
    """A service that is played to."""

    dialogue: Dialogue
    tasks: set[asyncio.Task[None]]
    lines: list[tuple[str, str]] = field(default_factory=list)  # with the rule that decided
    rule: str = ""

    async def send(self, data: bytes) -> None:
        self.dialogue.receive_data(data)
        await self._settle()

    async def begin_tls(self) -> None:
        self.dialogue.secure(Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256), None)
        await self._settle()

    async def sign_in(self, mechanism: str, user: str) -> None:
        await self.send(f"AUTH {mechanism} =\r\n".encode())

    async def next_line(self) -> str | None:
        await self._settle()
        line, self.rule = self.lines.pop(0) if self.lines else (None, "")
        return line

    async def has_closed(self) -> bool:
        return self.dialogue.protocol.is_closed

    async def _settle(self) -> None:
        while True:
            while self.tasks:
                await asyncio.wait(self.tasks)
            if not (said := self.dialogue.protocol.data_to_send()):
                break
            rule = self.dialogue.receiver.session.decided_by
            self.lines += [(line, rule) for line in said.decode("utf-8", "replace").split("\r\n")[:-1]]
            self.dialogue.advance()


def begins_otherwise(transcript: Transcript, is_implicit: bool) -> Difference | None:
    """What the client on record meets where the listener begins with TLS and did not then, or the other way round."""
    if transcript.is_implicit_tls == is_implicit:
        return None
    ways = ("(TLS from the first octet)", "(clear text)")
    expected, said = ways if transcript.is_implicit_tls else reversed(ways)
    return Difference(transcript.name, "", expected, said)


async def rehearse(transcript: Transcript, service: Service, is_implicit: bool | None = None) -> Difference | None:
    """Play it against a service, which stores nothing. is_implicit: TLS comes first; None: where it did on record."""
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    dialogue = Dialogue(dry(service, user_of(transcript.steps)), Peer(transcript.client, 0), spawn, lambda: None)
    if service.client_names is not None:  # nobody would have looked it up
        dialogue.receiver.session.client_name = transcript.client_name
    server = _Rehearsed(dialogue, tasks)
    try:
        if _begins_with_tls(transcript, is_implicit):
            dialogue.secure(Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256), None)
        dialogue.advance()
        return await compare(transcript, server)
    finally:
        dialogue.stop("end of transcript")


def _begins_with_tls(transcript: Transcript, is_implicit: bool | None) -> bool:
    return transcript.is_implicit_tls if is_implicit is None else is_implicit


def user_of(steps: Sequence[Step]) -> str:
    """Who signs in in a transcript."""
    marks = (step.argument for step in steps if isinstance(step, Instead) and step.mark is Mark.AUTH)
    return next((user for _, _, user in (mark.partition(" ") for mark in marks) if user), "somebody")


# Against a server


@dataclass(slots=True)
class _Connected:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    password: str
    rule: str = ""

    async def send(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass  # what it says instead is read

    async def begin_tls(self) -> None:
        await self.writer.start_tls(_trusting())

    async def sign_in(self, mechanism: str, user: str) -> None:
        if not self.password:
            raise NotPlayedError(f"the client signs in as {user}: its password is not on record, give it by a file")
        secret = base64.b64encode(f"\0{user}\0{self.password}".encode())
        await self.send(b"AUTH PLAIN " + secret + b"\r\n")

    async def next_line(self) -> str | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                line = await self.reader.readline()
        except TimeoutError:
            return None
        return line.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r") if line else None

    async def has_closed(self) -> bool:
        try:
            async with asyncio.timeout(0.2):
                return not await self.reader.read(1)
        except TimeoutError:
            return False


def _trusting() -> ssl.SSLContext:
    """Whoever replays knows whom; the certificate is not the question."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def play(
    transcript: Transcript, host: str, port: int, password: str = "", is_implicit: bool | None = None
) -> Difference | None:
    """Play it against a server. host: a path for a Unix socket.  is_implicit: as in rehearse. Raises OSError where
    nobody listens, NotPlayedError."""
    context = _trusting() if _begins_with_tls(transcript, is_implicit) else None
    if host.startswith("/"):
        name = "localhost" if context else None  # asyncio wants one; it is not looked at
        reader, writer = await asyncio.open_unix_connection(host, ssl=context, server_hostname=name)
    else:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        return await compare(transcript, _Connected(reader, writer, password))
    finally:
        writer.close()
        try:
            async with asyncio.timeout(_FAREWELL):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            pass  # gone is gone
