"""The other end of a delivery: a server in the loop of the test that says what it is told to, and messages for it."""

from __future__ import annotations

import asyncio
import base64
import io
import ssl
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import uvloop

from smtpmaild.auth.scram import ScramError, ScramKeys, ScramServer
from smtpmaild.delivery import Agent, Outcome
from smtpmaild.delivery.next_hop import NextHops
from smtpmaild.delivery.shared import Shared
from smtpmaild.envelope import BodyType
from smtpmaild.queue import QueuedMessage, QueuedRecipient
from smtpmaild.resolver import make_resolver
from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address, parse_mailbox

PATIENCE = 20.0
LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
#: What a script can say in place of a reply.
DROP, STALL = "drop", "stall"


def run(work: Coroutine[Any, Any, None], loop: str = "uvloop") -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.get_loop().set_debug(True)
        runner.run(asyncio.wait_for(work, PATIENCE))


class Facts:
    """A log that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, /, **facts: object) -> None:
        self.events.append(event)

    warning = error = info

    def exception(self, event: str, /, **facts: object) -> None:
        self.events.append(f"{event} {traceback.format_exc()}")


@dataclass
class Script:
    """What a server offers and says. replies: the beginning of a command -> its reply, in place of yes; "." is the end
    of a message, and a list is one reply for each time."""

    offers: Sequence[str] = ("PIPELINING",)
    replies: dict[str, str | list[str]] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    is_lmtp: bool = False
    password: str = "pass"


@dataclass
class Taken:
    """A message that the server has taken."""

    commands: list[str]
    body: bytes


class Peer:
    """A SMTP or LMTP server. sessions: the commands of each; taken: what was accepted."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.sessions: list[list[str]] = []
        self.taken: list[Taken] = []
        self.open = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        commands: list[str] = []
        self.sessions.append(commands)
        try:
            await _Conversation(self, commands, reader, writer).hold()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    def reply(self, command: str, yes: str) -> str:
        for beginning, said in self.script.replies.items():
            if command.startswith(beginning):
                return said if isinstance(said, str) else said.pop(0) if said else yes
        return yes


