"""Text from standard input -> a message as it travels: CRLF, a header with From, Date and Message-ID, no Bcc.

A program's text may have any line ends; each becomes CRLF, also the bare CR of progress bars, which no server takes.
Header fields that are there stay byte by byte, but for Bcc.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address, ToAscii, parse_mailbox

_LINE_END = re.compile(rb"\r\n|\r|\n")
# field-name = 1*ftext: printable ASCII but the colon (RFC 5322 §3.6.8); blanks before the colon are obsolete, and met.
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_BCC = (b"bcc", b"resent-bcc")
_RECIPIENT_FIELDS = (b"to", b"cc", b"bcc")


class MessageError(Exception):
    """What was given is no message, or names nobody. The text says why."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who calls. hostname: completes addresses without domain."""

    login: str
    full_name: str
    hostname: str
    to_ascii: ToAscii

    def address(self, text: str) -> Address:
        """An address as people write it; raises MessageError."""
        name = text.strip().removeprefix("<").removesuffix(">")
        whole = name if "@" in name else f"{name}@{self.hostname}"
        found = parse_mailbox(whole, self.to_ascii)
        if found is None:
            raise MessageError(f"'{text}' is no address")
        return found

    def sender(self, text: str | None) -> Address:
        """The reverse-path; "" and <> are the null sender, None is the caller."""
        if text is None:
            return self.address(self.login)
        return NULL_REVERSE_PATH if text.strip() in ("", "<>") else self.address(text)


def with_crlf(text: bytes, *, ends_at_dot: bool) -> bytes:
    """With CRLF at each line's end, the last one too; up to a line of a single dot, where that ends it."""
    text = _LINE_END.sub(b"\r\n", text)
    if ends_at_dot:
        text = (b"\r\n" + text).partition(b"\r\n.\r\n")[0].removeprefix(b"\r\n")
    return text if not text or text.endswith(b"\r\n") else text + b"\r\n"


@dataclass(frozen=True, slots=True)
class Message:
    """fields: (name in lower case, field with its line ends).  body: behind the empty line."""

    fields: Sequence[tuple[bytes, bytes]]
    body: bytes

    @classmethod
    def of(cls, text: bytes) -> Message:
        """Of text with CRLF. What does not begin with a header is all body."""
        fields: list[tuple[bytes, bytes]] = []
        lines = text.split(b"\r\n")
        if lines[0].startswith(b"From "):  # mbox; some programs copy it along
            del lines[0]
        end = 0  # of the header
        for end, line in enumerate(lines):  # noqa: B007 - looked at behind the loop
            if fields and line[:1] in (b" ", b"\t"):
                name, field = fields[-1]
                fields[-1] = (name, field + line + b"\r\n")
            elif match := _FIELD.match(line):
                fields.append((match[1].lower(), line + b"\r\n"))
            else:
                break
        body = lines[end:]
        return cls(fields, b"\r\n".join(body[1:] if body and not body[0] else body))

    def recipients(self) -> Iterator[str]:
        """Whom the header names: of a message that was sent again, those of the last time (RFC 5322 §3.6.6)."""
        names = {name for name, _ in self.fields}
        prefix = b"resent-" if any(b"resent-" + name in names for name in _RECIPIENT_FIELDS) else b""
        wanted = [prefix + name for name in _RECIPIENT_FIELDS]
        for name, field in self.fields:
            if name in wanted:
                yield from _addresses(field.partition(b":")[2].decode("utf-8", "surrogateescape"))

    def completed(self, author: Author, sender: Address, message_id: Callable[[], str]) -> bytes:
        """As it travels."""
        names = {name for name, _ in self.fields}
        kept = b"".join(field for name, field in self.fields if name not in _BCC)
        added = ""
        if b"from" not in names:
            who = sender if not sender.is_null else author.address(author.login)
            added += f"From: {email.utils.formataddr((author.full_name, who.text))}\r\n"
        if b"date" not in names:
            added += f"Date: {email.utils.formatdate(localtime=True)}\r\n"
        if b"message-id" not in names:
            added += f"Message-ID: <{message_id()}@{author.hostname}>\r\n"
        return added.encode() + kept + b"\r\n" + self.body


def _addresses(value: str) -> Iterator[str]:
    for _, address in email.utils.getaddresses([value.replace("\r\n", "")]):
        if address:
            yield address
        elif "@" in value:  # it gives up on all of the field for one mistake in it
            raise MessageError(f"cannot read the addresses in '{value.strip()}'")
