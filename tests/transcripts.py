r"""Protocol tests as dialogues: the transcripts in tests/transcripts, played in all ways.

The format is that of smtpmaild/transcripts. What these files say besides:

    @config size=1000 disable=CHUNKING,HELP    options of the listener, see CONFIG; lmtp makes it one of LMTP
    @sink message b"..."                       a message was stored, these octets behind our Received field
    @sink 2 messages                           or only how many
    @sink empty                                nothing was stored
    @envelope <a@b> user@local.example         reverse-path and recipients of a stored message

What was stored is looked at when all is over, and all of it has to be named. The server is mx.local.example and takes
mail for user, other and postmaster at local.example; everything else is refused, as the daemon refuses it, by the same
routing, receiver and chain.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import socket
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import idna
import uvloop

from smtpmaild.content import Content
from smtpmaild.dialogue import Dialogue
from smtpmaild.envelope import Destination, Envelope, Peer, Rule, Session, Transaction
from smtpmaild.metrics import Metrics
from smtpmaild.policy import Mode, Policy, Verdict
from smtpmaild.policy.chain import Chain, Step
from smtpmaild.routing import LocalDomain, Routing
from smtpmaild.server.counts import Counts
from smtpmaild.server.listener import Door, Listener, Room
from smtpmaild.service import Service
from smtpmaild.sink import Outcome, Post
from smtpmaild.smtp.address import Address, no_idna
from smtpmaild.smtp.extension import ETRN, EXTENSIONS, XCLIENT, XFORWARD, Dialect, Extension, ServerOptions
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply
from smtpmaild.transcripts import Expect, Say
from smtpmaild.transcripts.reading import octets, read

FOLDER = Path(__file__).parent / "transcripts"
_PATIENCE = 10.0  # seconds that a client on a socket waits for what is to come


# Reading


@dataclass
class Transcript:
    """One file. messages: what is to be stored, or how many; None until a @sink line says it."""

    name: str
    options: ServerOptions
    extensions: tuple[Extension, ...] = EXTENSIONS
    verdicts: dict[str, Reply] = field(default_factory=dict)
    steps: list[Say | Expect] = field(default_factory=list)
    is_closed: bool = False
    messages: list[bytes] | int | None = None
    envelopes: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    @property
    def input(self) -> bytes:
        return b"".join(step.data for step in self.steps if isinstance(step, Say))


def to_ascii(domain: str) -> str:
    return idna.encode(domain, uts46=True).decode("ascii")


#: @config name=value -> the option that it sets, and how it is read.
CONFIG: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "size": ("message_size", int),
    "recipients": ("recipients", int),
    "messages": ("messages", int),
    "body_line": ("body_line", int),
    "bad_commands": ("bad_commands", int),
    "refused_recipients": ("refused_recipients", int),
    "keep_bare_newlines": ("keep_bare_newlines", bool),
    "bare_lf_commands": ("allow_bare_lf", bool),
    "lmtp": ("is_lmtp", bool),
    "dsn": ("reports", bool),
    "deliver_by": ("delivers_by", bool),
    "least_by": ("least_by", int),
    "hold": ("longest_hold", int),
    "priorities": ("priorities", str),
    "requires_onward_tls": ("requires_onward_tls", bool),
    "no_idna": ("to_ascii", lambda _: no_idna),
}
#: @config refuse_<stage>="550 5.7.1 No": a policy refuses. Of HELO and MAIL only bad.example and bad@bad.example.
STAGES = ("connect", "helo", "mail", "rcpt", "data", "part", "message")


def read_transcript(path: Path) -> Transcript:
    """Raises ValueError with file and line for what is not of the format."""
    found = read(path.read_text(), path.name)
    transcript = Transcript(path.stem, ServerOptions("mx.local.example", to_ascii=to_ascii))
    transcript.steps = [step for step in found.steps if isinstance(step, Say | Expect)]
    transcript.is_closed = found.is_closed
    for line in found.others:
        if line.word not in _READERS:
            raise ValueError(f"{line.where}: not a line of a transcript: {line.word} {line.rest}")
        _READERS[line.word](transcript, line.rest, line.where)
    if transcript.messages is None:
        raise ValueError(f"{path.name}: no @sink line says what is stored")
    return transcript


_TRUSTED_ONLY = {"xforward": XFORWARD, "xclient": XCLIENT, "etrn": ETRN}


def _read_config(transcript: Transcript, rest: str, where: str) -> None:
    for setting in shlex.split(rest):
        name, _, value = setting.partition("=")
        if name == "disable":
            off = value.split(",")
            transcript.extensions = tuple(row for row in transcript.extensions if row.keyword not in off)
        elif name in _TRUSTED_ONLY:
            transcript.extensions = (*transcript.extensions, _TRUSTED_ONLY[name])
        elif name.removeprefix("refuse_") in STAGES:
            code, enhanced, text = value.split(" ", 2)
            transcript.verdicts[name.removeprefix("refuse_")] = Reply(int(code), enhanced, text)
        elif name in CONFIG:
            option, read = CONFIG[name]
            transcript.options = replace(transcript.options, **{option: read(value or "yes")})  # type: ignore[arg-type]
        else:
            raise ValueError(f"{where}: no such option: {name}")


def _read_sink(transcript: Transcript, rest: str, where: str) -> None:
    if rest.startswith("message "):
        before = transcript.messages
        literal = octets(rest.removeprefix("message "), where)
        transcript.messages = [*(before if isinstance(before, list) else []), literal]
    elif match := re.fullmatch(r"(\d+) messages?|empty", rest):
        transcript.messages = int(match[1] or 0)
    else:
        raise ValueError(f"{where}: @sink empty, @sink N messages, or @sink message b'...'")


def _read_envelope(transcript: Transcript, rest: str, where: str) -> None:
    reverse_path, *recipients = rest.split(" ")
    transcript.envelopes.append((reverse_path[1:-1], tuple(recipients)))


_READERS: Mapping[str, Callable[[Transcript, str, str], None]] = {
    "@config": _read_config,
    "@sink": _read_sink,
    "@envelope": _read_envelope,
}


# The server


class MemorySink:
    """Keeps what was committed."""

    def __init__(self) -> None:
        self.stored: list[tuple[Envelope, bytes]] = []
        self.open_deliveries = 0

    def prepare(self) -> None:
        pass

    def start(self, post: Post) -> None:
        pass

    def stop(self) -> None:
        pass

    def unhealthy(self) -> Reply | None:
        return None

    def locate(self, destination: Destination) -> str:
        return destination.mailbox

    def begin(
        self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]
    ) -> MemoryDelivery:
        self.open_deliveries += 1
        return MemoryDelivery(self, envelope)


class MemoryDelivery:
    """Exactly one of commit and abort ends it."""

    def __init__(self, sink: MemorySink, envelope: Envelope) -> None:
        self._sink = sink
        self._envelope = envelope
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> bool:
        self._chunks.append(chunk)
        return True

    def commit(self, done: Callable[[Outcome], None]) -> None:
        self._sink.open_deliveries -= 1
        received, *chunks = self._chunks
        assert received.startswith(b"Received: from ")
        self._sink.stored.append((self._envelope, b"".join(chunks)))
        done(MESSAGE_ACCEPTED)

    def abort(self) -> None:
        self._sink.open_deliveries -= 1


class FailingLog:
    """A log that wants to hear of no bug."""

    def info(self, event: str, /, **facts: object) -> None:
        pass

    warning = error = info

    def __init__(self) -> None:
        self.bugs: list[str] = []

    def exception(self, event: str, /, **facts: object) -> None:
        self.bugs.append(f"{event}: {traceback.format_exc()}")


class Refusing(Policy):
    """Refuses at the stages that the transcript names."""

    name = "refusing"

    def __init__(self, verdicts: Mapping[str, Reply]) -> None:
        self._verdicts = verdicts

    def connect(self, session: Session) -> Verdict:
        return self._verdicts.get("connect")

    def helo(self, session: Session) -> Verdict:
        return self._verdicts.get("helo") if session.hello == "bad.example" else None

    def mail(self, transaction: Transaction) -> Verdict:
        is_bad = transaction.envelope.reverse_path.text == "bad@bad.example"
        return self._verdicts.get("mail") if is_bad else None

    def rcpt(self, transaction: Transaction, forward_path: Address) -> Verdict:
        return self._verdicts.get("rcpt")

    def data(self, transaction: Transaction) -> Verdict:
        return self._verdicts.get("data")

    def part(self, transaction: Transaction, chunk: bytes) -> Verdict:
        return self._verdicts.get("part")

    def message(self, transaction: Transaction, content: Content) -> Verdict:
        return self._verdicts.get("message")


class Server:
    """What serves one playing of a transcript."""

    def __init__(self, transcript: Transcript) -> None:
        self.sink = MemorySink()
        self.log = FailingLog()
        domain = LocalDomain(
            "local.example", Rule("local.example"), "memory", frozenset({"user", "other", "caf\u00e9"})
        )
        self.service = Service(
            listener="transcript",
            dialect=Dialect(transcript.options, transcript.extensions),
            chain=Chain.compile([(Refusing(transcript.verdicts), Mode.ENFORCE)], self.log),
            router=Routing([domain], hostname=transcript.options.hostname),
            sinks={"memory": self.sink},
            log=self.log,
            metrics=Metrics(),
            verbs={"ETRN": (Step("etrn", lambda _, argument: Reply(251, "2.0.0", f"Nothing for {argument}")),)},
        )


# Playing


@dataclass(frozen=True)
class Played:
    """What came of it: the whole output, whether the server closed, what was stored and what went wrong inside."""

    output: bytes
    is_closed: bool
    stored: list[tuple[Envelope, bytes]]
    open_deliveries: int
    bugs: list[str]


def play_in_memory(transcript: Transcript, pieces: Iterator[bytes]) -> Played:
    """Feed the client's octets into a dialogue, whatever the server says to them."""
    server = Server(transcript)
    output = b""

    def no_waiting(work: Coroutine[Any, Any, None]) -> None:
        work.close()
        raise AssertionError("nothing waits in a transcript")

    dialogue = Dialogue(server.service, Peer("192.0.2.1", 4711), no_waiting, lambda: None)
    dialogue.advance()
    for piece in (b"", *pieces):
        dialogue.receive_data(piece)
        while said := dialogue.protocol.data_to_send():
            output += said
            dialogue.advance()
    is_closed = dialogue.protocol.is_closed
    dialogue.stop("end of transcript")
    return Played(output, is_closed, server.sink.stored, server.sink.open_deliveries, server.log.bugs)


