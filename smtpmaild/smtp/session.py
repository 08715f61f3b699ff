"""The server's side of one SMTP session: bytes in, events out; replies in, bytes out.

    session.receive_data(data)              what the network brought
    while (event := session.next_event()):  parse on until an event needs a reply, or input runs out
        session.reply(...)                  for every event but Body
    transport.write(session.data_to_send()) one write for all replies of a pipelined group

Bad syntax and bad order are answered here, and so is everything that needs no decision. After an event the session is
paused, and input waits behind it in order, until reply(). After a 220 to STARTTLS what comes in clear is dropped until
restart(). All state changes go through `_move`, all bytes out through
`data_to_send`. Nothing a peer sends raises; a driver that replies when nothing was asked gets a RuntimeError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final

from smtpmaild.smtp import reply as replies
from smtpmaild.smtp import timing
from smtpmaild.smtp.address import parse_forward_path, parse_reverse_path
from smtpmaild.smtp.attributes import parse_xclient, parse_xforward
from smtpmaild.smtp.command import (
    after_keyword,
    auth_without_secret,
    decode_base64,
    decode_line,
    parse_auth,
    parse_bdat,
    parse_parameters,
    split_command,
)
from smtpmaild.smtp.data import BodyChecker, DotDecoder
from smtpmaild.smtp.events import (
    Auth,
    AuthCancelled,
    AuthResponse,
    Body,
    Command,
    Connected,
    Data,
    EndOfData,
    Event,
    Hello,
    LineTooLong,
    Mail,
    Rcpt,
    StartTls,
    XClient,
    XForward,
)
from smtpmaild.smtp.extension import BASE_LINE_LIMIT, Dialect, Security
from smtpmaild.smtp.lines import BadLine, LineBuffer
from smtpmaild.smtp.reply import Reply, printable
from smtpmaild.smtp.state import NEXT, OTHER_REFUSALS, Cause, State

# A peer that pipelines commands and never reads the replies gets no more than this before the session stalls: 64 KiB
# of "EHLO x" would otherwise be answered with megabytes.
_OUTPUT_LIMIT = 64 * 1024
# For the log: so many refused commands, so much of each.
_REFUSALS_KEPT = 20
_LINE_KEPT = 120
# RFC 4954 §4: "the maximum length of a line in an authentication exchange ... 12288 octets", CRLF included.
_AUTH_LINE_LIMIT = 12288


class _Answered(Enum):
    """The input was dealt with; there may be more to read."""

    ANSWERED = "answered"


_ANSWERED: Final = _Answered.ANSWERED
_Step = Event | _Answered | None


class _Chunk:
    """The octets of one BDAT. refusal: they are read and dropped, then this is said."""

    __slots__ = ("is_last", "left", "refusal", "size")

    def __init__(self, size: int, is_last: bool, refusal: Reply | None = None) -> None:
        self.size = self.left = size
        self.is_last = is_last
        self.refusal = refusal


class ServerSession:
    """One connection's protocol state.

    has_begun: the banner was answered.  is_closed: no input is looked at any more; send what there is to send, then
    close.  farewell: the reply that ended the session, once it has ended by one.  refusals: commands that were refused
    here, as printable text, with their replies; the first few.  is_upgrading: TLS is to begin, then restart().
    is_authenticated: AUTH succeeded.
    """

    __slots__ = (
        "_bad_commands", "_checker", "_chunk", "_decoder", "_dialect", "_end_was_seen", "_input", "_is_extended",
        "_is_shutting_down", "_is_utf8", "_line", "_locked", "_may_be_secret", "_output", "_output_size", "_parameters",
        "_pending", "_recipients", "_refused_recipients", "_security", "_spoken_for", "_state", "farewell", "has_begun",
        "is_authenticated", "is_closed", "is_upgrading", "refusals",
    )  # fmt: skip

    def __init__(self, dialect: Dialect) -> None:
        self.has_begun = False
        self.is_closed = False
        self.is_upgrading = False
        self.is_authenticated = False
        self.farewell: Reply | None = None
        self._dialect = dialect
        self._security = Security.CLEAR
        self._locked = dialect.locked_until_auth  # verb -> the reply while it is not its time
        self._state = State.CONNECTED
        self._input = LineBuffer(dialect.line_limit, allow_bare_lf=dialect.options.allow_bare_lf)
        self._output: list[bytes] = []
        self._output_size = 0
        self._pending: Event | None = None  # the event that waits for its reply
        self._is_extended = False
        self._is_shutting_down = False
        self._bad_commands = 0
        self._line = ""
        self._spoken_for: Mapping[str, str | None] = {}  # what XCLIENT said of the client
        self._may_be_secret = False  # a refused AUTH may be followed by what it would have asked for
        self.refusals: tuple[tuple[str, Reply], ...] = ()
        self._refused_recipients = 0
        # of the transaction
        self._is_utf8 = False
        self._parameters: Mapping[str, str] = {}
        self._recipients = 0
        # while a body is read
        self._decoder: DotDecoder | None = None
        self._checker: BodyChecker | None = None
        self._chunk: _Chunk | None = None
        self._end_was_seen = False

    # What the driver calls

    def receive_data(self, data: bytes) -> None:
        """Take what the network brought. Ignored once the session is closed, and while it waits for TLS."""
        # RFC 3207 §4.2: "The server MUST discard any knowledge obtained from the client ... which was not obtained from
        # the TLS negotiation itself."
        if not (self.is_closed or self.is_upgrading):
            self._input.feed(data)

    def next_event(self) -> Event | None:
        """The next thing to decide; None: paused until reply(), stalled until data_to_send(), or out of input."""
        while self._pending is None and not self.is_closed and self._output_size < _OUTPUT_LIMIT:
            if self._state is State.CONNECTED:
                step: _Step = Connected(self._dialect.banner)
            elif self._state is State.DATA:
                step = self._read_data()
            elif self._chunk is not None:
                step = self._read_chunk(self._chunk)
            elif self._state is State.AUTHENTICATING:
                step = self._read_response()
            else:
                step = self._read_command()
            if step is None:
                return None
            if step is not _ANSWERED:
                if step.__class__ is not Body:
                    self._pending = step
                return step
        return None

    def reply(self, reply: Reply, *, effect: bool = True) -> None:
        """Answer the event at hand. effect=False: the reply is sent and the state stays where it is.

        The banner, the end of data and QUIT cannot be undone: they take effect even so.
        """
        event, self._pending = self._pending, None
        if event is None:
            raise RuntimeError("reply() without an event that waits for one")
        # A refused BDAT is answered when its octets have been read; until then the reply waits in its chunk.
        if self._chunk is None or event.__class__ is not Data or reply.code == 421:
            self._send(reply, is_plain=event.__class__ in _WITHOUT_ENHANCED_CODE)
            if event.__class__ is EndOfData and self._dialect.is_lmtp:
                self._send_for_others(reply)
        elif not effect:
            self._chunk.refusal = replies.LOCAL_ERROR if reply.is_positive else reply
        if reply.code == 421:
            self.farewell = reply
            self._move(Cause.CLOSE)
        elif effect or event.__class__ in _IRREVOCABLE or self._is_quit(event):
            _EFFECTS[event.__class__](self, event, reply)

    def reply_each(self, answers: Sequence[Reply]) -> None:
        """Answer the end of data under LMTP, each accepted recipient in order; it takes effect in any case.

        reply() says the same to all of them. A 421 closes when all are sent.
        """
        event = self._pending
        if event.__class__ is not EndOfData or len(answers) != self._replies_due:
            raise RuntimeError("reply_each() takes as many replies as the end of data waits for")
        self._pending = None
        for reply in answers:
            self._send(reply)
        self.farewell = next((reply for reply in answers if reply.code == 421), None)
        if self.farewell is not None:
            self._move(Cause.CLOSE)
        else:
            self._after_end(event, answers[-1])

    def data_to_send(self) -> bytes:
        """All replies since the last call."""
        output = self._output
        if not output:
            return b""
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        self._output_size = 0
        return data

    def close(self, reply: Reply | None = None) -> None:
        """End the session from our side: a timeout, an error of ours. What waits is forgotten."""
        self._pending = None
        if reply is not None and not self.is_closed:
            self._send(reply)
            self.farewell = reply
        self._move(Cause.CLOSE)

    def speak(self, dialect: Dialect) -> None:
        """Go on with other options or extensions: a program changed its verbs or callbacks in mid-session."""
        self._dialect = dialect.at(self._security)
        self._unlock()

    def restart(self, security: Security) -> None:
        """TLS stands: everything that was said before is forgotten, and the client says EHLO again (RFC 3207 §4.2).

        Before the banner, where TLS came first, only what is offered changes.
        """
        self._security = security
        self._is_extended = self.is_authenticated = self.is_upgrading = False
        self._spoken_for = {}
        self.speak(self._dialect)
        self._input.limit = self._dialect.line_limit
        self._input.clear()
        self._move(Cause.SECURED)

    def shut_down(self) -> None:
        """Answer the next command 421 (RFC 5321 §3.8); a body that is being read is read to its end first."""
        self._is_shutting_down = True

    @property
    def keywords(self) -> Sequence[str]:
        """The lines that EHLO is answered with now."""
        return self._dialect.keywords

    @property
    def is_paused(self) -> bool:
        """An event waits for its reply."""
        return self._pending is not None

    @property
    def is_stalled(self) -> bool:
        """So many replies wait to be sent that no further command is read."""
        return self._output_size >= _OUTPUT_LIMIT

    @property
    def is_reading_body(self) -> bool:
        """The client is sending message data, not commands."""
        return self._state is State.DATA or self._chunk is not None

    # One door for the state, one for the output

    def _move(self, cause: Cause) -> None:
        self._state = NEXT[cause].get(self._state, self._state)
        self.has_begun = self._state is not State.CONNECTED
        if self._state in _WITHOUT_TRANSACTION:
            self._forget_transaction()
        if self._state is State.CLOSED:
            self.is_closed = True
            self._input.clear()

    def _forget_transaction(self) -> None:
        self._is_utf8 = False
        self._parameters = {}
        self._recipients = 0
        self._decoder = self._checker = self._chunk = None
        self._end_was_seen = False

    def _send(self, reply: Reply, *, is_plain: bool = False) -> None:
        wire = reply.wire_without_enhanced() if is_plain or not self._dialect.has_enhanced_codes else reply.wire
        self._output.append(wire)
        self._output_size += len(wire)

    def _unlock(self) -> None:
        self._locked = self._dialect.locked if self.is_authenticated else self._dialect.locked_until_auth

    @property
    def _replies_due(self) -> int:
        """How many replies the end of data, or of a chunk, waits for.

        RFC 2033 §4.2: "the server returns one reply for each previously successful RCPT command", §4.3: so does BDAT
        LAST; the BDATs before it are answered once, and so is one without any recipient.
        """
        is_last = self._chunk is None or self._chunk.is_last
        return max(1, self._recipients) if self._dialect.is_lmtp and is_last else 1

    def _send_for_others(self, reply: Reply) -> None:
        """What the first recipient is told, or will be, for all others."""
        for _ in range(self._replies_due - 1):
            self._send(reply)

    def _refuse(self, reply: Reply) -> _Answered:
        """Answer a command that is wrong in itself; too many of them end the session."""
        self._note(reply)
        self._send(reply)
        return self._count_bad_command()

    def _note(self, reply: Reply) -> None:
        if len(self.refusals) < _REFUSALS_KEPT:
            self.refusals = (*self.refusals, (printable(self._loggable_line()[:_LINE_KEPT]), reply))

    def _loggable_line(self) -> str:
        """The line without what may be a password: behind AUTH, or on lines of its own where that was refused."""
        shown = auth_without_secret(self._line)
        if shown is not None:
            self._may_be_secret = True
            return shown
        verb = self._line.partition(" ")[0]
        if self._may_be_secret and verb.upper() not in self._dialect.verbs:
            return "(not shown behind AUTH)"
        return self._line

    def _count_bad_command(self) -> _Answered:
        self._bad_commands += 1
        if self._bad_commands > self._dialect.options.bad_commands:
            self.close(replies.TOO_MANY_ERRORS)
        return _ANSWERED

    # Reading

    def _read_command(self) -> _Step:
        line = self._input.next_line()
        if line is None:
            return None
        if self._is_shutting_down and self._state is not State.CHUNKS:
            self.close(replies.SHUTTING_DOWN)
            return _ANSWERED
        if line.__class__ is BadLine:
            self._line = ""
            return self._refuse_line(line)
        assert isinstance(line, bytes)
        text = decode_line(line)
        self._line = text or ""
        # What extensions add, they add to MAIL; the other commands stay within 512 octets. AUTH is given the same room:
        # clients send long initial responses, although RFC 4954 §4 tells them not to.
        is_too_long = len(line) > BASE_LINE_LIMIT - 2 and line[:4].upper() not in _LONG_COMMANDS
        if text is None or is_too_long:
            if line[:4].upper() == b"BDAT" and "BDAT" in self._dialect.verbs:
                return self._malformed_bdat()
            return self._refuse_line(BadLine.TOO_LONG) if is_too_long else self._refuse(replies.UNPRINTABLE)
        verb, argument = split_command(text)
        if verb not in self._dialect.verbs:
            return self._refuse(replies.UNRECOGNIZED)
        refusal = self._locked.get(verb) or self._dialect.refusals.get(verb, OTHER_REFUSALS).get(self._state)
        if verb == "BDAT":  # its octets follow, refused or not
            return self._bdat(argument, refusal)
        if refusal is not None:
            return self._refuse(refusal)
        return _COMMANDS.get(verb, ServerSession._other)(self, verb, argument)

    def _refuse_line(self, line: BadLine | bytes) -> _Step:
        if line is BadLine.BARE_LINE_FEED:
            return self._refuse(replies.BARE_LINE_FEED)
        if "linetobig" in self._dialect.options.listens:
            return LineTooLong()
        return self._refuse(replies.COMMAND_TOO_LONG)

    def _hello(self, verb: str, argument: str) -> _Step:
        if not argument:
            return self._refuse(replies.HELLO_SYNTAX)
        if verb == "HELO":
            return Hello(verb, argument, (), self._dialect.helo)
        self._is_extended = True
        if self._dialect.options.longest_hold:
            self._dialect.renew()
        return Hello(verb, argument, self._dialect.keywords, self._dialect.ehlo)

    def _mail(self, verb: str, argument: str) -> _Step:
        known = self._dialect.known_senders.get(argument)
        if known is not None:
            return known
        rest = after_keyword(argument, "FROM:")
        found = None if rest is None else parse_reverse_path(rest, self._dialect.options.to_ascii)
        if found is None:
            return self._refuse(replies.SENDER_SYNTAX)
        reverse_path, tail = found
        parameters = self._parse_parameters(tail, self._dialect.mail_parameters)
        if isinstance(parameters, Reply):
            return self._refuse(parameters)
        if not argument.isascii() and "SMTPUTF8" not in parameters:
            return self._refuse(replies.SENDER_NEEDS_UTF8)
        # RFC 1870 §6.1: a declared size over the limit is refused here, before a byte of it travels.
        limit = self._dialect.options.message_size
        if limit and int(parameters.get("SIZE", "0")) > limit:
            return self._refuse(replies.MESSAGE_TOO_BIG)
        refusal = self._refusal_of_times(parameters) if self._dialect.has_times else None
        if refusal is not None:
            return self._refuse(refusal)
        event = Mail(reverse_path, parameters, Reply(250, "2.1.0", f"sender {reverse_path.text or '<>'} OK"))
        if not parameters:
            self._dialect.known_senders.put(argument, event)
        return event

    def _refusal_of_times(self, parameters: Mapping[str, str]) -> Reply | None:
        options = self._dialect.options
        return timing.refusal(parameters, options.clock(), least_by=options.least_by, longest_hold=options.longest_hold)

    def _rcpt(self, verb: str, argument: str) -> _Step:
        known = self._dialect.known_recipients.get(argument)
        if known is not None and self._recipients < self._dialect.options.recipients:
            return known
        rest = after_keyword(argument, "TO:")
        found = None if rest is None else parse_forward_path(rest, self._dialect.options.to_ascii)
        if found is None:
            return self._refuse(replies.RECIPIENT_SYNTAX)
        forward_path, tail = found
        parameters = self._parse_parameters(tail, self._dialect.rcpt_parameters)
        if isinstance(parameters, Reply):
            return self._refuse(parameters)
        if not argument.isascii() and not self._is_utf8:
            return self._refuse(replies.RECIPIENT_NEEDS_UTF8)
        if self._recipients >= self._dialect.options.recipients:
            # RFC 5321 §4.5.3.1.10: 452, not 552: the client sends the rest in another transaction.
            self._note(replies.TOO_MANY_RECIPIENTS)
            self._send(replies.TOO_MANY_RECIPIENTS)
            return _ANSWERED
        event = Rcpt(forward_path, parameters, Reply(250, "2.1.5", f"recipient {forward_path.text} OK"))
        if not parameters and argument.isascii():
            self._dialect.known_recipients.put(argument, event)
        return event

    def _parse_parameters(self, tail: str, known: Mapping[str, re.Pattern[str]]) -> Mapping[str, str] | Reply:
        if not tail.strip(" "):
            return _NO_PARAMETERS
        # Outside extended mode no parameter is known (RFC 5321 §4.1.1.11).
        return parse_parameters(tail, known if self._is_extended else {})

    def _data(self, verb: str, argument: str) -> _Step:
        if argument:
            return self._refuse(replies.NO_PARAMETERS)
        # RFC 3030 §3: "BINARYMIME cannot be used with the DATA command"; 503.
        if self._body_is_binary:
            return self._refuse(replies.BINARY_NEEDS_BDAT)
        return Data()

    def _bdat(self, argument: str, refusal: Reply | None) -> _Step:
        parsed = parse_bdat(argument)
        if parsed is None:
            return self._malformed_bdat()
        size, is_last = parsed
        self._chunk = _Chunk(size, is_last, refusal)
        return Data() if self._state is State.RECIPIENT else _ANSWERED

    def _malformed_bdat(self) -> _Answered:
        # How many octets follow is unknown, and none of them may be taken for a command: hang up.
        self.close(replies.BDAT_SYNTAX)
        return _ANSWERED

    def _rset(self, verb: str, argument: str) -> _Step:
        return self._refuse(replies.NO_PARAMETERS) if argument else Command(verb, "", replies.RSET_OK)

    def _quit(self, verb: str, argument: str) -> _Step:
        if argument:
            return self._refuse(replies.NO_PARAMETERS)
        if verb in self._dialect.options.listens:
            return Command(verb, "", self._dialect.bye)
        self.close(self._dialect.bye)
        return _ANSWERED

    def _query(self, verb: str, argument: str) -> _Step:
        """VRFY and EXPN: nothing without what is asked for."""
        return self._other(verb, argument) if argument else self._refuse(replies.SYNTAX)

    def _xforward(self, verb: str, argument: str) -> _Step:
        attributes = parse_xforward(argument)
        return self._refuse(attributes) if isinstance(attributes, Reply) else XForward(attributes)

    def _starttls(self, verb: str, argument: str) -> _Step:
        if argument:
            return self._refuse(replies.NO_PARAMETERS)
        # What follows in clear could be anybody's, and would be taken for the client's once TLS stands. A client that
        # sends more than this before our 220 is broken or attacked (RFC 3207 §6): hang up.
        if len(self._input):
            self._note(replies.INPUT_BEHIND_STARTTLS)
            self.close(replies.INPUT_BEHIND_STARTTLS)
            return _ANSWERED
        return StartTls()

    def _auth(self, verb: str, argument: str) -> _Step:
        if self.is_authenticated:
            return self._refuse(replies.AUTH_ALREADY)
        if not self._is_extended:
            return self._refuse(replies.AUTH_NEEDS_EHLO)
        parsed = parse_auth(argument)
        if isinstance(parsed, Reply):
            return self._refuse(parsed)
        mechanism, initial = parsed
        if mechanism not in self._dialect.options.mechanisms:
            return self._refuse(replies.AUTH_UNKNOWN_MECHANISM)
        self._line = f"AUTH {mechanism}"
        return Auth(mechanism, initial)

    def _read_response(self) -> _Step:
        self._input.limit = _AUTH_LINE_LIMIT
        line = self._input.next_line()
        if line is None:
            return None
        self._input.limit = self._dialect.line_limit
        if self._is_shutting_down:
            self.close(replies.SHUTTING_DOWN)
            return _ANSWERED
        if line is BadLine.TOO_LONG:
            return AuthCancelled(replies.AUTH_LINE_TOO_LONG)
        data = None if isinstance(line, BadLine) else decode_base64(line.decode("latin-1"))
        if line == b"*":
            return AuthCancelled(replies.AUTH_CANCELLED)
        return AuthCancelled(replies.AUTH_NOT_BASE64) if data is None else AuthResponse(data)

    def _xclient(self, verb: str, argument: str) -> _Step:
        attributes = parse_xclient(argument)
        if isinstance(attributes, Reply):
            return self._refuse(attributes)
        if "addr" not in attributes:
            attributes = {**self._spoken_for, **attributes}
        return XClient(attributes, self._dialect.banner)

    def _other(self, verb: str, argument: str) -> _Step:
        options = self._dialect.options
        answer = _UNHEARD.get(verb, replies.COMMAND_OK) or self._dialect.help
        if verb in options.listens or verb not in _UNHEARD:
            return Command(verb, argument, answer)
        if answer is replies.NOT_IMPLEMENTED:
            return self._refuse(answer)
        self._send(answer)
        return _ANSWERED

    # Reading a body

    @property
    def _body_is_binary(self) -> bool:
        return self._parameters.get("BODY", "").upper() == "BINARYMIME"

    def _read_data(self) -> _Step:
        if self._end_was_seen:
            return self._end_of_data()
        data = self._input.take_all()
        if not data:
            return None
        assert self._decoder is not None
        chunk, rest = self._decoder.feed(data)
        if rest is not None:
            self._end_was_seen = True
            self._input.give_back(rest)
        return self._checked(chunk)

    def _read_chunk(self, chunk: _Chunk) -> _Step:
        if chunk.left:
            data = self._input.take(chunk.left)
            if not data:
                return None
            chunk.left -= len(data)
            return _ANSWERED if chunk.refusal else self._checked(data)
        if chunk.refusal:
            return self._end_refused_chunk(chunk, chunk.refusal)
        if chunk.is_last or self._failure():
            return self._end_of_data()
        self._chunk = None
        self._send(Reply(250, "2.0.0", f"{chunk.size} octets received"))
        return _ANSWERED

    def _end_refused_chunk(self, chunk: _Chunk, refusal: Reply) -> _Answered:
        self._send_for_others(refusal)
        self._chunk = None
        if self._state is not State.CHUNKS_FAILED:
            return self._refuse(refusal)
        # The rest of a message that was refused, pipelined in good faith: no fault of its own.
        if chunk.is_last:
            self._move(Cause.END)
        self._send(refusal)
        return _ANSWERED

    def _checked(self, chunk: bytes) -> _Step:
        """Pass a piece of the message on, unless it is already known that the message will be refused.

        A refused one is looked at to its end, so that its fault does not depend on how the network cut it.
        """
        assert self._checker is not None
        if not chunk:
            return _ANSWERED
        self._checker.feed(chunk)
        return _ANSWERED if self._failure() else Body(chunk)

    def _failure(self) -> Reply | None:
        """What the protocol itself has against the body so far."""
        checker, options = self._checker, self._dialect.options
        assert checker is not None
        if options.message_size and checker.size > options.message_size:
            return replies.MESSAGE_TOO_BIG
        if checker.has_bare_newline and not options.keep_bare_newlines:
            return replies.BARE_CR_OR_LF
        return replies.BODY_LINE_TOO_LONG if checker.has_long_line else None

    def _end_of_data(self) -> EndOfData:
        assert self._checker is not None
        if self._chunk is None or self._chunk.is_last:
            self._checker.finish()
        return EndOfData(self._checker.size, self._failure(), self._dialect.message_accepted)

    # What a reply does to the state

    def _after_banner(self, event: Event, reply: Reply) -> None:
        self._move(Cause.BANNER if reply.is_positive else Cause.BANNER_REFUSED)

    def _after_hello(self, event: Event, reply: Reply) -> None:
        assert isinstance(event, Hello)
        if reply.is_positive:
            self._is_extended = event.verb != "HELO"
            self._move(Cause.HELLO)

    def _after_mail(self, event: Event, reply: Reply) -> None:
        assert isinstance(event, Mail)
        if reply.is_positive:
            self._parameters = event.parameters
            self._is_utf8 = "SMTPUTF8" in event.parameters
            self._move(Cause.MAIL)

    def _after_rcpt(self, event: Event, reply: Reply) -> None:
        if reply.is_positive:
            self._recipients += 1
            self._move(Cause.RCPT)
            return
        self._refused_recipients += 1
        if self._refused_recipients > self._dialect.options.refused_recipients:
            self.close(replies.TOO_MANY_ERRORS)

    def _after_data(self, event: Event, reply: Reply) -> None:
        if reply.is_positive:
            self._checker = BodyChecker(self._dialect.options.body_line, is_binary=self._body_is_binary)
            if self._chunk is None:
                self._decoder = DotDecoder()
            self._move(Cause.DATA if self._chunk is None else Cause.BDAT)
        elif self._chunk is not None:
            self._chunk.refusal = reply
            self._move(Cause.CHUNK_REFUSED)

    def _after_end(self, event: Event, reply: Reply) -> None:
        # RFC 3030 §2: after a failed BDAT everything up to LAST or RSET fails with it.
        if self._chunk is not None and not self._chunk.is_last:
            self._chunk = None
            self._move(Cause.CHUNK_REFUSED)
        else:
            self._move(Cause.END)

    def _after_command(self, event: Event, reply: Reply) -> None:
        assert isinstance(event, Command)
        if self._is_quit(event):  # closes in every case, refused or not
            self.farewell = reply
            self._move(Cause.CLOSE)
        elif event.verb == "RSET" and reply.is_positive:
            self._move(Cause.RSET)

    @staticmethod
    def _is_quit(event: Event) -> bool:
        return isinstance(event, Command) and event.verb == "QUIT"

    def _after_starttls(self, event: Event, reply: Reply) -> None:
        if reply.is_positive:
            self.is_upgrading = True
            self._input.clear()
            self._move(Cause.STARTTLS)

    def _after_xclient(self, event: Event, reply: Reply) -> None:
        assert isinstance(event, XClient)
        self._spoken_for = event.attributes
        self._is_extended = False
        self.is_authenticated = bool(event.attributes.get("login"))
        self._unlock()
        self._move(Cause.XCLIENT if reply.is_positive else Cause.XCLIENT_REFUSED)

    def _after_auth(self, event: Event, reply: Reply) -> None:
        if reply.code == 334:
            self._move(Cause.CHALLENGE)
            return
        self._move(Cause.AUTH_END)
        if reply.is_positive:
            self.is_authenticated = True
            self._unlock()
        else:
            self._note(reply)
            if reply.is_permanent:
                self._count_bad_command()

    def _after_nothing(self, event: Event, reply: Reply) -> None:
        pass

    def _after_long_line(self, event: Event, reply: Reply) -> None:
        self._count_bad_command()


_LONG_COMMANDS = frozenset((b"MAIL", b"AUTH"))
_NO_PARAMETERS: Mapping[str, str] = {}
# RFC 2034 §4: "except the initial greeting and any response to HELO or EHLO", whatever a policy says there.
_WITHOUT_ENHANCED_CODE = frozenset((Connected, XClient, Hello))
_IRREVOCABLE = frozenset((Connected, XClient, EndOfData))
_WITHOUT_TRANSACTION = frozenset((State.START, State.READY, State.CLOSED))

#: How each verb is read. Verbs without a row are those that nobody need hear (`_UNHEARD`) and those of extensions.
_COMMANDS: Mapping[str, Callable[[ServerSession, str, str], _Step]] = {
    "HELO": ServerSession._hello,
    "EHLO": ServerSession._hello,
    "LHLO": ServerSession._hello,
    "MAIL": ServerSession._mail,
    "RCPT": ServerSession._rcpt,
    "DATA": ServerSession._data,
    "RSET": ServerSession._rset,
    "QUIT": ServerSession._quit,
    "VRFY": ServerSession._query,
    "EXPN": ServerSession._query,
    "XFORWARD": ServerSession._xforward,
    "XCLIENT": ServerSession._xclient,
    "STARTTLS": ServerSession._starttls,
    "AUTH": ServerSession._auth,
    "ETRN": ServerSession._query,
}

#: What is answered where no driver listens; None stands for the help text.
#: RFC 5321 §3.5.3: a server that does not verify says 252. SEND, SOML, SAML, TURN are history (appendix F.6, F.1).
_UNHEARD: Mapping[str, Reply | None] = {
    "NOOP": replies.NOOP_OK,
    "HELP": None,
    "VRFY": replies.VRFY_NEUTRAL,
    "EXPN": replies.NOT_IMPLEMENTED,
    "SEND": replies.NOT_IMPLEMENTED,
    "SOML": replies.NOT_IMPLEMENTED,
    "SAML": replies.NOT_IMPLEMENTED,
    "TURN": replies.NOT_IMPLEMENTED,
}

_EFFECTS: Mapping[type, Callable[[ServerSession, Event, Reply], None]] = {
    Connected: ServerSession._after_banner,
    Hello: ServerSession._after_hello,
    Mail: ServerSession._after_mail,
    Rcpt: ServerSession._after_rcpt,
    Data: ServerSession._after_data,
    EndOfData: ServerSession._after_end,
    Command: ServerSession._after_command,
    XForward: ServerSession._after_nothing,
    XClient: ServerSession._after_xclient,
    StartTls: ServerSession._after_starttls,
    Auth: ServerSession._after_auth,
    AuthResponse: ServerSession._after_auth,
    AuthCancelled: ServerSession._after_auth,
    LineTooLong: ServerSession._after_long_line,
}