class _Conversation:
    def __init__(
        self, peer: Peer, commands: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.peer, self.commands, self.reader, self.writer = peer, commands, reader, writer
        self.accepted = 0
        self.mail: list[str] = []

    async def hold(self) -> None:
        await self.say(self.peer.reply("greeting", "220 peer.example ready"))
        while line := (await self.reader.readline()).decode().rstrip("\r\n"):
            self.commands.append(line)
            verb = line.split()[0].upper()
            if verb == "QUIT":
                await self.say(self.peer.reply(line, "221 bye"))
                return
            await self.VERBS.get(verb, _Conversation.other)(self, line)

    async def say(self, reply: str) -> None:
        if reply == STALL:
            await asyncio.sleep(PATIENCE)
        if reply == DROP:
            raise ConnectionAbortedError
        self.writer.write(reply.encode() + b"\r\n")
        await self.writer.drain()

    async def other(self, line: str) -> None:
        await self.say(self.peer.reply(line, "250 2.0.0 ok"))

    async def hello(self, line: str) -> None:
        is_clear = self.writer.get_extra_info("ssl_object") is None
        starttls = ["STARTTLS"] if self.peer.script.tls and is_clear else []
        keywords = ["peer.example", *self.peer.script.offers, *starttls]
        lines = [f"250-{word}" for word in keywords[:-1]] + [f"250 {keywords[-1]}"]
        await self.say(self.peer.reply(line, "\r\n".join(lines)))

    async def starttls(self, line: str) -> None:
        reply = self.peer.reply(line, "220 go")
        await self.say(reply)
        if reply.startswith("220") and self.peer.script.tls is not None:
            await self.writer.start_tls(self.peer.script.tls)

    async def auth(self, line: str) -> None:
        _, mechanism, *initial = line.split()
        password = self.peer.script.password
        if "AUTH" in self.peer.script.replies:
            await self.other(line)
            return
        if mechanism == "PLAIN":
            is_right = base64.b64decode(initial[0]) == f"\0user\0{password}".encode()
        elif mechanism == "LOGIN":
            is_right = [await self.ask(b"User:"), await self.ask(b"Password:")] == [b"user", password.encode()]
        else:
            is_right = await self.scram(base64.b64decode(initial[0]))
        await self.say("235 2.7.0 welcome" if is_right else "535 5.7.8 wrong")

    async def ask(self, question: bytes) -> bytes:
        await self.say(f"334 {base64.b64encode(question).decode()}")
        return base64.b64decode(await self.reader.readline())

    async def scram(self, first: bytes) -> bool:
        server = ScramServer("SCRAM-SHA-256", None, "servernonce")
        server.read_first(first)
        final = await self.ask(server.challenge(ScramKeys.of_password(self.peer.script.password, b"salt", 4096)))
        try:
            proof = server.read_final(final)
        except ScramError:
            return False
        return await self.ask(proof) == b""

    async def mail_from(self, line: str) -> None:
        reply = self.peer.reply(line, "250 2.1.0 ok")
        self.mail, self.accepted = [line] if reply.startswith("2") else [], 0
        await self.say(reply)

    async def rcpt(self, line: str) -> None:
        reply = self.peer.reply(line, "250 2.1.5 ok" if self.mail else "503 5.5.1 MAIL first")
        if reply.startswith("2"):
            self.accepted += 1
            self.mail.append(line)
        await self.say(reply)

    async def data(self, line: str) -> None:
        reply = self.peer.reply(line, "354 go" if self.accepted else "503 5.5.1 no valid recipients")
        await self.say(reply)
        if not reply.startswith("354"):
            return
        body = b""
        while not (body == b".\r\n" or body.endswith(b"\r\n.\r\n")):
            if not (chunk := await self.reader.readline()):
                return
            body += chunk
        await self.end((b"\r\n" + body[:-3]).replace(b"\r\n..", b"\r\n.")[2:])

    async def bdat(self, line: str) -> None:
        await self.end(await self.reader.readexactly(int(line.split()[1])))

    async def end(self, body: bytes) -> None:
        replies = [
            self.peer.reply(".", "250 2.0.0 taken") for _ in range(self.accepted if self.peer.script.is_lmtp else 1)
        ]
        for reply in replies:
            await self.say(reply)
        if any(reply.startswith("2") for reply in replies):
            self.peer.taken.append(Taken(self.mail, body))

    VERBS: Mapping[str, Callable[[_Conversation, str], Coroutine[Any, Any, None]]] = {
        "EHLO": hello, "LHLO": hello, "STARTTLS": starttls, "AUTH": auth, "MAIL": mail_from, "RCPT": rcpt,
        "DATA": data, "BDAT": bdat,
    }  # fmt: skip


@asynccontextmanager
async def serving(
    script: Script, host: str = "127.0.0.1", port: int = 0, path: Path | None = None
) -> AsyncIterator[Peer]:
    peer = Peer(script)
    if path is not None:
        server = await asyncio.start_unix_server(peer.serve, path)
    else:
        server = await asyncio.start_server(peer.serve, host, port)
        peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for _ in range(100):  # what the tests left behind in a server ends with it
            if not peer.open:
                break
            await asyncio.sleep(0.01)


@asynccontextmanager
async def closing(agent: Agent) -> AsyncIterator[Agent]:
    try:
        yield agent
    finally:
        await agent.close()


def shared(log: Facts | None = None, next_hops: NextHops | None = None) -> Shared:
    return Shared("client.example", log or Facts(), next_hops or NextHops(make_resolver([("127.0.0.1", 1)], 1.0)))


def address(text: str) -> Address:
    found = parse_mailbox(text, lambda domain: domain.encode("idna").decode())
    assert found is not None, text
    return found


@dataclass(frozen=True)
class Bytes:
    """A body in memory. stated: the size it claims to have."""

    octets: bytes
    stated: int = -1

    @property
    def size(self) -> int:
        return len(self.octets) if self.stated < 0 else self.stated

    def open(self) -> BinaryIO:
        return io.BytesIO(self.octets)


class Unreadable:
    """A body whose file has gone."""

    size = 10

    def open(self) -> BinaryIO:
        raise FileNotFoundError(2, "No such file or directory")


MESSAGE = QueuedMessage(
    "Q1", address("sender@client.example"), 1_700_000_000.0, Bytes(b"Subject: x\r\n\r\n.\r\nhello\r\n")
)
BOUNCE = replace(MESSAGE, reverse_path=NULL_REVERSE_PATH)
EIGHT_BIT = replace(MESSAGE, body=Bytes(b"Subject: x\r\n\r\n\xe4\r\n"), body_type=BodyType.EIGHT_BIT_MIME)


def recipients(*addresses: str) -> list[QueuedRecipient]:
    return [QueuedRecipient(number, address(text), "relay:x") for number, text in enumerate(addresses)]


def shown(outcomes: Sequence[Outcome]) -> list[str]:
    return [str(outcome.reply) for outcome in outcomes]
