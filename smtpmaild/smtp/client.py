"""`ClientSession`: the other side of SMTP and LMTP, for a driver that moves the bytes. No socket, no clock, no loop.

The driver asks for one thing at a time, moves `data_to_send` out and what comes in to `receive_data`, and takes
`next_event` until the thing has its event:

| asked for          | events                                                                             |
|--------------------|------------------------------------------------------------------------------------|
| the session itself | Ready, or Failed: greeting and EHLO (HELO where EHLO is unknown; LHLO for LMTP)    |
| start_tls()        | HandshakeDue, or Failed.  After the handshake secured(): Ready or Failed           |
| authenticate()     | any number of Challenge, each answered by respond(); then SignedIn, or Failed      |
| send(mailing)      | BodyDue, unless nobody wants the message; then write() and end_body(); always Sent |
| quit()             | Closed                                                                             |

What is refused leaves the session sound: another thing can be asked for, or quit(). A session is no longer sound when
the server said 421, went away (connection_lost), took too long (timed_out), or said what no server may say there: then
what was asked for fails with a temporary reply that keeps the server's words, and nothing more is sent.

A reply belongs to the oldest command without one. A server that speaks when nothing is asked is not sound: whatever it
said in advance would be taken for the answer to the next command, and behind STARTTLS for something said within TLS.

One door: every reply of the server passes _take, every end of a session _break.
"""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from smtpmaild.smtp.data import DotEncoder
from smtpmaild.smtp.mailing import Mailing, Offer
from smtpmaild.smtp.reply import OwnReply, Reply
from smtpmaild.smtp.reply_reader import ReplyReader, Strange


class Phase(Enum):
    """What the server has to answer next: time limits and failures are told by it (RFC 5321 §4.5.3.2)."""

    GREETING = "waiting for the greeting"
    HELLO = "greeting the server"
    STARTTLS = "asking for TLS"
    AUTH = "signing in"
    RSET = "beginning a transaction"
    MAIL = "sending MAIL"
    RCPT = "sending RCPT"
    DATA = "sending DATA"
    BODY = "sending the message"
    END_OF_DATA = "waiting for the reply to the message"
    QUIT = "saying QUIT"
    IDLE = "doing nothing"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Ready:
    """The server has greeted us; `offer` of the session says what it can do."""


