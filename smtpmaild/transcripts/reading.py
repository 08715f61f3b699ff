"""Reads the text of a transcript."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

from smtpmaild.transcripts import Directive, Expect, Instead, Mark, Say, Transcript

#: How a client on a Unix socket is written.
LOCAL = "local"
#: Octets that one line of a transcript can stand for.
MOST = 64 * 1024 * 1024
_MOST_DIGITS = 20


def read(text: str, name: str) -> Transcript:
    """Raises ValueError, with the name and the line, for what is not of the format."""
    transcript = Transcript(name)
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name}:{number}"
        word, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if transcript.is_closed and word[:1] in ("C", "S"):
            raise ValueError(f"{where}: the connection is closed already")
        if word in _READERS:
            _READERS[word](transcript, rest, where)
        elif word.startswith("@"):
            transcript.others.append(Directive(where, word, rest))
        else:
            raise ValueError(f"{where}: not a line of a transcript: {line}")
    return transcript


def octets(text: str, where: str) -> bytes:
    """A bytes literal, or several joined by `+` and repeated by `*`: b"x" * 998 + b"\\r\\n"."""
    found = b""
    for term in text.split(" + "):
        literal, _, times = term.partition(" * ")
        try:
            value = ast.literal_eval(literal)
        except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two for what is nested too deep
            value = None
        if not isinstance(value, bytes):
            raise ValueError(f"{where}: not a bytes literal: {literal[:80]}")
        if times and not (times.isascii() and times.isdecimal() and len(times) < _MOST_DIGITS):
            raise ValueError(f"{where}: not a number of times: {times[:80]}")
        if len(found) + len(value) * int(times or 1) > MOST:
            raise ValueError(f"{where}: more than {MOST} octets")
        found += value * int(times or 1)
    return found


def _line(transcript: Transcript, rest: str, where: str) -> None:
    transcript.steps.append(Say(rest.encode() + b"\r\n", where, f"C: {rest}"))


def _octets(transcript: Transcript, rest: str, where: str) -> None:
    transcript.steps.append(Say(octets(rest, where), where, f"C~ {rest}"))


def _mark(transcript: Transcript, rest: str, where: str) -> None:
    word, _, argument = rest.partition(" ")
    if word not in _MARKS or (_MARKS[word] in _COUNTED and not (argument.isascii() and argument.isdecimal())):
        raise ValueError(f"{where}: C! is followed by STARTTLS, AUTH, body or octets, the last two with a number")
    if _MARKS[word] in _COUNTED and (len(argument) >= _MOST_DIGITS or int(argument) > MOST):
        raise ValueError(f"{where}: more than {MOST} octets")
    transcript.steps.append(Instead(_MARKS[word], argument, where, f"C! {rest}"))


_MARKS = {mark.value: mark for mark in Mark}
_COUNTED = (Mark.BODY, Mark.OCTETS)


def _expected(transcript: Transcript, rest: str, where: str) -> None:
    transcript.steps.append(Expect(where, rest, skips=False, source=f"S: {rest}"))


def _skipping(transcript: Transcript, rest: str, where: str) -> None:
    transcript.steps.append(Expect(where, rest, skips=True, source=f"S... {rest}"))


def _closed(transcript: Transcript, _rest: str, _where: str) -> None:
    transcript.is_closed = True


def _client(transcript: Transcript, rest: str, _where: str) -> None:
    client, _, transcript.client_name = rest.partition(" ")
    transcript.client = "" if client == LOCAL else client


def _listener(transcript: Transcript, rest: str, _where: str) -> None:
    transcript.listener = rest


def _tls(transcript: Transcript, rest: str, where: str) -> None:
    if rest != "implicit":
        raise ValueError(f"{where}: @tls implicit; elsewhere TLS begins with C! STARTTLS")
    transcript.is_implicit_tls = True


_READERS: Mapping[str, Callable[[Transcript, str, str], None]] = {
    "@client": _client,
    "@listener": _listener,
    "@tls": _tls,
    "C:": _line,
    "C~": _octets,
    "C!": _mark,
    "S:": _expected,
    "S...": _skipping,
    "S.": _closed,
}
