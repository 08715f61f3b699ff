"""Reads a message that nobody has checked: its header fields, its texts, its parts. Never raises, whatever it is.

The standard library's parser does the work, under two guards. Its taking apart of header values is left out (32 KiB of
quotation marks keep it busy for half a minute): fields are decoded here, and bounded. And what the parser trips over,
such as unknown character sets or parts nested a thousand deep, is shown as it came.

Names and types of parts are what their sender says: whoever shows or serves them must not believe it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.parser import BytesHeaderParser
from email.policy import EmailPolicy
from functools import cached_property, lru_cache
from itertools import islice

#: Octets of a header value that are looked at. A thousand recipients fit.
_VALUE = 32 * 1024
#: And of one with parameters, as the library reads them.
_PARAMETERS = 4096
#: Header fields, and parts, of one message that are shown.
_FIELDS, _PARTS = 1000, 500
#: Characters of a text that are shown; the rest is in the raw message.
_TEXT = 1024 * 1024
#: Octets of a header.
_HEADER = 4 * 1024 * 1024
_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_SUBJECT = re.compile(rb"^subject:(.*(?:\r?\n[ \t].*)*)", re.MULTILINE | re.IGNORECASE)
_FOLD = re.compile(r"\r?\n(?=[ \t])")
_BREAKS = re.compile(r"[\r\n]+[ \t]*")
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}", re.ASCII)


class _Cautious(EmailPolicy):
    """The library's default policy, for which a header value is a text and no more."""

    def header_fetch_parse(self, name: str, value: str) -> str:
        return _BREAKS.sub(" ", value[:_PARAMETERS])


_POLICY = _Cautious()


@dataclass(frozen=True, slots=True)
class Part:
    """One leaf of a message.

    number: from 0, in the order of the message.  type: media type, lower case, always of its grammar.  name: as its
    sender calls the file, "" for none; not safe for anything.  content_id: without angle brackets.  is_body: it is the
    text of the message itself.
    """

    number: int
    type: str
    name: str
    content_id: str
    is_body: bool
    content: bytes
    charset: str = ""

    @property
    def text(self) -> str:
        """Its content as text with LF line ends, whatever its character set is said to be; the beginning, if it is
        very long."""
        return decoded(self.content, self.charset)[:_TEXT].replace("\r\n", "\n")


