r"""Protocol tests of the client as dialogues: what a server says, what the client says, and what the driver is told.

    S: 220 mx.example ESMTP        the server says this line
    S~ b"250 x\r"                  the server sends exactly these octets
    S.                             the server closes the connection
    T.                             the driver has waited long enough
    C: EHLO client.example         the client said this line; C~ exactly these octets
    = Ready                        the driver was told this; `= Sent 250 2.0.0 Ok | 550 No` has a reply per recipient
    ! send <a@b> c@d e@f           the driver asks for this, see ACTIONS

Every dialogue is played twice: what the server says at one time in one piece, and octet by octet.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping

from session_driver import to_ascii

from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address, parse_mailbox
from smtpmaild.smtp.client import Challenge, ClientSession, Event, Failed, Sent
from smtpmaild.smtp.mailing import Forward, Mailing


def address(text: str) -> Address:
    found = parse_mailbox(text, to_ascii)
    assert found is not None, text
    return found


def mailing(words: list[str]) -> Mailing:
    """`<a@b> SIZE=5 BODY=8BITMIME c@d NOTIFY=NEVER e@f`: each address with the parameters behind it."""
    paths: list[tuple[str, dict[str, str]]] = []
    for word in words:
        if "=" not in word and ("@" in word or word == "<>"):
            paths.append((word, {}))
        else:
            keyword, _, value = word.partition("=")
            paths[-1][1][keyword] = value
    (sender, given), *recipients = paths
    return Mailing(
        NULL_REVERSE_PATH if sender == "<>" else address(sender[1:-1]),
        [Forward(address(recipient), its) for recipient, its in recipients],
        size=int(given.pop("SIZE", "10")),
        body=given.pop("BODY", "7BIT"),
        is_utf8=given.pop("SMTPUTF8", None) is not None,
        parameters=given,
    )


def octets(text: str) -> bytes:
    value = ast.literal_eval(text)
    assert isinstance(value, bytes)
    return value


def write(session: ClientSession, rest: str) -> None:
    session.write(octets(rest))
    session.end_body()


#: What a driver can do. `!body b"..."` writes all of the message, `!part b"..."` a piece of it.
ACTIONS: Mapping[str, Callable[[ClientSession, str], None]] = {
    "send": lambda session, rest: session.send(mailing(re.findall(r'(?:"[^"]*"|[^" ])+', rest))),
    "body": write,
    "part": lambda session, rest: session.write(octets(rest)),
    "end": lambda session, _: session.end_body(),
    "tls": lambda session, _: session.start_tls(),
    "secured": lambda session, _: session.secured(),
    "auth": lambda session, rest: session.authenticate(rest.split()[0], octets(rest.partition(" ")[2] or 'b""')),
    "auth-wait": lambda session, rest: session.authenticate(rest, None),
    "respond": lambda session, rest: session.respond(octets(rest)),
    "cancel": lambda session, _: session.respond(None),
    "quit": lambda session, _: session.quit(),
}


def shown(event: Event) -> str:
    if isinstance(event, Sent):
        return "Sent " + " | ".join(map(str, event.replies))
    if isinstance(event, Failed):
        return f"Failed {event.reply}"
    return f"Challenge {event.data!r}" if isinstance(event, Challenge) else type(event).__name__


class Player:
    """Plays one dialogue; assertions name the line."""

    def __init__(self, *, by_octet: bool, is_lmtp: bool = False) -> None:
        self.session = ClientSession("client.example", is_lmtp=is_lmtp)
        self._by_octet = by_octet
        self._pending = b""
        self._output = b""
        self._events: list[str] = []

    def play(self, dialogue: str) -> None:
        for line in filter(None, map(str.strip, dialogue.splitlines())):
            word, _, rest = line.partition(" ")
            if word not in ("S:", "S~"):
                self._feed()
            self._READERS[word](self, rest)
        self._feed()
        assert (self._output, self._events) == (b"", []), "said or told too much"

    def _feed(self) -> None:
        pieces = [self._pending[at : at + 1] for at in range(len(self._pending))] if self._by_octet else [self._pending]
        self._pending = b""
        for piece in pieces:
            self.session.receive_data(piece)
            self._pump()

    def _pump(self) -> None:
        while (event := self.session.next_event()) is not None:
            self._events.append(shown(event))
        self._output += self.session.data_to_send()

    def _server_says(self, rest: str) -> None:
        self._pending += rest.encode() + b"\r\n"

    def _server_sends(self, rest: str) -> None:
        self._pending += octets(rest)

    def _client_said(self, rest: str) -> None:
        self._expect(rest.encode() + b"\r\n")

    def _client_sent(self, rest: str) -> None:
        self._expect(octets(rest))

    def _expect(self, said: bytes) -> None:
        assert self._output[: len(said)] == said, self._output
        self._output = self._output[len(said) :]

    def _told(self, rest: str) -> None:
        assert self._events, f"told nothing, expected {rest}"
        assert self._events.pop(0).strip() == rest

    def _act(self, rest: str) -> None:
        action, _, argument = rest.partition(" ")
        ACTIONS[action](self.session, argument)
        self._pump()

    def _closed(self, _: str) -> None:
        self.session.connection_lost()
        self._pump()

    def _late(self, _: str) -> None:
        self.session.timed_out()
        self._pump()

    _READERS: Mapping[str, Callable[[Player, str], None]] = {
        "S:": _server_says,
        "S~": _server_sends,
        "S.": _closed,
        "T.": _late,
        "C:": _client_said,
        "C~": _client_sent,
        "=": _told,
        "!": _act,
    }
