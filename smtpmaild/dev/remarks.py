"""What other servers would stumble over: a catcher takes everything, so it tells what the next one may not.

Each row looks at one thing; octets that were sent, and the header as it was read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from smtpmaild.dev.caught import Caught

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
# RFC 5322 §2.1.1: "Each line of characters MUST be no more than 998 characters".
_LONG = re.compile(rb"[^\n]{1000}")


def _has(message: Caught, name: str) -> bool:
    return any(found.lower() == name for found, _ in message.reading.fields)


def _count(message: Caught, name: str) -> int:
    return sum(found.lower() == name for found, _ in message.reading.fields)


def _has_8bit_header(message: Caught) -> bool:
    header = re.split(rb"\r?\n\r?\n", message.raw, maxsplit=1)[0]
    return not header.isascii() and "SMTPUTF8" not in (message.parameters or {})


def _has_8bit_body(message: Caught) -> bool:
    return not message.raw.isascii() and not {"BODY", "SMTPUTF8"} & (message.parameters or {}).keys()


#: What it looks for, and what is said of it.
REMARKS: Sequence[tuple[Callable[[Caught], object], str]] = (
    (lambda message: _BARE.search(message.raw), "It has bare CR or LF; lines must end in CRLF. Others refuse that."),
    (lambda message: _LONG.search(message.raw), "A line is longer than 998 octets (RFC 5322, 2.1.1)."),
    (_has_8bit_header, "Its header is not ASCII, and MAIL had no SMTPUTF8 (RFC 6532)."),
    (_has_8bit_body, "Its body is not ASCII, and MAIL had no BODY=8BITMIME (RFC 6152)."),
    (lambda message: not _has(message, "from"), "It has no From."),
    (lambda message: not _has(message, "date"), "It has no Date."),
    (lambda message: not _has(message, "message-id"), "It has no Message-ID."),
    (
        lambda message: any(_count(message, name) > 1 for name in ("from", "to", "subject", "date", "message-id")),
        "A field stands twice that may stand once (RFC 5322, 3.6). Others refuse that.",
    ),
    (lambda message: _has(message, "bcc"), "It has a Bcc field: every recipient sees it."),
)


def remarks_on(message: Caught) -> list[str]:
    """What there is to say of this message; nothing of most."""
    return [words for looks, words in REMARKS if looks(message)]
