"""Drives a server session without a receiver: answers every event as a test wants, and takes replies apart."""

from __future__ import annotations

import re
from collections.abc import Callable

import idna

from smtpmaild.smtp.events import Auth, AuthResponse, Body, Connected, EndOfData, Event, Hello, XClient
from smtpmaild.smtp.extension import EXTENSIONS, XCLIENT, XFORWARD, Dialect, ServerOptions
from smtpmaild.smtp.reply import AUTHENTICATED, Reply
from smtpmaild.smtp.session import ServerSession


def to_ascii(domain: str) -> str:
    return idna.encode(domain, uts46=True).decode()


OPTIONS = ServerOptions("mx.example", message_size=1000, recipients=5, to_ascii=to_ascii)
EVERYTHING = (*EXTENSIONS, XFORWARD, XCLIENT)


def agree(event: Event) -> Reply | None:
    """The answer of a driver that has nothing against anything; None for what takes no answer."""
    if isinstance(event, Body):
        return None
    if isinstance(event, Auth | AuthResponse):
        return AUTHENTICATED
    return (event.failure or event.success) if isinstance(event, EndOfData) else event.success


class Driver:
    """A session with somebody who answers.

    events: everything that happened, pieces of one body as one.  own: the replies the session gave by itself.
    others: the replies to events, with the events.
    """

    def __init__(
        self,
        options: ServerOptions = OPTIONS,
        *,
        answer: Callable[[Event], Reply | None] = agree,
        effect: Callable[[Event], bool] = lambda _: True,
        dialect: Dialect | None = None,
    ) -> None:
        self.session = ServerSession(dialect or Dialect(options, EVERYTHING))
        self.events: list[Event] = []
        self.own: list[bytes] = []
        self.others: list[tuple[Event, bytes]] = []
        self._answer = answer
        self._effect = effect
        self.banner = self._advance()

    def feed(self, data: bytes) -> bytes:
        """What the session says to this input."""
        self.session.receive_data(data)
        return self._advance()

    def _advance(self) -> bytes:
        session = self.session
        output = b""
        while True:
            event = session.next_event()
            was_stalled = session.is_stalled
            own = session.data_to_send()
            if own:
                self.own.append(own)
                output += own
            if event is None:
                if was_stalled:
                    continue
                return output
            self._note(event)
            reply = self._answer(event)
            if reply is None:
                continue
            session.reply(reply, effect=self._effect(event))
            said = session.data_to_send()
            if said:
                self.others.append((event, said))
                output += said

    def _note(self, event: Event) -> None:
        last = self.events[-1] if self.events else None
        if isinstance(event, Body) and isinstance(last, Body):
            self.events[-1] = Body(last.chunk + event.chunk)
        else:
            self.events.append(event)

    def facts(self) -> list[Event]:
        """The events without what depends on how the input was cut: pieces of bodies that end in a refusal, or not."""
        facts: list[Event] = []
        for event in self.events:
            if isinstance(event, EndOfData) and event.failure and facts and isinstance(facts[-1], Body):
                facts.pop()
            facts.append(event)
        return facts[:-1] if isinstance(facts[-1], Body) else facts


_LINE = re.compile(rb"([2-5][0-9]{2})([ -])([\x20-\x7e]*)")
_ENHANCED = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3} ")


def parse_replies(output: bytes) -> list[tuple[int, list[str]]]:
    """Code and lines of each reply; fails on anything that is not well-formed (RFC 5321 §4.2)."""
    replies: list[tuple[int, list[str]]] = []
    is_open = False
    *lines, rest = output.split(b"\r\n")
    assert rest == b"", "every reply ends in CRLF"
    for line in lines:
        assert len(line) <= 510
        match = _LINE.fullmatch(line)
        assert match, line
        code, text = int(match[1]), match[3].decode()
        if is_open:
            assert replies[-1][0] == code, "all lines of a reply have its code"
            replies[-1][1].append(text)
        else:
            replies.append((code, [text]))
        is_open = match[2] == b"-"
    assert not is_open, "the last line of a reply says so"
    return replies


def assert_enhanced(output: bytes) -> None:
    """Every line but those of 3yz begins with an enhanced code of the reply's class (RFC 2034 §4)."""
    for code, lines in parse_replies(output):
        for line in lines:
            match = _ENHANCED.match(line)
            assert (code // 100 == 3) != bool(match), line
            assert match is None or int(match[1]) == code // 100


def codes(output: bytes) -> list[int]:
    """The reply codes, in order."""
    return [code for code, _ in parse_replies(output)]


def has_enhanced_codes(event: Event) -> bool:
    """False for the greeting, the one after XCLIENT too, and the replies to HELO and EHLO."""
    return not isinstance(event, Connected | XClient | Hello)


GREETING = b"EHLO client.example\r\n"
ENVELOPE = GREETING + b"MAIL FROM:<a@b>\r\nRCPT TO:<u@local.example>\r\n"
