"""Delivery status notifications: the messages that tell a sender what became of its mail (RFC 3461, 3464, 6522, 6533).

A report is a multipart/report of three parts: words for people (words.py), fields for programs (delivery_status.py),
and the original: its header, or all of it where it failed, the sender asked for it (RET=FULL) and it is not larger than
the operator returns. Original bytes are copied, never parsed and written anew; at most the returned size of them
is read. Each report has the null reverse-path and tells one event of one message for all recipients that share it.

NOTIFY decides who is told (RFC 3461 §4.1): failures and delays unless it says otherwise, success only where it says so.
Mail with the null reverse-path is reported to nobody.
"""

from __future__ import annotations

import email.policy
import quopri
import re
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage

from smtpmaild import queue_id, trace
from smtpmaild.envelope import BodyType
from smtpmaild.facts import Log
from smtpmaild.queue import Entry, QueuedMessage, QueuedRecipient
from smtpmaild.queue.body import BytesBody
from smtpmaild.queue.delivery_status import Status, reply_lines
from smtpmaild.queue.reports import Action, Told
from smtpmaild.queue.words import ENGLISH, Text, Words
from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address
from smtpmaild.smtp.timing import deliver_by

#: How much of a header we give back.
HEADER_LIMIT = 64 * 1024
#: Messages up to this size are given back whole where the sender asks for it. Postfix: bounce_size_limit = 50000.
RETURNED_SIZE = 50_000

# RFC 5321 §4.5.3.1.6: 1000 octets with CRLF.
_LONGEST_LINE = 998
_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")

#: What each action is called in NOTIFY. Without NOTIFY there are reports of failures, and we tell of delays as well.
_WORD_OF_NOTIFY = {
    Action.FAILED: "FAILURE",
    Action.DELAYED: "DELAY",
    Action.DELIVERED: "SUCCESS",
    Action.RELAYED: "SUCCESS",
    Action.EXPANDED: "SUCCESS",
}
#: Parameters of MAIL that a report has from what it is about: it travels within TLS as well (RFC 8689 §5), and is as
#: urgent (RFC 6710 §4.6). Never RET (RFC 3461 §6.1), and no times, which were for the message.
_PASSED_ON = frozenset(("REQUIRETLS", "MT-PRIORITY"))
_BY_DEFAULT = (Action.FAILED, Action.DELAYED)


@dataclass(frozen=True, slots=True)
class Reports:
    """The Reporter of the queue.

    route: which route of the queue takes mail to an address; "" where none does.  max_age: how long mail is tried, in
    seconds.  returned_size: bytes up to which a message is given back whole.
    """

    hostname: str
    route: Callable[[Address], str]
    log: Log
    max_age: float
    words: Words = field(default_factory=lambda: ENGLISH, repr=False)
    returned_size: int = RETURNED_SIZE
    clock: Callable[[], float] = time.time

    def __call__(self, message: QueuedMessage, told: Sequence[Told]) -> Sequence[Entry]:
        """See Reporter: one report for each action, for those recipients whose NOTIFY wants it."""
        if message.reverse_path.is_null:
            return ()
        by_action: dict[Action, list[Told]] = {}
        for one in filter(is_wanted, told):
            by_action.setdefault(one.action, []).append(one)
        if not by_action:
            return ()
        route = self.route(message.reverse_path)
        if not route:
            self.log.warning("report_nowhere", queue_id=message.queue_id, sender=message.reverse_path.text)
            return ()
        return [self._entry(message, each, route) for each in by_action.values()]

    def _entry(self, message: QueuedMessage, told: Sequence[Told], route: str) -> Entry:
        name, now = queue_id.make(), self.clock()
        # RFC 8689 §5: what was to travel within TLS alone comes back so, and no more of it than has to.
        is_secret = "REQUIRETLS" in message.parameters
        # RFC 6532 §3: message/rfc822 holds no message with a header in UTF-8.
        travels = is_global(message) or not message.is_utf8
        is_whole = told[0].action is Action.FAILED and travels and not is_secret
        original = self._read(message, is_whole=is_whole)
        until = _tried_until(message, self.max_age)
        data = compose(self.hostname, name, now, message, told, original, self.words, until)
        self.log.info("report_made", queue_id=name, about=message.queue_id, action=told[0].action.value)
        report = QueuedMessage(
            queue_id=name,
            reverse_path=NULL_REVERSE_PATH,
            received_at=now,
            body=BytesBody(data),
            body_type=BodyType.SEVEN_BIT if data.isascii() else BodyType.EIGHT_BIT_MIME,
            is_utf8=is_global(message),
            parameters={word: value for word, value in message.parameters.items() if word in _PASSED_ON},
        )
        return report, [QueuedRecipient(0, message.reverse_path, route, next_attempt=now)]

    def _read(self, message: QueuedMessage, *, is_whole: bool) -> Original:
        """What is given back. OSError: it cannot be read now; where there is no file any more, there will be none."""
        try:
            return _original(message, is_whole=is_whole, most=self.returned_size)
        except FileNotFoundError as error:
            self.log.error("report_without_original", queue_id=message.queue_id, cause=str(error))
            return Original(b"", is_whole=False)


def _tried_until(message: QueuedMessage, max_age: float) -> float:
    """When we give up, as the runner does."""
    by, until = deliver_by(message.parameters), message.released_at + max_age
    return min(until, message.deadline) if by is not None and by.is_returned else until


def is_wanted(told: Told) -> bool:
    """Whether the sender wants to be told so of this recipient."""
    notify = told.recipient.parameters.get("NOTIFY", "").upper()
    if not notify:
        return told.is_traced or told.action in _BY_DEFAULT
    if told.is_traced:
        return notify != "NEVER"
    return _WORD_OF_NOTIFY[told.action] in notify.split(",")


