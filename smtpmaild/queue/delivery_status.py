"""The part of a report that programs read: message/delivery-status (RFC 3464), or its global form (RFC 6533).

Pure functions to bytes with CRLF. Everything a peer sent (envelope ids, addresses, replies) is within one field here
and can neither end it nor open another; no line is longer than SMTP lets it be. Addresses beyond ASCII stand as they
are in the global form, and as utf-8-addr-xtext in the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smtpmaild import trace
from smtpmaild.queue import QueuedMessage
from smtpmaild.queue.reports import Action, Told
from smtpmaild.smtp import timing
from smtpmaild.smtp.address import embedded
from smtpmaild.smtp.reply import Reply

# xtext = *( xchar / hexchar );  hexchar = "+" 2(%x30-39 / %x41-46)  (RFC 3461 §4); lower case is forgiven
_HEXCHAR = re.compile(r"\+([0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# EmbeddedUnicodeChar = %x5C.78 "{" HEXPOINT "}"  (RFC 6533 §3); xtext besides has no blank, "+" and "=".
_EMBEDDED = re.compile(r"\\x\{((?:10)?[0-9A-F]{4}|[0-9A-F]{5}|[0-9A-F]{2,3})\}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NOT_IN_ADDR_XTEXT = re.compile(r"[^!-*,-<>-\[\]-~]")


@dataclass(frozen=True, slots=True)
class Status:
    """What the part tells. retry_until: seconds since the epoch, for who is told of a delay.  is_global: in UTF-8."""

    hostname: str
    message: QueuedMessage
    told: Sequence[Told]
    retry_until: float
    is_global: bool = False

    def __bytes__(self) -> bytes:
        groups = [self._of_message(), *(self._of_recipient(one) for one in self.told)]
        text = "\r\n".join("".join(f"{line}\r\n" for line in group) for group in groups)
        return text.encode("utf-8" if self.is_global else "ascii", "replace")

    def _of_message(self) -> Iterator[str]:
        """RFC 3464 §2.2."""
        message = self.message
        # RFC 3461 §6.3 (b): a name that is not fully qualified is of another type.
        yield f"Reporting-MTA: {'dns' if '.' in self.hostname else 'x-local-hostname'}; {self.hostname}"
        if envelope_id := message.parameters.get("ENVID", ""):
            yield f"Original-Envelope-Id: {_one_line(decode_xtext(envelope_id))}"
        yield f"Arrival-Date: {trace.date_text(message.received_at)}"
        if by := timing.deliver_by(message.parameters):  # RFC 2852 §5; it may have passed before the message came (§4)
            yield f"Deliver-By-Date: {trace.date_text(message.received_at + by.seconds)}"
        for word, kind in (("HOLDFOR", "for"), ("HOLDUNTIL", "until")):  # RFC 4865 §5.1.2
            if word in message.parameters:
                yield f"Future-Release-Request: {kind};{_one_line(message.parameters[word])}"
        yield f"X-Smtpmaild-Queue-ID: {message.queue_id}"

    def _of_recipient(self, told: Told) -> Iterator[str]:
        """RFC 3464 §2.3."""
        recipient = told.recipient
        if original := recipient.parameters.get("ORCPT", ""):
            kind, _, text = original.partition(";")
            shown = self._original(decode_xtext(text)) if kind.lower() == "utf-8" else decode_xtext(text)
            yield f"Original-Recipient: {kind}; {_one_line(shown)}"
        # RFC 3464 §2.3.2: "as it was when the Reporting MTA accepted the message for delivery", not where an alias led.
        yield f"Final-Recipient: {self._typed(recipient.accepted_as or recipient.address.text)}"
        yield f"Action: {told.action.value}"
        yield f"Status: {told.status or status_code(recipient.last, told.action)}"
        if recipient.remote:
            yield f"Remote-MTA: {_remote(recipient.remote)}"
        if recipient.last is not None:
            # RFC 3464 §2.3.6: the words of a transport; what we say ourselves is of no transport.
            kind = "smtp" if recipient.remote else "x-smtpmaild"
            yield f"Diagnostic-Code: {kind}; " + "\r\n ".join(reply_lines(recipient.last))
        if recipient.attempted_at:
            yield f"Last-Attempt-Date: {trace.date_text(recipient.attempted_at)}"
        if told.action is Action.DELAYED:
            yield f"Will-Retry-Until: {trace.date_text(self.retry_until)}"

    def _original(self, text: str) -> str:
        """RFC 6533 §3: utf-8-addr-xtext in ASCII; else "SHOULD be converted to the utf-8-address form", and where it is
        none copied "without alteration"."""
        if not self.is_global:
            return embedded(text)
        plain = _EMBEDDED.sub(lambda match: chr(int(match[1], 16)), text)
        return text if _CONTROL.search(plain) or _SURROGATE.search(plain) else plain

    def _typed(self, address: str) -> str:
        if address.isascii():
            return f"rfc822; {address or 'postmaster'}"
        return f"utf-8; {address if self.is_global else addr_xtext(address)}"


def status_code(reply: Reply | None, action: Action) -> str:
    """The enhanced status code of a reply; where it has none, what its class alone tells."""
    if reply is None:
        return "2.0.0" if action in (Action.DELIVERED, Action.RELAYED, Action.EXPANDED) else "4.0.0"
    return reply.enhanced or f"{reply.code // 100}.0.0"


def reply_lines(reply: Reply) -> list[str]:
    """A reply as it came over the wire, line by line."""
    return reply.wire.decode("ascii").splitlines()


def decode_xtext(text: str) -> str:
    """What xtext stands for; octets beyond ASCII as UTF-8 (RFC 6533 §3)."""
    octets = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text)
    try:
        return octets.encode("latin-1").decode()
    except UnicodeError:  # not of hexchars alone: the characters stand as they are
        return octets


def addr_xtext(text: str) -> str:
    """An address beyond ASCII in ASCII: utf-8-addr-xtext (RFC 6533 §3)."""
    return _NOT_IN_ADDR_XTEXT.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)


def _remote(remote: str) -> str:
    """mta-name-type and name (RFC 3464 §2.3.5) of "name [address]:port", "[address]:port" or the path of a socket."""
    if remote.startswith("/"):
        return f"x-unix; {_one_line(remote)}"
    name = remote.split()[0]
    return f"dns; {_one_line(name[: name.index(']') + 1] if name.startswith('[') and ']' in name else name)}"


def _one_line(text: str) -> str:
    return _CONTROL.sub("?", text)
