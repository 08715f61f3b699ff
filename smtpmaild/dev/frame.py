"""The HTML of a message as a document of its own, for a frame in which nothing runs.

Two walls, each enough: the frame is sandboxed (no script, no form, an origin of its own), and the answer has a policy
that lets it load nothing but what is in it. Pictures that come with the message are put into the document, so even our
own addresses are closed to it. Remote pictures, which tell their sender who reads when, only by leave.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from smtpmaild.dev.reading import Part, Reading

#: Octets of pictures that are put into one document.
_PICTURES = 24 * 1024 * 1024
#: What a browser shows as a picture, and runs nothing of, in an <img>.
PICTURE_TYPES: Final = frozenset(
    ("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp", "image/svg+xml")
)
_CID = re.compile(r"""cid:([^"'\s<>()]{1,1000})""", re.IGNORECASE)
# The beginning, up to where an element may stand without making the browser take the document for an old one.
_PROLOGUE = re.compile(r"[\ufeff\s]*(?:<!doctype[^>]{0,1000}>)?", re.IGNORECASE)
_REMOTE = re.compile(
    r"""(?:(?:src|background|srcset)\s*=|url\()\s*["']?\s*(?:https?:)?//|@import""", re.IGNORECASE | re.ASCII
)
_SANDBOX = "sandbox allow-popups allow-popups-to-escape-sandbox"
_POLICY = (
    "default-src 'none'; img-src data:{remote}; style-src 'unsafe-inline'{remote}; font-src data:{remote}; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'; " + _SANDBOX
)


def document(reading: Reading) -> bytes:
    """The HTML with its own pictures; links open elsewhere."""
    html = reading.html
    pictures = {part.content_id.lower(): part for part in reading.parts if part.content_id}
    remaining = _PICTURES

    def embedded(found: re.Match[str]) -> str:
        nonlocal remaining
        part = pictures.get(unquote(found[1]).lower())
        if part is None or part.type not in PICTURE_TYPES or len(part.content) > remaining:
            return found[0]
        remaining -= len(part.content)
        return _data_url(part)

    html = _CID.sub(embedded, html)
    start = _PROLOGUE.match(html)
    assert start is not None, "it matches nothing, too"
    return f'{html[: start.end()]}<base target="_blank">{html[start.end() :]}'.encode("utf-8", "replace")


def headers(*, remote: bool) -> Mapping[str, str]:
    """What goes with the document. remote: its pictures may be fetched from wherever they are."""
    return {
        "content-security-policy": _POLICY.format(remote=" https: http:" if remote else ""),
        "x-frame-options": "SAMEORIGIN",
        "content-type": "text/html; charset=utf-8",
    }


def has_remote(html: str) -> bool:
    """There may be something to fetch: a guess, for the switch."""
    return _REMOTE.search(html) is not None


def _data_url(part: Part) -> str:
    return f"data:{part.type};base64,{base64.b64encode(part.content).decode()}"
