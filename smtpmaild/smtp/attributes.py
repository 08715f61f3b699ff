"""The attributes of Postfix's XFORWARD and XCLIENT commands: what a trusted peer says of the client before it.

    command          = ( "XFORWARD" / "XCLIENT" ) 1*( SP attribute-name "=" attribute-value )
    attribute-value  = xtext, "[UNAVAILABLE]" or "[TEMPUNAVAIL]"

xtext is that of RFC 3461 §4: printable ASCII without "+" and "=", other octets as "+" and two upper-case hex digits.
What XFORWARD says is only logged, so any text will do; what XCLIENT says is believed, so it must be what it is called.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

from smtpmaild.smtp.reply import Reply

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
    return _parse("XFORWARD", argument, _XFORWARD)


def parse_xclient(argument: str) -> dict[str, str | None] | Reply:
    """As parse_xforward. Addresses are in their shortest form, without IPV6: in front."""
    return _parse("XCLIENT", argument, _XCLIENT)


#: What a value means, None if it is not what the attribute says.
_Reader = Callable[[str], str | None]


def _parse(verb: str, argument: str, readers: Mapping[str, _Reader]) -> dict[str, str | None] | Reply:
    attributes: dict[str, str | None] = {}
    if not argument.isascii():
        return Reply(501, "5.5.4", f"{verb} attributes must be xtext, which is ASCII")
    for word in argument.split():
        name, _, value = word.partition("=")
        reader = readers.get(name.upper())
        if reader is None:
            return Reply(501, "5.5.4", f"Bad {verb} attribute name: {name}")
        is_known = value.upper() not in _UNKNOWN
        found = _read(value, reader) if is_known else None
        if is_known and found is None:
            return Reply(501, "5.5.4", f"Bad {verb} attribute value: {value}")
        attributes[name.lower()] = found
    return attributes or Reply(501, "5.5.4", f"Syntax: {verb} attribute=value...")


def _read(value: str, reader: _Reader) -> str | None:
    decoded = decode_xtext(value) if len(value) <= _LONGEST_VALUE else None
    return None if decoded is None else reader(decoded)


def _host_name(text: str) -> str | None:
    return text if _HOST_NAME.fullmatch(text) else None


def _address(text: str) -> str | None:
    """An IPv4 address, or an IPv6 address with or without IPV6: in front."""
    try:
        address = ipaddress.ip_address(text[5:] if text[:5].upper() == "IPV6:" else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return None if "%" in text else str(mapped or address)


def _port(text: str) -> str | None:
    return text if _PORT.fullmatch(text) and int(text) <= 65535 else None


def _protocol(text: str) -> str | None:
    return text.upper() if text.upper() in ("SMTP", "ESMTP") else None


# Domain of RFC 5321 §4.1.2, and the underscore of names that are in use.
_HOST_NAME = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)

_XFORWARD: Mapping[str, _Reader] = dict.fromkeys(("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"), str)
_XCLIENT: Mapping[str, _Reader] = {
    "NAME": _host_name,
    "ADDR": _address,
    "PORT": _port,
    "PROTO": _protocol,
    "HELO": str,
    "LOGIN": str,
    "DESTADDR": _address,
    "DESTPORT": _port,
}
