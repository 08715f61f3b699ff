"""What `sendmail` does with a message: to the daemon, else into the drop directory, else an exit status that says so.

The daemon's own words decide. 2yz: it has the message. 4yz, or nobody there: the message waits in the drop directory,
and the caller is done. 5yz: it is refused, the caller reads why on standard error and from the exit status; nothing is
dropped that would be refused later all the same.
"""

from __future__ import annotations

import io
import os
import pwd
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, TextIO

from smtpmaild import queue_id
from smtpmaild.idn import to_ascii
from smtpmaild.sendmail import DROP, SOCKET, Letter, drop
from smtpmaild.sendmail.flags import Mode, Orders
from smtpmaild.sendmail.message import Author, Message, MessageError, with_crlf
from smtpmaild.sendmail.submit import PATIENCE, relay, submit
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import Reply

# sysexits.h
EX_OK, EX_USAGE, EX_DATAERR, EX_NOUSER, EX_UNAVAILABLE, EX_OSERR = 0, 64, 65, 67, 69, 71
EX_TEMPFAIL, EX_NOPERM = 75, 77

_XTEXT = {ord(character): f"+{ord(character):02X}" for character in "+="}


def _host_name() -> str:
    """What completes addresses without domain: Debian's file for that, else the name of the machine."""
    try:
        with open("/etc/mailname", encoding="ascii") as file:
            name = file.readline().strip()
    except (OSError, UnicodeDecodeError):
        name = ""
    return name or socket.getfqdn()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where things are and whom to talk to. standard input and output as descriptors, for -bs."""

    socket: str = SOCKET
    drop: str = DROP
    hostname: str = field(default_factory=_host_name)
    patience: float = PATIENCE
    errors: TextIO = field(default_factory=lambda: sys.stderr)

    def say(self, text: str) -> None:
        print(f"sendmail: {text}", file=self.errors)


def author(environment: Mapping[str, str], full_name: str, hostname: str) -> Author:
    """Whoever calls."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:  # a container may have a number only
        login, name = environment.get("LOGNAME", "") or f"uid{os.getuid()}", ""
    else:
        login = entry.pw_name
        name = entry.pw_gecos.partition(",")[0].replace("&", login.capitalize())
    return Author(login, full_name or environment.get("NAME", "") or name, hostname, to_ascii)


def run(orders: Orders, surroundings: Surroundings, stdin: BinaryIO, environment: Mapping[str, str]) -> int:
    """Do it; the exit status."""
    if orders.mode is Mode.SMTP:
        return _speak(surroundings, stdin)
    if orders.mode is not Mode.DELIVER:
        return EX_OK
    who = author(environment, orders.full_name, surroundings.hostname)
    try:
        letter, message = _read(orders, who, stdin)
    except MessageError as error:
        surroundings.say(str(error))
        return EX_DATAERR
    if not letter.recipients:
        surroundings.say("nobody to send to: name recipients, or give -t and have the header name them")
        return EX_USAGE
    return _hand_in(surroundings, letter, message)


def _read(orders: Orders, who: Author, stdin: BinaryIO) -> tuple[Letter, bytes]:
    sender = who.sender(orders.sender)
    names = [*orders.recipients]
    message = Message.of(with_crlf(stdin.read(), ends_at_dot=orders.ends_at_dot))
    if orders.reads_header:
        names += message.recipients()
    # A comma in an argument separates, as in a header: `sendmail a,b`.
    recipients = dict.fromkeys(who.address(name) for one in names for name in _parted(one))
    mail = {
        **({"RET": orders.ret} if orders.ret else {}),
        **({"ENVID": orders.envelope_id.translate(_XTEXT)} if orders.envelope_id else {}),
    }
    rcpt = {"NOTIFY": orders.notify} if orders.notify else {}
    return Letter(sender, tuple(recipients), mail, rcpt), message.completed(who, sender, queue_id.make)


def _parted(text: str) -> Sequence[str]:
    return [text] if '"' in text else [part for part in text.split(",") if part.strip()]


def _hand_in(surroundings: Surroundings, letter: Letter, message: bytes) -> int:
    try:
        replies = submit(
            surroundings.socket, letter, io.BytesIO(message), surroundings.hostname, patience=surroundings.patience
        )
    except OSError:
        return _drop(surroundings, letter, message, "the daemon does not answer")
    said = [*zip(letter.recipients, replies, strict=True)]
    refused = [(recipient, reply) for recipient, reply in said if reply.is_permanent]
    for recipient, reply in refused:
        surroundings.say(f"<{recipient.text}>: {reply}")
    status = _status(refused)
    later = [(recipient, reply) for recipient, reply in said if not reply.is_positive and not reply.is_permanent]
    if later:
        rest = replace(letter, recipients=tuple(recipient for recipient, _ in later))
        return _drop(surroundings, rest, message, str(later[0][1])) or status
    return status


def _drop(surroundings: Surroundings, letter: Letter, message: bytes, why: str) -> int:
    try:
        drop.put(surroundings.drop, letter, message)
    except OSError as error:
        surroundings.say(f"{why}, and nothing can be left in '{surroundings.drop}': {error.strerror}")
        return EX_TEMPFAIL
    return EX_OK


def _status(refused: Sequence[tuple[Address, Reply]]) -> int:
    """What tells best why somebody does not get it."""
    if not refused:
        return EX_OK
    subject = refused[0][1].enhanced[2:4]
    return {"1.": EX_NOUSER, "6.": EX_DATAERR, "7.": EX_NOPERM}.get(subject, EX_UNAVAILABLE)


def _speak(surroundings: Surroundings, stdin: BinaryIO) -> int:
    try:
        relay(surroundings.socket, stdin.fileno(), 1)
    except OSError as error:
        surroundings.say(f"cannot talk to the daemon at '{surroundings.socket}': {error.strerror}")
        return EX_TEMPFAIL
    return EX_OK
