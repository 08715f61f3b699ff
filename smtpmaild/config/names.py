"""Names in the file, in the one spelling in which they are compared later.

Domains become lower-case A-labels (IDNA2008), local parts are folded and NFC, networks are objects of `ipaddress`.
Each function takes what stands in the file and raises ValueError with words for people.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

from smtpmaild.idn import to_ascii
from smtpmaild.routing import NULL_SENDER, fold
from smtpmaild.smtp.address import is_domain, normal_domain, normal_literal, parse_mailbox

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def host_name(text: str) -> str:
    """A domain name without wildcard."""
    if not is_domain(text):
        raise ValueError(f"'{text}' is not a host name{_domain_hint(text)}")
    name = normal_domain(text, to_ascii)
    if name is None:
        raise ValueError(f"'{text}' is not a host name: it has no valid IDNA2008 form")
    return name


def _domain_hint(text: str) -> str:
    stripped = text.strip().rstrip(".").rpartition("@")[2]
    return f"; did you mean '{stripped}'?" if stripped != text and is_domain(stripped) else ""


def domain_pattern(text: str) -> str:
    """A domain name, `*.` and one for all its sub-domains at any depth, or an address literal in brackets."""
    if text.startswith("["):
        return _address_literal(text)
    return "*." + host_name(text[2:]) if text.startswith("*.") else host_name(text)


def _address_literal(text: str) -> str:
    literal = normal_literal(text) if text.endswith("]") else None
    if literal is None:
        raise ValueError(f"'{text}' is not an address literal: write it as [192.0.2.1] or [IPv6:2001:db8::1]")
    return literal


def mailbox_name(text: str) -> str:
    """A local part without its domain."""
    if "@" in text and not text.startswith('"'):
        raise ValueError(f"'{text}' is an address; here stands only what is before the @")
    parsed = parse_mailbox(f"{text}@localhost")
    if parsed is None:
        raise ValueError(f"'{text}' is not a mailbox name")
    return fold(parsed.local_part)


def mail_address(text: str) -> str:
    """A whole address: folded local part without quotes, "@", domain."""
    parsed = parse_mailbox(text, to_ascii)
    if parsed is None:
        raise ValueError(f"'{text}' is not a mail address")
    return f"{fold(parsed.local_part)}@{parsed.domain}"


def sender_address(text: str) -> str:
    """A whole address, or `<>`, the null sender of bounces."""
    return text if text == NULL_SENDER else mail_address(text)


def alias_target(text: str) -> str:
    """A mailbox or alias of the same domain, or a whole address in a local domain."""
    return mail_address(text) if "@" in text else mailbox_name(text)


def network(value: object) -> IpNetwork:
    """`192.0.2.0/24`, `2001:db8::/32`, or one address."""
    if not isinstance(value, str):
        raise ValueError("a network is written as 192.0.2.0/24 or 2001:db8::/32")
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(f"'{value}' is not a network{_network_hint(value)}") from None


def _network_hint(text: str) -> str:
    try:
        return f": bits are set behind the prefix; did you mean '{ipaddress.ip_network(text, strict=False)}'?"
    except ValueError:
        return ": write it as 192.0.2.0/24 or 2001:db8::/32"


def client_name(text: str) -> str:
    """A host name, or `*.` and one for all names below it."""
    if text.startswith("["):
        raise ValueError(f"'{text}' is an address: here stand names, addresses under from_networks")
    return domain_pattern(text)


def user_name(text: str) -> str:
    """Who signs in; neither case nor the encoding of an accent makes a difference."""
    if not text or not text.isprintable():
        raise ValueError("the name of a user is not empty and has no control characters")
    return fold(text)


# SHA-256, as `openssl x509 -fingerprint` prints it or without the colons.
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){31}")
# RFC 4514 §3: attribute types with their values; blanks behind a comma that separates them are for the eye.
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*=.+")
_BLANKS_BETWEEN = re.compile(r"(?<!\\),\s+")


def certificate_name(text: str) -> str:
    """A certificate by its SHA-256 fingerprint, which loses its colons, or by its subject; in lower case."""
    if _FINGERPRINT.fullmatch(text):
        return text.replace(":", "").lower()
    if _SUBJECT.fullmatch(text):
        return _BLANKS_BETWEEN.sub(",", text).casefold()
    raise ValueError(
        f"'{text}' is neither a SHA-256 fingerprint, 64 hexadecimal digits, nor a subject as in CN=printer,O=Example"
    )


_NETWORK_SCHEMA = {"type": "string", "examples": ["192.0.2.0/24", "2001:db8::/32", "127.0.0.1"]}

HostName = Annotated[str, AfterValidator(host_name)]
DomainPattern = Annotated[str, AfterValidator(domain_pattern)]
MailboxName = Annotated[str, AfterValidator(mailbox_name)]
MailAddress = Annotated[str, AfterValidator(mail_address)]
SenderAddress = Annotated[str, AfterValidator(sender_address)]
AliasTarget = Annotated[str, AfterValidator(alias_target)]
UserName = Annotated[str, AfterValidator(user_name)]
ClientName = Annotated[str, AfterValidator(client_name)]
CertificateName = Annotated[str, AfterValidator(certificate_name)]
Network = Annotated[IpNetwork, PlainValidator(network), WithJsonSchema(_NETWORK_SCHEMA)]