def play_whole(transcript: Transcript) -> Played:
    """Everything the client says in one piece: the server must take it in order."""
    return play_in_memory(transcript, iter([transcript.input]))


def play_byte_by_byte(transcript: Transcript) -> Played:
    """Every octet on its own."""
    return play_in_memory(transcript, (bytes([octet]) for octet in transcript.input))


def play_over_socket(transcript: Transcript) -> Played:
    """Over TCP on the loopback interface; the client waits where the transcript expects something."""
    with asyncio.Runner(debug=True) as runner:
        return runner.run(asyncio.wait_for(_play_over_socket(transcript), _PATIENCE))


def play_over_socket_with_uvloop(transcript: Transcript) -> Played:
    """The same on the loop that the daemon runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(_play_over_socket(transcript), _PATIENCE))


async def _play_over_socket(transcript: Transcript) -> Played:
    server = Server(transcript)
    is_empty = asyncio.Event()
    door = Door(server.service)
    listener = Listener(door, Counts(1).worker(0), Room(10), asyncio.get_running_loop(), is_empty.set)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await listener.open(listening, 1)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        output = b""
        for step in transcript.steps:
            if isinstance(step, Say):
                writer.write(step.data)
            else:
                output += await _read_up_to(step, reader)
        if not transcript.is_closed:
            # Said after everything was answered; a server that has closed already has done so before.
            await asyncio.sleep(0)
            is_closed = reader.at_eof()
            writer.write_eof()
        else:
            is_closed = True
        output += await reader.read()
        writer.close()
        await writer.wait_closed()
        await is_empty.wait()
        listener.close()
    return Played(output, is_closed, server.sink.stored, server.sink.open_deliveries, server.log.bugs)


async def _read_up_to(step: Expect, reader: asyncio.StreamReader) -> bytes:
    lines = b""
    while line := await reader.readline():
        lines += line
        if not step.skips or step.matches(line.decode().removesuffix("\r\n")):
            break
    return lines


WAYS: Mapping[str, Callable[[Transcript], Played]] = {
    "whole": play_whole,
    "byte by byte": play_byte_by_byte,
    "socket": play_over_socket,
    "socket with uvloop": play_over_socket_with_uvloop,
}


# Comparing


def compare(transcript: Transcript, played: Played) -> None:
    """Fails where the server said, did or stored something else than the transcript has it."""
    assert not played.bugs, played.bugs[0]
    lines = played.output.decode("ascii").split("\r\n")
    assert lines.pop() == "", "the last line has no CRLF"
    said = iter(lines)
    for step in transcript.steps:
        if isinstance(step, Expect):
            _find(step, said)
    assert not [*said], f"{transcript.name}: the server said more than that"
    assert played.is_closed == transcript.is_closed, f"{transcript.name}: closed or not"
    assert played.open_deliveries == 0, f"{transcript.name}: a delivery was neither committed nor aborted"
    _compare_stored(transcript, played)


def _find(step: Expect, said: Iterator[str]) -> None:
    for line in said:
        if step.matches(line):
            return
        assert step.skips, f"{step.where}: expected {step.pattern!r}, the server said {line!r}"
    raise AssertionError(f"{step.where}: expected {step.pattern!r}, the server said nothing")


def _compare_stored(transcript: Transcript, played: Played) -> None:
    messages = [message for _, message in played.stored]
    if isinstance(transcript.messages, int):
        assert len(messages) == transcript.messages, f"{transcript.name}: {len(messages)} messages stored"
    else:
        assert messages == transcript.messages
    if transcript.envelopes:
        envelopes = [
            (envelope.reverse_path.text, tuple(recipient.address.text for recipient in envelope.recipients))
            for envelope, _ in played.stored
        ]
        assert envelopes == transcript.envelopes


def without_queue_ids(output: bytes) -> bytes:
    """The output with everything that differs from one playing to the next made the same."""
    return re.sub(rb"queued as [0-9A-Z]+", b"queued as ID", output)
