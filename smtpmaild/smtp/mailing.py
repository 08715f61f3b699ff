"""One message to several recipients as a client sends it: what the server must offer for it, and its command lines.

Parameters go only to servers that offer their extension (RFC 5321 §2.2.1); what a message cannot do without and the
server does not offer is a refusal of ours, before MAIL is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from smtpmaild.smtp.address import Address, embedded
from smtpmaild.smtp.reply import OwnReply, Reply
from smtpmaild.smtp.timing import deliver_by

_NOTHING: Mapping[str, str] = MappingProxyType({})
#: RFC 3461 §4.2: "The entire ORCPT parameter MAY be up to 500 characters in length."
_LONGEST_ORCPT = 500
# xchar = any ASCII CHAR between "!" (33) and "~" (126) inclusive, except for "+" and "="  (RFC 3461 §4)
_NOT_IN_XTEXT = re.compile(r"[^!-*,-<>-~]")
# QUCHAR = %x21-2A / %x2C-3C / %x3E-5B / %x5D-7E / UTF8-2 / UTF8-3 / UTF8-4  (RFC 6533 §3)
_NOT_QUCHAR = re.compile(r"[\x00-\x20+=\\\x7f]")

#: Parameter of MAIL or RCPT -> the extension that a server must offer to be given it.
MAIL_PARAMETERS: Mapping[str, str] = MappingProxyType({
    "RET": "DSN",  # RFC 3461 §4.3
    "ENVID": "DSN",
    "MT-PRIORITY": "MT-PRIORITY",  # RFC 6710 §4.2
    "REQUIRETLS": "REQUIRETLS",  # RFC 8689 §2
    "BY": "DELIVERBY",  # RFC 2852 §4.1.4
})  # fmt: skip
RCPT_PARAMETERS: Mapping[str, str] = MappingProxyType({"NOTIFY": "DSN", "ORCPT": "DSN"})  # RFC 3461 §4.1, §4.2

NEEDS_EIGHT_BIT = OwnReply(554, "5.6.3", "The next hop does not take 8-bit messages (8BITMIME)")
NEEDS_BINARY = OwnReply(554, "5.6.3", "The next hop does not take binary messages (BINARYMIME)")
# RFC 6531 §3.5: 550 for the reverse-path, 553 for a forward-path.
NEEDS_UTF8 = OwnReply(550, "5.6.7", "The next hop does not take internationalized mail (SMTPUTF8)")
RECIPIENT_NEEDS_UTF8 = OwnReply(553, "5.6.7", "The next hop does not take internationalized addresses (SMTPUTF8)")
# RFC 2852 §4.1.4.1: with by-mode R it "MUST NOT be relayed to a SMTP server which does not support" DELIVERBY, and "is
# deemed to be undeliverable for permanent reasons". X.3.3: "System not capable of selected features" (RFC 3463 §3.4).
NEEDS_DELIVERBY = OwnReply(554, "5.3.3", "The next hop cannot be given a time to deliver by (DELIVERBY)")
# RFC 8689 §4.2.1: 5.7.10 where TLS cannot be established, 5.7.30 where the server does not offer REQUIRETLS.
NEEDS_TLS = OwnReply(550, "5.7.10", "Encryption needed")
NEEDS_REQUIRETLS = OwnReply(550, "5.7.30", "REQUIRETLS support required")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server can do: the extensions of its EHLO reply, upper-case keyword -> the words behind it."""

    keywords: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, reply: Reply) -> Offer:
        """Reads the reply to EHLO or LHLO, whose first line is a greeting (RFC 5321 §4.1.1.1)."""
        lines = [line.upper().split() for line in reply.text.split("\n")[1:]]
        return cls({words[0]: tuple(words[1:]) for words in lines if words})

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def largest_message(self) -> int:
        """Of SIZE in bytes; 0: no limit, or it does not say (RFC 1870 §4)."""
        return _number(self.keywords.get("SIZE", ()), "")

    @property
    def most_recipients(self) -> int:
        """Of LIMITS RCPTMAX (RFC 9422 §4.2), 0 where it does not say."""
        return _number(self.keywords.get("LIMITS", ()), "RCPTMAX=")

    @property
    def least_by(self) -> int:
        """Of DELIVERBY, in seconds, 0 where it does not say: [1*9DIGIT] *("," extension-token) (RFC 2852 §2)."""
        return _number([word.partition(",")[0] for word in self.keywords.get("DELIVERBY", ())[:1]], "")

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """SASL mechanisms in upper case (RFC 4954 §3)."""
        return self.keywords.get("AUTH", ())


def _number(words: Sequence[str], prefix: str) -> int:
    for word in words:
        digits = word.removeprefix(prefix)
        if word.startswith(prefix) and digits.isdecimal() and digits.isascii() and len(digits) <= 20:
            return int(digits)
    return 0


