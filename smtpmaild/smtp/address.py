"""Paths and mailboxes: the grammar of RFC 5321 §4.1.2, widened to UTF-8 by RFC 6531 §3.3.

Each regular expression stands under the ABNF it spells. Parsers return None for text that is not of the grammar and
never raise: what a peer sent wrong is a reply, chosen by the caller. Where we take more than the grammar, the reason
is beside it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field

#: Turns a domain name with U-labels into lower-case A-labels (IDNA2008, RFC 5891); raises ValueError if it cannot.
ToAscii = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox as it stands in a reverse-path or forward-path.

    local_part: without quotes and backslashes, case kept.  domain: lower case, A-labels; "[192.0.2.1]" or
    "[IPv6:2001:db8::1]" for an address literal; "" for the null sender and for <postmaster>.  text: as the peer
    wrote it, without angle brackets and source route; holds no control characters; two addresses that differ only
    here are equal.
    """

    local_part: str
    domain: str
    text: str = field(compare=False)

    @property
    def is_null(self) -> bool:
        """True for `<>`, the reverse-path of bounces (RFC 5321 §4.5.5)."""
        return not self.text

    @property
    def is_ascii(self) -> bool:
        """False when sending it on needs SMTPUTF8."""
        return self.text.isascii()

    def __str__(self) -> str:
        return self.text


NULL_REVERSE_PATH = Address("", "", "")

# atext (RFC 5322 §3.2.3), plus UTF8-non-ascii (RFC 6531 §3.3). C1 controls, U+0080-U+009F, are valid UTF-8 but
# move the cursor of a terminal that shows a log: we leave them out.
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u00a0-\U0010ffff]"
# Dot-string = Atom *("."  Atom)
_DOT_STRING = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
# Quoted-string = DQUOTE *QcontentSMTP DQUOTE;  qtextSMTP = %d32-33 / %d35-91 / %d93-126 (and UTF8-non-ascii)
# quoted-pairSMTP = %d92 %d32-126
_QUOTED_STRING = r'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e\u00a0-\U0010ffff]|\\[\x20-\x7e])*"'
# sub-domain = Let-dig [Ldh-str] (or a U-label). We also take "_", which host names in the field do contain.
_SUB_DOMAIN = r"[A-Za-z0-9_\u00a0-\U0010ffff](?:[A-Za-z0-9_\-\u00a0-\U0010ffff]{0,61}[A-Za-z0-9_\u00a0-\U0010ffff])?"
# Domain = sub-domain *("." sub-domain)
_DOMAIN = rf"{_SUB_DOMAIN}(?:\.{_SUB_DOMAIN})*"
# address-literal = "[" ( IPv4-address-literal / IPv6-address-literal / General-address-literal ) "]"
# dcontent = %d33-90 / %d94-126
_LITERAL = r"\[[\x21-\x5a\x5e-\x7e]+\]"

# Path = "<" [ A-d-l ":" ] Mailbox ">".  The source route "MUST BE accepted, SHOULD NOT be generated, and SHOULD be
# ignored" (§4.1.2). Mailbox = Local-part "@" ( Domain / address-literal ).
_PATH = re.compile(
    rf"<(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
    rf"(?P<mailbox>(?:(?P<dot>{_DOT_STRING})|(?P<quoted>{_QUOTED_STRING}))@(?:(?P<domain>{_DOMAIN})|(?P<literal>{_LITERAL})))>"
)
_DOMAIN_ONLY = re.compile(_DOMAIN)
_QUOTED_PAIR = re.compile(r"\\(.)")
_DOT_STRING_ONLY = re.compile(_DOT_STRING)
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_TO_BE_QUOTED = re.compile(r'["\\]')
# "<Postmaster>" is the one forward-path without a domain, case-insensitive (RFC 5321 §4.1.1.3, §4.5.1).
_POSTMASTER = re.compile(r"<(postmaster)>", re.IGNORECASE | re.ASCII)


def no_idna(domain: str) -> str:
    """The ToAscii of an engine that was given no IDNA: refuses every domain that needs it."""
    raise ValueError(f"no IDNA here: {domain!a}")


def parse_reverse_path(text: str, to_ascii: ToAscii = no_idna) -> tuple[Address, str] | None:
    """Split what follows `MAIL FROM:` into the reverse-path and the text behind it (parameters, with blanks)."""
    if text.startswith("<>"):
        return NULL_REVERSE_PATH, text[2:]
    return _parse_path(text, to_ascii)


def parse_forward_path(text: str, to_ascii: ToAscii = no_idna) -> tuple[Address, str] | None:
    """Split what follows `RCPT TO:` into the forward-path and the text behind it (parameters, with blanks)."""
    if match := _POSTMASTER.match(text):
        return Address("postmaster", "", match[1]), text[match.end() :]
    return _parse_path(text, to_ascii)


def parse_mailbox(text: str, to_ascii: ToAscii = no_idna) -> Address | None:
    """A mailbox without angle brackets, whole: 'user@example.com'."""
    found = _parse_path(f"<{text}>", to_ascii)
    # What is not all of the text stood behind a source route, or before a second path.
    return found[0] if found and found[0].text == text else None


def mailbox(local_part: str, domain: str) -> Address:
    """The address of a mailbox; its local part is quoted where it needs to be."""
    if not _DOT_STRING_ONLY.fullmatch(local_part):
        local_part_as_sent = '"' + _TO_BE_QUOTED.sub(r"\\\g<0>", local_part) + '"'
        return Address(local_part, domain, f"{local_part_as_sent}@{domain}")
    return Address(local_part, domain, f"{local_part}@{domain}")


def _parse_path(text: str, to_ascii: ToAscii) -> tuple[Address, str] | None:
    match = _PATH.match(text)
    if match is None:
        return None
    mailbox, dot_string, quoted, domain, literal = match.group("mailbox", "dot", "quoted", "domain", "literal")
    normal = normal_domain(domain, to_ascii) if domain else normal_literal(literal)
    if normal is None:
        return None
    local_part = dot_string or _QUOTED_PAIR.sub(r"\1", quoted[1:-1])
    return Address(local_part, normal, mailbox), text[match.end() :]


def is_domain(text: str) -> bool:
    """True for a host name of the grammar (with U-labels), at most 255 octets (RFC 5321 §4.5.3.1.2)."""
    return len(text) <= 255 and _DOMAIN_ONLY.fullmatch(text) is not None


def normal_domain(domain: str, to_ascii: ToAscii = no_idna) -> str | None:
    """Lower case and A-labels, the form in which domains are compared; None if it is no domain."""
    if domain.isascii():
        return domain.lower() if len(domain) <= 255 else None
    try:
        return to_ascii(domain).lower()
    except ValueError:
        return None


def normal_literal(literal: str) -> str | None:
    """An address literal with its brackets, in one spelling for one address; None if it is none.

    IPv4-address-literal = Snum 3("."  Snum);  IPv6-address-literal = "IPv6:" IPv6-addr;
    General-address-literal = Standardized-tag ":" 1*dcontent: IPv6 is the only registered tag, others are refused.
    """
    inside = literal[1:-1]
    try:
        if inside[:5].lower() == "ipv6:" and "%" not in inside:  # Python would take a zone: "fe80::1%eth0"
            return f"[IPv6:{ipaddress.IPv6Address(inside[5:])}]"
        return f"[{ipaddress.IPv4Address(inside)}]"
    except ValueError:
        return None


def embedded(text: str) -> str:
    """In ASCII: the characters beyond it as EmbeddedUnicodeChar = %x5C.78 "{" HEXPOINT "}" (RFC 6533 §3)."""
    return _BEYOND_ASCII.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)