def is_global(message: QueuedMessage) -> bool:
    """The report is one of RFC 6533, in UTF-8: for who has an address that nobody else could be sent mail at.

    Whoever has one in ASCII, whatever he wrote, may be behind a server that does not know SMTPUTF8, where such a report
    would be lost: he gets it in ASCII.
    """
    return not message.reverse_path.is_ascii


@dataclass(frozen=True, slots=True)
class Original:
    """What is given back of a message. is_whole: all of it, not its header alone."""

    data: bytes
    is_whole: bool


def _original(message: QueuedMessage, *, is_whole: bool, most: int) -> Original:
    """RFC 3461 §4.3: RET applies to reports of failure; binary messages and broken lines travel in no part of ours."""
    is_whole = is_whole and message.parameters.get("RET", "").upper() == "FULL" and message.body.size <= most
    with message.body.open() as stream:
        data = stream.read(max(most, HEADER_LIMIT) if is_whole else HEADER_LIMIT)
    if is_whole and message.body_type is not BodyType.BINARY_MIME and _travels(data):
        return Original(data, is_whole=True)
    header = _END_OF_HEADER.split(data, 1)[0]
    return Original(b"".join(line + b"\r\n" for line in _LINE_END.split(header) if line), is_whole=False)


def _travels(data: bytes) -> bool:
    """Can be sent as 7bit or 8bit (RFC 2045 §2.7, §2.8)."""
    return b"\0" not in data and not _BARE.search(data) and max(map(len, data.split(b"\r\n"))) <= _LONGEST_LINE


def compose(
    hostname: str,
    report_id: str,
    now: float,
    message: QueuedMessage,
    told: Sequence[Told],
    original: Original,
    words: Words,
    retry_until: float,
) -> bytes:
    """The report, with CRLF line ends. All of `told` share one action."""
    is_utf8 = is_global(message)
    text = words[told[0].action].filled(_facts(hostname, message, told, retry_until))
    status = bytes(Status(hostname, message, told, retry_until, is_utf8))
    parts = [
        _human(text),
        _part("message/global-delivery-status" if is_utf8 else "message/delivery-status", status),
        _returned(original, is_utf8=is_utf8),
    ]
    boundary = f"=_{secrets.token_hex(16)}"
    head = EmailMessage(email.policy.SMTPUTF8 if is_utf8 else email.policy.SMTP)
    head["Date"] = trace.date_text(now)
    head["From"] = HeaderAddress("Mail Delivery System", "MAILER-DAEMON", hostname)
    head["Subject"] = text.subject
    head["Message-ID"] = f"<{report_id}@{hostname}>"
    head["Auto-Submitted"] = "auto-replied"  # RFC 3834 §5
    head["MIME-Version"] = "1.0"
    # The address stands as it is: it came through the grammar of SMTP, which is narrower than that of header fields.
    to = f"To: <{message.reverse_path.text}>\r\n"
    encoding = "7bit" if all(part.isascii() for part in parts) else "8bit"
    kind = f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"\r\n'
    lines = f"{to}{kind}Content-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    return bytes(head).removesuffix(b"\r\n") + lines + _joined(parts, boundary.encode("ascii"))


def _facts(hostname: str, message: QueuedMessage, told: Iterable[Told], retry_until: float) -> dict[str, str]:
    return {
        "hostname": hostname,
        "sender": message.reverse_path.text,
        "queue_id": message.queue_id,
        "received_at": trace.date_text(message.received_at),
        "recipients": "\n".join(map(_said, told)),
        "until": trace.date_text(retry_until),
    }


def _said(told: Told) -> str:
    """A recipient, and what was said of it in the very words."""
    recipient = told.recipient
    lines = [f"<{recipient.accepted_as or recipient.address.text}>"]  # who wrote to an alias knows nothing else
    if recipient.last is not None:
        who = f"{recipient.remote} said:" if recipient.remote else "We could not go on:"
        if told.action in (Action.FAILED, Action.DELAYED) or recipient.remote:
            lines.append(f"    {who}")
        lines += [f"    {line}" for line in reply_lines(recipient.last)]
    return "\n".join(lines)


def _human(text: Text) -> bytes:
    part = EmailMessage(email.policy.SMTP)
    part.set_content(text.body, cte="7bit" if _is_plain(text.body) else "quoted-printable")
    del part["MIME-Version"]
    return bytes(part)


def _is_plain(text: str) -> bool:
    return text.isascii() and max(map(len, text.split("\n"))) <= _LONGEST_LINE


def _returned(original: Original, *, is_utf8: bool) -> bytes:
    if original.is_whole:
        return _part("message/global" if is_utf8 else "message/rfc822", original.data)
    kind = "message/global-headers" if is_utf8 else "text/rfc822-headers"
    if _travels(original.data) and (is_utf8 or original.data.isascii()):
        return _part(kind, original.data)
    # RFC 6522 §4: "if the headers are broken or extended and require encoding to make them legal 7-bit content, they
    # MAY be encoded with quoted-printable".
    encoded = quopri.encodestring(original.data.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    return _part(kind, encoded, "quoted-printable")


def _part(kind: str, data: bytes, encoding: str = "") -> bytes:
    encoding = encoding or ("7bit" if data.isascii() else "8bit")
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode("ascii") + data


def _joined(parts: Iterable[bytes], boundary: bytes) -> bytes:
    """RFC 2046 §5.1.1. The boundary is chance: no peer can have put it into a message."""
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return body + b"--" + boundary + b"--\r\n"
