"""What goes over a connection, as lines of a transcript without secrets.

Fed with the octets of both sides in the order in which they came, it follows the protocol just so far as to know which
octets of the client are commands, which a message and which a password: a body is what comes after 354 until the dot,
BDAT counts its octets, and behind AUTH nothing is shown until the server has said yes or no. What looks like no command
after a failed AUTH is not shown either: clients say their passwords there. It never raises, whatever is said.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from enum import Enum

from smtpmaild.smtp.command import VERBS, auth_without_secret

#: A transcript is cut off after so many characters.
LONGEST = 256 * 1024
_CRLF, _DOT, _END = b"\r\n", b".\r\n", b"\r\n.\r\n"
_QUEUED_AS = re.compile(r"queued as [0-9A-Za-z]+")
# Blanks around a command are dropped (smtp/command.py).
_VERB = re.compile(rb" *([A-Za-z]{3,10})(?![^ \r\n])")
_VERBS = frozenset(verb.encode() for verb in VERBS)


class _Reading(Enum):
    """What the client's next octets are."""

    COMMANDS = "commands"
    WAITING = "waiting for the reply to DATA, AUTH or STARTTLS"
    BODY = "a message"
    CHUNK = "the octets of a BDAT"


class Scrubber:
    """Of one session. user: who has signed in, asked when the server says so.  with_bodies: keep messages."""

    def __init__(self, user: Callable[[], str], *, with_bodies: bool = False) -> None:
        self.lines: list[str] = []
        self._user = user
        self._with_bodies = with_bodies
        self._reading = _Reading.COMMANDS
        self._input = b""  # of the client, not looked at yet
        self._output = b""
        self._due: deque[bytes] = deque()  # verbs that wait for their replies
        self._left = 0  # octets of a chunk that are to come
        self._octets = 0  # of a message that have come
        self._tail = _CRLF  # the end of what has come: the dot is found across pieces
        self._kept: list[bytes] = []
        self._recipients = 0
        self._is_lmtp = False
        self._mechanism = ""
        self._was_asked = False  # 334 was said
        self._may_be_secret = False
        self._size = 0

    def heard(self, data: bytes) -> None:
        """The client said this."""
        self._input += data
        self._look_at_input()
        # Of a line without an end; the session throws away what is over its limit, too.
        self._input = self._input[:LONGEST]

    def said(self, data: bytes) -> None:
        """The server said this."""
        self._output += data
        *lines, self._output = self._output.split(b"\r\n")
        for line in lines:
            self._reply_line(line)
        self._look_at_input()

    # The client

    def _look_at_input(self) -> None:
        while self._input and _STEPS[self._reading](self):
            pass

    def _command(self) -> bool:
        line, end, rest = self._input.partition(b"\n")
        if not end:
            return False
        self._input = rest
        match = _VERB.match(line)
        verb = b"AUTH" if auth_without_secret(line.decode("latin-1")) else match[1].upper() if match else b""
        self._due.append(verb)
        _COMMANDS.get(verb, Scrubber._other)(self, line + end)
        return True

    def _other(self, line: bytes) -> None:
        match = _VERB.match(line)
        verb = match[1].upper() if match else b""
        if self._may_be_secret and verb not in _VERBS:
            self._add("# (a line that is not shown, behind AUTH)")
        else:
            self._say(line)

    def _hello(self, line: bytes) -> None:
        self._is_lmtp = line.lstrip(b" ")[:4].upper() == b"LHLO"
        self._say(line)

    def _mail(self, line: bytes) -> None:
        self._recipients = 0
        self._say(line)

    def _data(self, line: bytes) -> None:
        self._say(line)
        self._reading = _Reading.WAITING

    def _bdat(self, line: bytes) -> None:
        self._say(line)
        words = line.split()
        size = words[1] if len(words) > 1 else b""
        if len(size) < 20 and size.isdigit() and int(size):
            self._left, self._reading = int(size), _Reading.CHUNK
        if self._is_lmtp and words[-1:] and words[-1].upper() == b"LAST":
            self._due.extend([b"BDAT"] * (self._recipients - 1))

    def _auth(self, line: bytes) -> None:
        self._mechanism = (auth_without_secret(line.decode("latin-1")) or "").removeprefix("AUTH").strip()
        self._may_be_secret, self._was_asked = True, False
        self._reading = _Reading.WAITING

    def _starttls(self, line: bytes) -> None:
        self._say(line)
        self._reading = _Reading.WAITING

    def _wait(self) -> bool:
        """What comes behind DATA and STARTTLS before their reply stays where it is; behind AUTH it is dropped."""
        if self._due and self._due[-1] == b"AUTH" and self._was_asked:
            _, end, rest = self._input.partition(b"\n")
            self._input = rest if end else self._input
            return bool(end)
        return False

    def _body(self) -> bool:
        whole = self._tail + self._input
        at = whole.find(_END)
        taken = len(self._input) if at < 0 else at + len(_END) - len(self._tail)
        self._keep(taken)
        self._tail = whole[-len(_END) + 1 :]
        if at < 0:
            return False
        self._show(f"C! body {self._octets - len(_DOT)}")
        self._due.extend([b"."] * (self._recipients if self._is_lmtp else 1))
        return True

    def _chunk(self) -> bool:
        taken = min(self._left, len(self._input))
        self._left -= taken
        self._keep(taken)
        if self._left:
            return False
        self._show(f"C! octets {self._octets}")
        return True

    def _keep(self, taken: int) -> None:
        """So many octets of the input belong to a message."""
        self._octets += taken
        if self._with_bodies and self._octets <= LONGEST:
            self._kept.append(self._input[:taken])
        self._input = self._input[taken:]

    def _show(self, mark: str) -> None:
        """The message has come to its end."""
        if self._with_bodies:
            for line in b"".join(self._kept).splitlines(keepends=True):
                self._say(line)
            if self._octets > LONGEST:  # the rest of it was not kept
                self._size = LONGEST
                self._add(_CUT)
        else:
            self._add(mark)
        self._kept, self._octets, self._tail = [], 0, _CRLF
        self._reading = _Reading.COMMANDS

    # The server

    def _reply_line(self, line: bytes) -> None:
        is_last = line[3:4] != b"-"
        verb = self._due[0] if self._due else b""
        if verb == b"AUTH" and self._reading is _Reading.WAITING and len(self._due) == 1:
            self._auth_reply(line)
            return
        self._add(f"S: {_QUEUED_AS.sub('queued as *', _text(line))}")
        if not is_last:
            return
        if self._due:
            self._due.popleft()
        if verb == b"RCPT" and line[:1] == b"2":
            self._recipients += 1
        if line[:3] == b"354":  # whatever we took it for, what comes now is a message
            self._reading = _Reading.BODY
        elif self._reading is _Reading.WAITING and not self._due:
            self._reading = _Reading.COMMANDS
            if verb == b"STARTTLS" and line[:3] == b"220":
                self._input = b""
                self._add("C! STARTTLS")

    def _auth_reply(self, line: bytes) -> None:
        if line[:3] == b"334":
            self._was_asked = True
            return
        if line[3:4] == b"-":
            return
        self._due.popleft()
        self._reading = _Reading.COMMANDS
        if line[:3] == b"235":
            self._may_be_secret = False
            self._add(f"C! AUTH {self._mechanism} {self._user()}".rstrip())
        elif line[:3] in (b"535", b"421", b"454") or self._was_asked:
            self._add(f"# AUTH {self._mechanism} failed and is left out: {_text(line)}")
            return
        else:
            self._add(f"C! AUTH {self._mechanism}".rstrip())
        self._add(f"S: {_text(line)}")

    # What is written

    def _say(self, line: bytes) -> None:
        text = _text(line[:-2]) if line.endswith(b"\r\n") else ""
        if text and text.encode() == line[:-2]:
            self._add(f"C: {text}")
        else:
            self._add(f"C~ {line!r}")

    def _add(self, line: str) -> None:
        self._size += len(line)
        if self._size <= LONGEST:
            self.lines.append(line)
        elif self.lines[-1:] != [_CUT]:
            self.lines.append(_CUT)


_CUT = "# (the rest is cut off)"
_STEPS: dict[_Reading, Callable[[Scrubber], bool]] = {
    _Reading.COMMANDS: Scrubber._command,
    _Reading.WAITING: Scrubber._wait,
    _Reading.BODY: Scrubber._body,
    _Reading.CHUNK: Scrubber._chunk,
}
_COMMANDS: dict[bytes, Callable[[Scrubber, bytes], None]] = {
    b"HELO": Scrubber._hello,
    b"EHLO": Scrubber._hello,
    b"LHLO": Scrubber._hello,
    b"MAIL": Scrubber._mail,
    b"DATA": Scrubber._data,
    b"BDAT": Scrubber._bdat,
    b"AUTH": Scrubber._auth,
    b"STARTTLS": Scrubber._starttls,
}


def _text(octets: bytes) -> str:
    """As text that stays on its line."""
    text = octets.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
