"""The header fields we put in front of a message, as bytes with CRLF: Received, Return-Path, Delivered-To and, where
they are missing and wanted, Date and Message-ID.

Pure functions; `received` runs once per message. Whatever a peer sent (its HELO argument above all) is made harmless
here: no text can end a field, open a comment or leave the line. UTF-8 stands only in messages that came with SMTPUTF8
(RFC 6532), elsewhere it becomes "?".
"""

from __future__ import annotations

import re
import time
from functools import lru_cache

from smtpmaild.envelope import Envelope, Tls
from smtpmaild.smtp.address import Address

# Names are spelled here because strftime's %a and %b follow the locale.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What a HELO argument must be to stand in the field as it is: Domain or address-literal (RFC 5321 §4.1.2), in ASCII.
_HELLO = re.compile(r"(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[A-Za-z0-9:.-]+\])", re.ASCII)
# Everything else is rewritten as a dot-atom (RFC 5322 §3.2.3) of letters and digits, those of U-labels among them.
_NOT_IN_ATOM = re.compile(r"[^\w.-]")
_LONGEST_HELLO = 255
# RFC 5321 §4.5.3.1: local part 64, "@", domain 255. A longer address would make a line no reader has to take.
_LONGEST_ADDRESS = 64 + 1 + 255
_FOLD = "\r\n\t"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def received(envelope: Envelope, *, hides_client: bool = False) -> bytes:
    """The Received field (RFC 5321 §4.4), a few lines and the newest on top: it is written first into every store.

    hides_client: for people who hand in their mail from home; nobody else learns where that is.
    """
    recipients = envelope.recipients
    text = (
        f"Received: {'' if hides_client else _from(envelope)}"
        f"by {envelope.hostname} with {envelope.protocol} id {envelope.queue_id}"
        f"{'' if envelope.tls is None else _encryption(envelope.tls)}"
        # §7.2: a `for` clause with more than one recipient would show blind copies to everyone.
        f"{_for(recipients[0].address) if len(recipients) == 1 else ''}"
        # RFC 6710 §4.1, §7: a registered clause, behind `for`; its value has passed the EHLO table.
        f"{envelope.priority and f'{_FOLD}priority {envelope.priority}'};\r\n"
        f"\t{date_text(envelope.received_at)}\r\n"
    )
    return text.encode("utf-8" if envelope.is_utf8 else "ascii", "replace")


def _from(envelope: Envelope) -> str:
    peer = _client(envelope.client_name, envelope.peer.host)
    hello = envelope.hello
    if len(hello) > _LONGEST_HELLO or not _HELLO.fullmatch(hello):
        hello = _harmless(hello)
    return f"from {hello}{peer}\r\n\t"


def _encryption(tls: Tls) -> str:
    # A comment, as everybody writes it: RFC 8314 has a clause for the cipher alone.
    version = tls.version.replace("TLSv", "TLS")
    return f"\r\n\t(version={version} cipher={tls.cipher} bits={tls.bits})"


def return_path(envelope: Envelope) -> bytes:
    """The Return-Path field (RFC 5321 §4.4): final delivery keeps the reverse-path there; `<>` for bounces."""
    text = f"Return-Path: <{_CONTROL.sub('?', envelope.reverse_path.text)}>\r\n"
    return text.encode("utf-8" if envelope.is_utf8 else "ascii", "replace")


def delivered_to(text: str) -> bytes:
    """The Delivered-To field: the forward-path that led into this mailbox."""
    return f"Delivered-To: {_CONTROL.sub('?', text)}\r\n".encode("utf-8", "replace")


def date(envelope: Envelope) -> bytes:
    """A Date field (RFC 5322 §3.6.1) for a message that came without: when it came."""
    return f"Date: {date_text(envelope.received_at)}\r\n".encode("ascii")


def date_text(seconds: float) -> str:
    """Seconds since the epoch as a header field has them (RFC 5322 §3.3), in UTC."""
    return _date_text(int(seconds))


def message_id(envelope: Envelope) -> bytes:
    """A Message-ID field (RFC 5322 §3.6.4) for a message that came without: its queue id is nobody else's."""
    return f"Message-ID: <{envelope.queue_id}@{envelope.hostname}>\r\n".encode("ascii", "replace")


def _client(name: str, host: str) -> str:
    # TCP-info = address-literal / ( Domain FWS address-literal ); nothing to say of a Unix socket.
    if not host:
        return ""
    literal = f"[IPv6:{host}]" if ":" in host else f"[{host}]"
    return f" ({name} {literal})" if name and _HELLO.fullmatch(name) else f" ({literal})"


def _for(address: Address) -> str:
    # For = "FOR" FWS ( Path / Mailbox ): a <postmaster> without domain is neither.
    if not address.domain or len(address.text) > _LONGEST_ADDRESS:
        return ""
    return f"\r\n\tfor <{_CONTROL.sub('?', address.text)}>"


def _harmless(hello: str) -> str:
    words = _NOT_IN_ATOM.sub("?", hello[:_LONGEST_HELLO]).split(".")
    return ".".join(word for word in words if word) or "unknown"


@lru_cache(maxsize=64)
def _date_text(second: int) -> str:
    # Cached because thousands of messages share a second.
    at = time.gmtime(second)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday} {_MONTHS[at.tm_mon]} {at.tm_year} "
        f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} +0000"
    )
