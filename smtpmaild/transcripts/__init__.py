r"""Sessions as dialogues in plain text: read, written, played. One format for tests, recordings and replays.

    # a comment
    @client 192.0.2.1 mail.example.net         who it is, and its name in the DNS if it has one
    @listener submission                       where it came in
    @tls implicit                              TLS came first
    C: EHLO client.example                     the client says this line and CRLF
    C~ b"x\n.\r\n"                             the client sends exactly these octets: bytes literals, as b"x" * 9 + b"y"
    C! STARTTLS                                from here on all is TLS
    C! AUTH PLAIN alice                        the client signs in; what it said for that is nobody's business
    C! body 1234                               a message of so many octets and the dot; what was in it is left out
    C! octets 512                              the octets of a BDAT, left out
    S: 250 2.1.0 *                             the server's next line; `*` stands for anything
    S... 250 *                                 lines are skipped up to the next one like this
    S.                                         the server has closed the connection; without this it has not

Other lines that begin with @ are for whoever reads the file: tests say there what their server is like.

reading.py and writing.py know the text, scrubbing.py what of a session must not be written down, playing.py how the
steps are played against a service or a server and where the first difference is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Mark(Enum):
    """What stands for something that is not written down, or that is no octets."""

    TLS = "STARTTLS"
    AUTH = "AUTH"
    BODY = "body"
    OCTETS = "octets"


@dataclass(frozen=True, slots=True)
class Say:
    """The client sends this. where: file and line."""

    data: bytes
    where: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Instead:
    """The client does something that the mark stands for. argument: a mechanism and a user, or a number of octets."""

    mark: Mark
    argument: str
    where: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Expect:
    """The server's next line is like this; skips: lines before it do not matter."""

    where: str
    pattern: str
    skips: bool
    source: str = ""

    def matches(self, line: str) -> bool:
        """`*` stands for anything. In the time that reading both takes, however many there are."""
        first, *others = self.pattern.split("*")
        if not others:
            return line == first
        *between, last = others
        at, end = len(first), len(line) - len(last)
        if not (line.startswith(first) and line.endswith(last) and at <= end):
            return False
        for text in between:
            found = line.find(text, at, end)
            if found < 0:
                return False
            at = found + len(text)
        return True


Step = Say | Instead | Expect


@dataclass(frozen=True, slots=True)
class Directive:
    """A line that begins with @. word: with it.  rest: behind the blank."""

    where: str
    word: str
    rest: str


@dataclass(slots=True)
class Transcript:
    """One session. client: "" for a Unix socket.  listener: "" where the file does not say.  others: directives that
    are for somebody else."""

    name: str
    steps: list[Step] = field(default_factory=list)
    is_closed: bool = False
    client: str = "192.0.2.1"
    client_name: str = ""
    listener: str = ""
    is_implicit_tls: bool = False
    others: list[Directive] = field(default_factory=list)
