"""The flags of sendmail, as Sendmail, Postfix and Exim know them.

A flag is one letter; those without value can be joined (-ti), a value follows at once or as the next argument. Flags
that only tune another program are taken and ignored, for scripts pass them; what we cannot do is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Mode(Enum):
    """What is to be done."""

    DELIVER = "hand in the message on standard input"
    SMTP = "speak SMTP on standard input and output (-bs)"
    LIST = "list the queue (-bp)"
    RUN = "try the queue now (-q)"
    ALIASES = "rebuild the alias database (-bi): there is none"


@dataclass(slots=True)
class Orders:
    """What the caller wants.

    sender: None for the caller's own address.  reads_header: the header names recipients (-t).  ends_at_dot: a line of
    a single dot ends the message.  notify, ret, envelope_id: for DSN.
    """

    mode: Mode = Mode.DELIVER
    recipients: tuple[str, ...] = ()
    sender: str | None = None
    full_name: str = ""
    reads_header: bool = False
    ends_at_dot: bool = True
    notify: str = ""
    ret: str = ""
    envelope_id: str = ""


class UsageError(Exception):
    """The text says what is wrong."""


_MODES = {"m": Mode.DELIVER, "s": Mode.SMTP, "p": Mode.LIST, "i": Mode.ALIASES}
# Value in the same word or the next one.
_WITH_VALUE = "ABCFLNORVXfhopr"
# Value, if any, in the same word.
_WITH_OWN_VALUE = "bdeq"
_WITHOUT = "EGUimnstv"


def parse(arguments: Sequence[str]) -> Orders:
    """Raises UsageError."""
    orders = Orders()
    rest = [*arguments]
    recipients: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            recipients += rest
            break
        if not word.startswith("-") or word == "-":
            recipients.append(word)
        else:
            _take(orders, word[1:], rest)
    orders.recipients = tuple(recipients)
    return orders


def _take(orders: Orders, letters: str, rest: list[str]) -> None:
    """One word of flags; takes its value from the next word where it needs to."""
    while letters:
        flag, letters = letters[0], letters[1:]
        if flag in _WITHOUT:
            _set(orders, flag, "")
        elif flag in _WITH_OWN_VALUE:
            _set(orders, flag, letters)
            return
        elif flag in _WITH_VALUE:
            if not letters and not rest:
                raise UsageError(f"-{flag} needs a value")
            _set(orders, flag, letters or rest.pop(0))
            return
        else:
            raise UsageError(f"unknown flag -{flag}")


def _set(orders: Orders, flag: str, value: str) -> None:
    if flag == "b":
        if value not in _MODES:
            raise UsageError(f"-b{value} is for the server, which is `smtpmaild --config FILE`")
        orders.mode = _MODES[value]
    elif flag == "o":  # options of Sendmail; one of them matters
        if value == "i":
            orders.ends_at_dot = False
    elif flag in _EFFECTS:
        _EFFECTS[flag](orders, value)


def _from(orders: Orders, value: str) -> None:
    orders.sender = value


def _full_name(orders: Orders, value: str) -> None:
    orders.full_name = value


def _header(orders: Orders, _: str) -> None:
    orders.reads_header = True


def _no_dot(orders: Orders, _: str) -> None:
    orders.ends_at_dot = False


def _run(orders: Orders, _: str) -> None:
    orders.mode = Mode.RUN


def _notify(orders: Orders, value: str) -> None:
    words = value.upper().split(",")
    if not (words == ["NEVER"] or {*words} <= {"SUCCESS", "FAILURE", "DELAY"}):
        raise UsageError(f"-N takes never, or some of success, failure and delay, not '{value}'")
    orders.notify = ",".join(words)


def _ret(orders: Orders, value: str) -> None:
    if value.upper() not in ("FULL", "HDRS"):
        raise UsageError(f"-R takes full or hdrs, not '{value}'")
    orders.ret = value.upper()


def _envelope_id(orders: Orders, value: str) -> None:
    if not re.fullmatch(r"[\x21-\x7e]{1,100}", value):
        raise UsageError("-V takes up to 100 printable characters of ASCII")
    orders.envelope_id = value


#: Flags that change what we do; those of Sendmail that are missing here are taken and ignored.
_EFFECTS: Mapping[str, Callable[[Orders, str], None]] = {
    "f": _from,
    "r": _from,
    "F": _full_name,
    "t": _header,
    "i": _no_dot,
    "q": _run,
    "N": _notify,
    "R": _ret,
    "V": _envelope_id,
}