@dataclass(frozen=True, slots=True)
class Forward:
    """A recipient. parameters: of RCPT, keys in upper case."""

    address: Address
    parameters: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class Mailing:
    """What one transaction carries.

    size: of the body in bytes.  body: as BODY= has it.  is_utf8: needs SMTPUTF8 whatever its addresses are.
    parameters: of MAIL, keys in upper case, "" for one without value; those of MAIL_PARAMETERS are passed on. BY says
    what is left of the time; a message that may go to who does not know DELIVERBY, whatever it says, has none.
    """

    reverse_path: Address
    recipients: Sequence[Forward]
    size: int
    body: str = "7BIT"
    is_utf8: bool = False
    parameters: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def refusal(self, offer: Offer) -> OwnReply | None:
        """Why it cannot be sent to such a server; None if it can."""
        if 0 < offer.largest_message < self.size:
            limit = offer.largest_message
            return OwnReply(552, "5.3.4", f"Message of {self.size} bytes exceeds the limit of the next hop, {limit}")
        if self.body == "BINARYMIME" and not ("BINARYMIME" in offer and "CHUNKING" in offer):
            return NEEDS_BINARY
        if self.body == "8BITMIME" and "8BITMIME" not in offer:
            return NEEDS_EIGHT_BIT
        if _path(self.reverse_path, offer) is None or (self.is_utf8 and "SMTPUTF8" not in offer):
            return NEEDS_UTF8
        if "REQUIRETLS" in self.parameters and "REQUIRETLS" not in offer:  # RFC 8689 §4.2.1
            return NEEDS_REQUIRETLS
        return self._too_slow(offer)

    def _too_slow(self, offer: Offer) -> OwnReply | None:
        """Why such a server cannot deliver it in time, where it is to be returned otherwise (RFC 2852 §4.1.4.1)."""
        by = deliver_by(self.parameters)
        if by is None or not by.is_returned:
            return None
        if "DELIVERBY" not in offer:
            return NEEDS_DELIVERBY
        least = max(offer.least_by, 1)  # with R, no less than 1 can be said
        if by.seconds < least:
            return OwnReply(554, "5.4.7", f"The next hop wants {least} seconds to deliver it")
        return None

    def mail_command(self, offer: Offer) -> str:
        """MAIL with what the server understands of its parameters; only where there is no refusal.

        Without AUTH=<>, which RFC 4954 §5 wants of who vouches for no client: servers are about that offer AUTH and
        refuse the parameter (aiosmtpd by 555), and the mail would bounce. Postfix says it only where it is told to.
        """
        words = [f"MAIL FROM:<{_path(self.reverse_path, offer)}>"]
        if "SIZE" in offer:
            words.append(f"SIZE={self.size}")
        if self.body != "7BIT":
            words.append(f"BODY={self.body}")
        if self._says_utf8(offer):
            words.append("SMTPUTF8")
        return " ".join([*words, *_offered(self.parameters, MAIL_PARAMETERS, offer)])

    def _says_utf8(self, offer: Offer) -> bool:
        if "SMTPUTF8" not in offer:
            return False
        addresses = [self.reverse_path, *(recipient.address for recipient in self.recipients)]
        return self.is_utf8 or not all(address.is_ascii for address in addresses)

    def rcpt_command(self, recipient: Forward, offer: Offer) -> str | OwnReply:
        """RCPT, or why it cannot be said to such a server."""
        path = _path(recipient.address, offer)
        if path is None:
            return RECIPIENT_NEEDS_UTF8
        parameters = recipient.parameters
        if self._loses_its_time(offer):
            parameters = {**parameters, "NOTIFY": _with_delay(parameters.get("NOTIFY", ""))}
        if "ORCPT" in parameters and not (parameters["ORCPT"].isascii() or self._says_utf8(offer)):
            # RFC 6533 §3: "in the ORCPT parameter when the SMTP server doesn't advertise support for SMTPUTF8
            # (utf-8-addr-xtext MUST be used instead)".
            parameters = {**parameters, "ORCPT": embedded(parameters["ORCPT"])}
        return " ".join([f"RCPT TO:<{path}>", *_offered(parameters, RCPT_PARAMETERS, offer)])

    def _loses_its_time(self, offer: Offer) -> bool:
        """It has a time to be delivered by that is still to come, and the server would not know."""
        by = deliver_by(self.parameters)
        return by is not None and by.seconds > 0 and "DELIVERBY" not in offer


def original_recipient(address: str) -> str:
    """ORCPT for an address as a client wrote it (RFC 3461 §4.2, RFC 6533 §3); "" where it would be too long."""
    if address.isascii():
        value = "rfc822;" + _NOT_IN_XTEXT.sub(lambda match: f"+{ord(match[0]):02X}", address)
    else:
        value = "utf-8;" + _NOT_QUCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)
    return value if len(embedded(value)) <= _LONGEST_ORCPT else ""


def _with_delay(notify: str) -> str:
    """RFC 2852 §4.1.4.2: where DELIVERBY ends, DELAY is added to NOTIFY, "overrides the MUST NOT" of RFC 3461 §5.2.1
    (c)."""
    if not notify:
        return "FAILURE,DELAY"
    return notify if notify.upper() == "NEVER" or "DELAY" in notify.upper().split(",") else f"{notify},DELAY"


def _path(address: Address, offer: Offer) -> str | None:
    """As it can be written to such a server: a domain has A-labels (RFC 5891), a local part has nothing else."""
    if address.is_ascii or "SMTPUTF8" in offer:
        return address.text
    local_part = address.text.rpartition("@")[0]
    return f"{local_part}@{address.domain}" if local_part.isascii() else None


def _offered(parameters: Mapping[str, str], table: Mapping[str, str], offer: Offer) -> list[str]:
    return [
        f"{keyword}={value}" if value else keyword
        for keyword, value in parameters.items()
        if table.get(keyword) in offer.keywords
    ]
