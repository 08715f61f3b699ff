"""The attributes of Postfix's XFORWARD command: what a trusted peer says of the client before it.

    xforward-command = "XFORWARD" 1*( SP attribute-name "=" attribute-value )
    attribute-value  = xtext, "[UNAVAILABLE]" or "[TEMPUNAVAIL]"

xtext is that of RFC 3461 §4: printable ASCII without "+" and "=", other octets as "+" and two upper-case hex digits.
"""

from __future__ import annotations

import re

from smtpmaild.smtp.reply import Reply

ATTRIBUTES = frozenset(("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"))
_UNKNOWN = frozenset(("[UNAVAILABLE]", "[TEMPUNAVAIL]"))
_XTEXT = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})+")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LONGEST_VALUE = 255


def decode_xtext(text: str) -> str | None:
    """The text that xtext stands for; None if it is none, or hides control characters or bytes that are not UTF-8."""
    if not _XTEXT.fullmatch(text):
        return None
    # All of it is ASCII, so Latin-1 turns each "+XX" into its one octet.
    octets = _HEX.sub(lambda match: chr(int(match[1], 16)), text).encode("latin-1")
    try:
        decoded = octets.decode()
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(decoded) else decoded


def parse_xforward(argument: str) -> dict[str, str | None] | Reply:
    """Lower-case attribute name -> value, None where the sender does not know it; or the reply to a mistake."""
    attributes: dict[str, str | None] = {}
    if not argument.isascii():
        return Reply(501, "5.5.4", "XFORWARD attributes must be xtext, which is ASCII")
    for word in argument.split():
        name, _, value = word.partition("=")
        if name.upper() not in ATTRIBUTES:
            return Reply(501, "5.5.4", f"Bad XFORWARD attribute name: {name}")
        decoded = None if value.upper() in _UNKNOWN else decode_xtext(value)
        if len(value) > _LONGEST_VALUE or (decoded is None and value.upper() not in _UNKNOWN):
            return Reply(501, "5.5.4", f"Bad XFORWARD attribute value: {value}")
        attributes[name.lower()] = decoded
    return attributes or Reply(501, "5.5.4", "Syntax: XFORWARD attribute=value...")