@dataclass(frozen=True, slots=True)
class HandshakeDue:
    """220 to STARTTLS: the next octets in both directions are the handshake's."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Of a SASL exchange, base64 taken off."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """235."""


@dataclass(frozen=True, slots=True)
class BodyDue:
    """Somebody wants the message: write() all of it, then end_body()."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The transaction is over. replies: one for each recipient, in order."""

    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """What was asked for has failed, for this reason."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Closed:
    """QUIT was said, and answered in whatever way."""


Event = Ready | HandshakeDue | Challenge | SignedIn | BodyDue | Sent | Failed | Closed
_Act = Callable[[Reply], None]
_Command = tuple[str, Phase, _Act]

# RFC 4954 §4: the AUTH command itself is a command line like others.
_COMMAND_LINE = 512


def _strange(said: str) -> OwnReply:
    return OwnReply(451, "4.5.0", f"Protocol error of the remote server: {said}")


class _Transaction:
    """What became of the recipients so far. pending: numbers of those whom the server has accepted."""

    __slots__ = ("mailing", "pending", "replies")

    def __init__(self, mailing: Mailing) -> None:
        self.mailing = mailing
        self.replies: list[Reply | None] = [None] * len(mailing.recipients)
        self.pending: list[int] = []

    def settle_all(self, reply: Reply) -> None:
        """The same for everybody whose fate is open."""
        self.replies = [known or reply for known in self.replies]
        self.pending = []


class ClientSession:
    """One connection to a server, from its greeting on.

    hostname: how we call ourselves.  offer: what the server said it can do.  is_sound: more can be asked for.
    answered: replies to commands so far; where it stands still, nothing comes.
    """

    __slots__ = (
        "_body", "_body_left", "_commands", "_end_of_session", "_events", "_expected", "_hello", "_hostname",
        "_is_ended", "_is_lmtp", "_is_used", "_output", "_reader", "_transaction", "answered", "is_sound", "offer",
    )  # fmt: skip

    def __init__(self, hostname: str, *, is_lmtp: bool = False) -> None:
        self.offer = Offer()
        self.is_sound = True
        self.answered = 0
        self._end_of_session: Closed | Failed = Closed()  # once it is not sound
        self._hostname = hostname
        self._is_lmtp = is_lmtp
        self._hello = "LHLO" if is_lmtp else "EHLO"
        self._reader = ReplyReader()
        self._output: list[bytes] = []
        self._events: deque[Event] = deque()
        self._expected: deque[tuple[Phase, _Act]] = deque([(Phase.GREETING, self._on_greeting)])
        self._commands: deque[_Command] = deque()  # of a transaction, not yet sent
        self._transaction: _Transaction | None = None
        self._body: DotEncoder | None = None
        self._body_left = 0  # octets that BDAT still promises
        self._is_ended = True  # all of the body was written
        self._is_used = False  # a transaction was begun: RSET comes before the next

    # What the driver moves and asks

    @property
    def phase(self) -> Phase:
        """What the server has to answer next."""
        if not self._is_ended:
            return Phase.BODY
        return self._expected[0][0] if self._expected else Phase.IDLE

    @property
    def wants_body(self) -> bool:
        """True from BodyDue until end_body(), unless the transaction ends before."""
        return not self._is_ended and self.is_sound

    @property
    def unread(self) -> int:
        """Octets that were received and not understood yet: a driver need not take them without bound."""
        return len(self._reader)

    def data_to_send(self) -> bytes:
        """What is to be written to the server; b"" for nothing."""
        data = b"".join(self._output)
        self._output.clear()
        return data

    def receive_data(self, data: bytes) -> None:
        """Octets from the server."""
        self._reader.feed(data)

    def connection_lost(self) -> None:
        """The server has gone, or the network. What it said before has been received."""
        self._drain()
        self.abandon("4.4.2", f"Lost the connection while {self.phase.value}")

    def timed_out(self) -> None:
        """The driver has waited long enough for the phase."""
        self.abandon("4.4.2", f"Timed out while {self.phase.value}")

    def abandon(self, enhanced: str, why: str) -> None:
        """The driver cannot go on: whatever is under way has failed for now."""
        self._break(OwnReply(451, enhanced, why))

    def next_event(self) -> Event | None:
        """What has happened; None until more is received."""
        if not self._events:
            self._drain()
        return self._events.popleft() if self._events else None

    # What can be asked for

    def start_tls(self) -> None:
        """Say STARTTLS; only where it is offered."""
        self._say("STARTTLS", Phase.STARTTLS, self._on_start_tls)

    def secured(self) -> None:
        """The handshake is done: begin anew. RFC 3207 §4.2: forget what was said before it."""
        self.offer = Offer()
        self._greet()

    def authenticate(self, mechanism: str, initial: bytes | None) -> None:
        """Say AUTH. initial: the initial response, None for a mechanism in which the server speaks first."""
        command = f"AUTH {mechanism}"
        if initial is not None:
            with_initial = f"{command} {base64.b64encode(initial).decode() or '='}"
            if len(with_initial) + 2 <= _COMMAND_LINE:
                self._say(with_initial, Phase.AUTH, self._on_auth)
                return
            # RFC 4954 §4: too long for the line, so the response waits for an empty challenge.
            self._say(command, Phase.AUTH, partial(self._on_empty_challenge, initial))
            return
        self._say(command, Phase.AUTH, self._on_auth)

    def respond(self, response: bytes | None) -> None:
        """Answer a Challenge; None cancels the exchange (RFC 4954 §4), which then fails."""
        line = "*" if response is None else base64.b64encode(response).decode()
        self._say(line, Phase.AUTH, self._on_auth)

    def send(self, mailing: Mailing) -> None:
        """Begin a transaction. What the server offers is used: PIPELINING, CHUNKING, SIZE, 8BITMIME, SMTPUTF8, DSN."""
        transaction = self._transaction = _Transaction(mailing)
        refusal = mailing.refusal(self.offer)
        if refusal is not None:
            transaction.settle_all(refusal)
        if recipients := self._recipient_commands(transaction):
            if self._is_used:
                self._commands.append(("RSET", Phase.RSET, self._on_rset))
            self._is_used = True
            self._commands.append((mailing.mail_command(self.offer), Phase.MAIL, self._on_mail))
            self._commands.extend(recipients)
            if "CHUNKING" not in self.offer:
                self._commands.append(("DATA", Phase.DATA, self._on_data))
        self._advance()

    def write(self, chunk: bytes) -> None:
        """The next octets of the message; let go if the transaction has ended already."""
        if not self.wants_body:
            return
        if self._body is not None:
            self._output.append(self._body.feed(chunk))
            return
        self._body_left -= len(chunk)
        if self._body_left < 0:
            self.abandon("4.3.0", "The message is longer than it was said to be")
        else:
            self._output.append(chunk)

    def end_body(self) -> None:
        """All of the message was written."""
        if not self.wants_body:
            return
        if self._body is not None:
            self._output.append(self._body.finish())
            self._body = None
        elif self._body_left:
            self.abandon("4.3.0", "The message is shorter than it was said to be")
        self._is_ended = True

    def quit(self) -> None:
        """Say QUIT, where there is somebody to say it to."""
        if self.is_sound:
            self._say("QUIT", Phase.QUIT, self._on_quit)
        if not self.is_sound:
            self._events.clear()
            self._events.append(Closed())

    # One door for replies, one for the end of a session

    def _drain(self) -> None:
        """Take what was received until something happens."""
        while self.is_sound and not self._events:
            reply = self._reader.next_reply()
            if reply is None:
                return
            self._take(reply)

    def _take(self, reply: Reply | Strange) -> None:
        if isinstance(reply, Strange):
            self._break(_strange(reply.why))
        elif reply.code == 421:  # RFC 5321 §3.8: "at any time"
            self._break(reply)
        elif not self._expected:
            self._break(_strange(f"it spoke out of turn: {reply}"))
        else:
            _, act = self._expected.popleft()
            self.answered += 1
            act(reply)

    def _break(self, reply: Reply) -> None:
        if not self.is_sound:
            return
        is_quitting = self._expected and self._expected[0][0] is Phase.QUIT
        self.is_sound = False
        self._end_of_session = Closed() if is_quitting else Failed(reply)
        self._commands.clear()
        self._expected.clear()
        self._output.clear()
        self._report()

    def _report(self) -> None:
        """What was asked for fails with the session."""
        end = self._end_of_session
        if self._transaction is not None and isinstance(end, Failed):
            self._transaction.settle_all(end.reply)
            self._finish()
        else:
            self._events.append(end)

    def _say(self, line: str, phase: Phase, act: _Act) -> None:
        if any(character in line for character in "\r\n\0"):
            raise ValueError("a command line cannot hold a line end")
        if not self.is_sound:  # it went while the driver did something else
            self._commands.clear()
            self._events.clear()
            self._report()
            return
        if not self._expected and len(self._reader):
            self._drain()
            self._break(_strange("it began a reply to no command"))
        if self.is_sound:
            self._output.append(line.encode() + b"\r\n")
            self._expected.append((phase, act))

    def _on_quit(self, reply: Reply) -> None:
        self.is_sound = False
        self._end_of_session = Closed()
        self._report()

    def _mistaken(self, command: str, reply: Reply) -> None:
        """A reply that has no meaning there: who knows what the server thinks it was asked."""
        self._break(_strange(f"{reply} in reply to {command}"))

    def _fail(self, command: str, reply: Reply) -> None:
        """Refused, in due form."""
        if reply.is_positive:
            self._mistaken(command, reply)
        else:
            self._events.append(Failed(reply))

    # Greeting, TLS, AUTH

    def _on_greeting(self, reply: Reply) -> None:
        if reply.code == 220:
            self._greet()
        else:
            self._fail("the connection", reply)

    def _greet(self) -> None:
        self._say(f"{self._hello} {self._hostname}", Phase.HELLO, self._on_hello)

    def _on_hello(self, reply: Reply) -> None:
        if reply.code == 250:
            if self._hello != "HELO":
                self.offer = Offer.of(reply)
            self._events.append(Ready())
        elif reply.is_permanent and self._hello == "EHLO":
            # RFC 5321 §3.2: a server that does not know EHLO, "the client SHOULD issue HELO".
            self._hello = "HELO"
            self._greet()
        else:
            self._fail(self._hello, reply)

    def _on_start_tls(self, reply: Reply) -> None:
        if reply.code != 220:
            self._fail("STARTTLS", reply)
        elif len(self._reader):
            # Said in clear text, it would be read as if it had come through TLS.
            self._break(_strange("it spoke before the TLS handshake"))
        else:
            self._events.append(HandshakeDue())

    def _on_auth(self, reply: Reply) -> None:
        if reply.code == 235:
            self._events.append(SignedIn())
        elif reply.code == 334:
            try:
                self._events.append(Challenge(base64.b64decode(reply.text.encode(), validate=True)))
            except binascii.Error:
                self._mistaken("AUTH", reply)
        else:
            self._fail("AUTH", reply)

    def _on_empty_challenge(self, initial: bytes, reply: Reply) -> None:
        if reply.code == 334 and not reply.text:
            self.respond(initial)
        else:
            self._fail("AUTH", reply)

    # A transaction

    def _recipient_commands(self, transaction: _Transaction) -> list[_Command]:
        """RCPT for everybody who was not refused by ourselves."""
        commands: list[_Command] = []
        for number, recipient in enumerate(transaction.mailing.recipients):
            command = transaction.replies[number] or transaction.mailing.rcpt_command(recipient, self.offer)
            if isinstance(command, Reply):
                transaction.replies[number] = command
            else:
                commands.append((command, Phase.RCPT, partial(self._on_rcpt, number)))
        return commands

    def _advance(self) -> None:
        """Send what may be sent: everything to a server that takes groups (RFC 2920), else the next command."""
        while self._commands and (not self._expected or "PIPELINING" in self.offer):
            if self._commands[0][1] is Phase.DATA and not self._expected and not self._open_transaction.pending:
                self._commands.clear()  # nobody wants it
            else:
                self._say(*self._commands.popleft())
        if not self._expected and self.is_sound:
            # DATA, where it was said, has settled everybody or begun the body.
            if self._open_transaction.pending:
                self._say_bdat()
            else:
                self._finish()

    @property
    def _open_transaction(self) -> _Transaction:
        assert self._transaction is not None
        return self._transaction

    def _on_rset(self, reply: Reply) -> None:
        if reply.code != 250:
            self._mistaken("RSET", reply)
        else:
            self._advance()

    def _on_mail(self, reply: Reply) -> None:
        if not reply.is_positive:
            self._open_transaction.settle_all(reply)
            self._commands.clear()
        elif reply.code >= 300:
            self._mistaken("MAIL", reply)
            return
        self._advance()

    def _on_rcpt(self, number: int, reply: Reply) -> None:
        transaction = self._open_transaction
        if 300 <= reply.code < 400:
            self._mistaken("RCPT", reply)
            return
        if transaction.replies[number] is None:
            if reply.is_positive:
                transaction.pending.append(number)
            else:
                transaction.replies[number] = reply
        self._advance()

    def _on_data(self, reply: Reply) -> None:
        transaction = self._open_transaction
        if reply.code == 354 and transaction.pending:
            self._body = DotEncoder()
            self._begin_body()
        elif reply.code == 354 and not self._is_lmtp:
            # RFC 2920 §3.1: DATA was in the group, the server takes it, nobody wants it: "the client SMTP SHOULD send
            # a single dot".
            self._say(".", Phase.END_OF_DATA, lambda _: self._finish())
        elif reply.is_positive:
            self._mistaken("DATA", reply)
        else:
            transaction.settle_all(reply)
            self._advance()

    def _say_bdat(self) -> None:
        # All of it in one chunk (RFC 3030 §2): the size is known. Never in one group with RCPT: a server that refuses
        # a command and does not skip what belongs to it would read the message as commands.
        self._body_left = self._open_transaction.mailing.size
        self._say(f"BDAT {self._body_left} LAST", Phase.END_OF_DATA, self._on_end_of_data)
        if self.is_sound:
            self._begin_body()

    def _begin_body(self) -> None:
        # RFC 2033 §4.2: in LMTP a reply for each recipient that was accepted.
        count = len(self._open_transaction.pending) if self._is_lmtp else 1
        self._expected = deque([(Phase.END_OF_DATA, self._on_end_of_data)] * count)
        self._is_ended = False
        self._events.append(BodyDue())

    def _on_end_of_data(self, reply: Reply) -> None:
        transaction = self._open_transaction
        if not self._is_ended and not reply.is_positive:
            self._break(reply)  # it will not listen to the rest, and the rest cannot be left out
        elif not self._is_ended or 300 <= reply.code < 400:
            self._mistaken("the message", reply)
        elif self._is_lmtp:
            transaction.replies[transaction.pending.pop(0)] = reply
        else:
            transaction.settle_all(reply)
        if not self._expected and self.is_sound:
            self._finish()

    def _finish(self) -> None:
        replies = tuple(reply for reply in self._open_transaction.replies if reply is not None)
        self._transaction = None
        self._body = None
        self._is_ended = True
        self._events.append(Sent(replies))