class Reading:
    """A message, read. Nothing is looked at before it is asked for; that may take seconds for one of many megabytes."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @cached_property
    def fields(self) -> Sequence[tuple[str, str]]:
        """The header, field by field, decoded. The body is not looked at."""
        end = _END_OF_HEADER.search(self.raw)
        header = self.raw[: end.end() if end else _HEADER][:_HEADER]
        fields = islice(BytesHeaderParser(policy=_POLICY).parsebytes(header).raw_items(), _FIELDS)
        return [(name, _shown(value)) for name, value in fields]

    def field(self, name: str) -> str:
        """The first field of this name; "" if there is none."""
        return next((value for found, value in self.fields if found.lower() == name.lower()), "")

    @property
    def subject(self) -> str:
        """The Subject."""
        return self.field("subject")

    @property
    def parts(self) -> Sequence[Part]:
        """Its leaves, in order."""
        return _parts_of(self)

    @property
    def text(self) -> str:
        """The plain text of the message; "" if there is none."""
        found = [part.text for part in self.parts if part.is_body and part.type == "text/plain"]
        return "\n\n".join(found)[:_TEXT]

    @property
    def html(self) -> str:
        """The first HTML of the message; "" if there is none."""
        return next((part.text for part in self.parts if part.is_body and part.type == "text/html"), "")

    @property
    def attachments(self) -> Sequence[Part]:
        """What comes with the texts: files, and pictures that the HTML shows."""
        return [part for part in self.parts if not part.is_body]


@lru_cache(maxsize=8)  # of the messages that are looked at; what is not would take more memory than the inbox has
def _parts_of(reading: Reading) -> Sequence[Part]:
    try:
        return list(_parts(message_from_bytes(reading.raw, policy=_POLICY)))
    except (Exception, RecursionError):
        return list(_parts(_unreadable(reading.raw)))


def subject_of(header: bytes) -> str:
    """The Subject in the header of a message, decoded."""
    found = _SUBJECT.search(header)
    return _shown(found[1][:_VALUE].decode("utf-8", "surrogateescape")).strip() if found else ""


def parsed(raw: bytes) -> EmailMessage:
    """The message by the standard library and its default policy, for programs that look closer. May raise what that
    raises."""
    from email.policy import default

    message = message_from_bytes(raw, policy=default)
    assert isinstance(message, EmailMessage)
    return message


def decoded(content: bytes, charset: str) -> str:
    """Octets as text: as they say themselves, else UTF-8, else as what cannot fail."""
    for name in (charset, "utf-8"):
        try:
            return content.decode(name)
        except (LookupError, ValueError, TypeError):  # TypeError: a name such as "base64" is a codec, but of no text
            pass
    return content.decode("latin-1")


def _unreadable(raw: bytes) -> Message:
    """In place of a message that the parser does not survive: all behind its header as one text."""
    end = _END_OF_HEADER.search(raw)
    message = Message(policy=_POLICY)
    message.set_payload(raw[end.end() if end else 0 :].decode("latin-1"))
    return message


def _shown(value: object) -> str:
    """A raw header value, decoded (RFC 2047) and on one line."""
    text = _FOLD.sub("", str(value))[:_VALUE]
    # Octets beyond ASCII come as surrogates: UTF-8 (RFC 6532), if they are anything.
    octets = text.encode("utf-8", "surrogateescape")
    text = decoded(octets, "utf-8")
    try:
        text = str(make_header(decode_header(text))) if "=?" in text else text
    except (HeaderParseError, LookupError, ValueError, AssertionError):
        pass
    return text.encode("utf-8", "replace").decode().strip()


def _parts(message: Message) -> Iterator[Part]:
    for number, one in enumerate(islice(_leaves(message), _PARTS)):
        kind = _type_of(one)
        name = _name_of(one)
        disposition = _word(one.get_content_disposition() or "")
        is_body = not name and disposition != "attachment" and kind in ("text/plain", "text/html")
        yield Part(
            number,
            kind,
            name,
            _word(one.get("content-id", "")).strip("<> "),
            is_body,
            _content_of(one),
            _word(one.get_param("charset", "")),
        )


def _leaves(message: Message) -> Iterator[Message]:
    """Without recursion; a message within a message is a leaf, as a mail program shows it."""
    waiting = [message]
    while waiting:
        one = waiting.pop()
        payload = one.get_payload()
        if isinstance(payload, list) and one.get_content_maintype() != "message":
            waiting.extend(part for part in reversed(payload) if isinstance(part, Message))
        else:
            yield one


def _type_of(part: Message) -> str:
    kind = str(part.get_content_type()).lower()
    return kind if _TYPE.fullmatch(kind) else "application/octet-stream"


def _name_of(part: Message) -> str:
    try:
        return _shown(part.get_filename() or "")
    except Exception:  # RFC 2231 in pieces that do not fit together
        return "unnamed"


def _word(value: object) -> str:
    """A parameter as text that can be encoded: RFC 2231 makes a tuple of some."""
    return str(value[-1] if isinstance(value, tuple) else value or "").encode("utf-8", "replace").decode()


def _content_of(part: Message) -> bytes:
    payload = part.get_payload()
    if isinstance(payload, list):  # message/rfc822, message/delivery-status
        return b"\r\n".join(one.as_bytes() for one in payload if isinstance(one, Message))
    try:
        content = part.get_payload(decode=True)
    except Exception:
        content = None
    if isinstance(content, bytes):
        return content
    return str(payload or "").encode("utf-8", "surrogateescape")
