"""The client's side of Dovecot's authentication protocol, version 1: lines in, lines out, no socket.

Dovecot's auth process verifies for other programs over a Unix socket, by whatever it is configured with: PAM, LDAP,
SQL. A line is a command and its fields, separated by tabs. Both sides say who they are, Dovecot tells its mechanisms;
then any number of requests run at the same time, each under an id of ours:

    C: AUTH 7 PLAIN service=smtp secured resp=AGFsaWNlAHNlY3JldA==      S: OK 7 user=alice   or   FAIL 7 user=alice
    C: AUTH 8 SCRAM-SHA-256 service=smtp resp=...                        S: CONT 8 <base64>  then  C: CONT 8 <base64>

`Conversation` is one connection. What Dovecot sends that makes no sense raises DovecotError, and the connection is of
no more use.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from smtpmaild.envelope import Session

_VERSION = 1  # another major version is another protocol
#: Dovecot's own limit is 8192; a line without an end is none.
_LONGEST_LINE = 64 * 1024
#: RFC 4954 lines are shorter, and Dovecot takes no longer ones of us.
LONGEST_RESPONSE = 8000
_LAST_ID = 2**31 - 1


_ATTRIBUTE = re.compile(r"(?:[^\\,+]|\\.)+", re.DOTALL)
_ESCAPED = re.compile(r"\\(?:([^0-9A-Fa-f])|([0-9A-Fa-f]{2}))", re.DOTALL)


class DovecotError(Exception):
    """The other side does not speak as expected; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Continue:
    """The mechanism goes on: this is for the client."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is `user`, as Dovecot calls it."""

    user: str


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not. user: whom the client wanted to be, if that is known.  is_temporary: it cannot be said now."""

    cause: str
    user: str = ""
    is_temporary: bool = False


Answer = Continue | Accepted | Refused


class Conversation:
    """One connection. process_id: ours, for Dovecot's log.

    mechanisms: what Dovecot offers, once is_ready.
    """

    def __init__(self, process_id: int) -> None:
        self.is_ready = False
        self.mechanisms: tuple[str, ...] = ()
        self._process_id = process_id
        self._unread = b""
        self._has_version = False
        self._last_id = 0

    def hello(self) -> bytes:
        """What we say first. Dovecot speaks without waiting for it."""
        return f"VERSION\t{_VERSION}\t1\nCPID\t{self._process_id}\n".encode()

    def request(self, mechanism: str, parameters: Sequence[str], initial: bytes | None) -> tuple[int, bytes]:
        """(id, line) of a new request. initial: None if the client sent no initial response."""
        self._last_id = self._last_id % _LAST_ID + 1
        # "resp=" must be the last: Dovecot takes all that follows for it.
        response = [] if initial is None else [f"resp={_base64(initial)}"]
        fields = ("AUTH", str(self._last_id), mechanism, *map(_escaped, parameters), *response)
        return self._last_id, ("\t".join(fields) + "\n").encode()

    def proceed(self, request: int, data: bytes) -> bytes:
        """The line with the client's answer to a Continue."""
        return f"CONT\t{request}\t{_base64(data)}\n".encode()

    def cancel(self, request: int) -> bytes:
        """The line that ends a request."""
        return f"CANCEL\t{request}\n".encode()

    def receive_data(self, data: bytes) -> list[tuple[int, Answer]]:
        """Take what the socket brought; the answers to requests in it."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        if len(self._unread) > _LONGEST_LINE:
            raise DovecotError("a line has no end")
        return [answer for line in lines if (answer := self._read(line)) is not None]

    def _read(self, line: bytes) -> tuple[int, Answer] | None:
        command, *fields = line.decode("utf-8", "replace").split("\t")
        if command in _ANSWERS:
            if not self.is_ready or not fields or not fields[0].isdecimal():
                raise DovecotError(f"{command} came unexpected")
            return int(fields[0]), _ANSWERS[command](fields[1:])
        if command == "VERSION":
            if fields[:1] != [str(_VERSION)]:
                raise DovecotError("it speaks another version of the protocol")
            self._has_version = True
        elif command == "MECH" and fields:
            self.mechanisms = (*self.mechanisms, fields[0].upper())
        elif command == "DONE":
            if not self._has_version:
                raise DovecotError("it does not say its version")
            self.is_ready = True
        # SPID, CUID, COOKIE and what later minor versions bring are nothing to us.
        return None


def parameters_of(session: Session) -> list[str]:
    """What Dovecot is told of a session, for its policies and its log."""
    # nologin: nobody will ask Dovecot for a mail session afterwards.
    told = ["service=smtp", "nologin"]
    if session.peer.host:
        told += [f"rip={session.peer.host}", f"rport={session.peer.port}"]
    if session.tls is None:
        return told
    told.append("secured")
    certificate = session.tls.client
    if certificate is not None:
        told.append("valid-client-cert")
        name = _common_name(certificate.subject)
        told += [f"cert_username={name}"] if name else []
    return told


def _common_name(subject: str) -> str:
    """The first CN of a distinguished name (RFC 4514); a comma behind a backslash does not end an attribute."""
    for attribute in _ATTRIBUTE.findall(subject):
        if attribute.startswith("CN="):
            return _ESCAPED.sub(lambda match: match[1] or chr(int(match[2], 16)), attribute[3:])
    return ""


def _continue(fields: Sequence[str]) -> Answer:
    try:
        return Continue(base64.b64decode(fields[0] if fields else "", validate=True))
    except (binascii.Error, ValueError):
        raise DovecotError("CONT is not base64") from None


def _accepted(fields: Sequence[str]) -> Answer:
    user = _named(fields).get("user", "")
    if not user:
        raise DovecotError("OK names no user")
    return Accepted(user)


def _refused(fields: Sequence[str]) -> Answer:
    named = _named(fields)
    # "temp": the database is down; "code=temp_fail" says the same in newer versions.
    is_temporary = "temp" in named or named.get("code") == "temp_fail"
    said = [named[key] for key in ("reason", "code") if named.get(key)]
    said += [key for key in ("user_disabled", "pass_expired", "authz") if key in named]
    return Refused(", ".join(said) or "Dovecot says no", named.get("user", ""), is_temporary)


_ANSWERS = {"CONT": _continue, "OK": _accepted, "FAIL": _refused}


def _named(fields: Sequence[str]) -> Mapping[str, str]:
    """Key -> value; "" for a key alone."""
    return {key: _unescaped(value) for key, _, value in (one.partition("=") for one in fields)}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


#: Tabs, line ends and NUL within a value: \001 and a letter.
_ESCAPES = {"\x01": "1", "\0": "0", "\t": "t", "\n": "n", "\r": "r"}
_LETTERS = {letter: character for character, letter in _ESCAPES.items()}


def _escaped(text: str) -> str:
    return "".join(f"\x01{_ESCAPES[c]}" if c in _ESCAPES else c for c in text)


def _unescaped(text: str) -> str:
    first, *rest = text.split("\x01")
    return first + "".join(_LETTERS.get(part[:1], part[:1]) + part[1:] for part in rest)
