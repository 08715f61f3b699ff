"""What the daemon knows about a session and its mail transaction: plain values, no behaviour.

`Session` is one connection; `Transaction` is one MAIL ... end of data within it. The receiver is the only writer;
policies, routing and stores read. The names are those of RFC 5321 and RFC 5598.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from types import MappingProxyType

from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address
from smtpmaild.smtp.reply import Reply

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
NOTHING_FORWARDED: Mapping[str, str | None] = MappingProxyType({})


# Reading an address takes 2.5 us, and the clients of a day are few.
_ip_address = lru_cache(4096)(ipaddress.ip_address)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of the connection.

    host: "192.0.2.1" or "2001:db8::1" without zone, IPv4 even where it came in as ::ffff:192.0.2.1; "" for a Unix
    socket or standard input.  port: 0 where there is none.
    """

    host: str
    port: int = 0

    @property
    def ip(self) -> IpAddress | None:
        """The host as an address to compare with networks; None where there is no network between us."""
        return _ip_address(self.host) if self.host else None

    def __str__(self) -> str:
        if not self.host:
            return "local"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class BodyType(Enum):
    """BODY= of MAIL (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"
    BINARY_MIME = "BINARYMIME"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate that the client showed and that our CA signed.

    subject: its distinguished name as RFC 4514 writes it ("CN=printer,O=Example").  fingerprint: SHA-256 of the whole
    certificate, lower-case hex without colons.
    """

    subject: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Tls:
    """A connection's encryption, once it stands.

    version: "TLSv1.3".  cipher: OpenSSL's name of the suite.  bits: of its key.  server_name: the name that the client
    asked for (SNI), "" if none.  client: its verified certificate.
    """

    version: str
    cipher: str
    bits: int = 0
    server_name: str = ""
    client: ClientCertificate | None = None


@dataclass(slots=True)
class Session:
    """One connection as policies see it.

    session_id: unique, in every log line of the session.  listener: its name in the config.  hostname: how we call
    ourselves.  hello: the argument of HELO, EHLO or LHLO, "" before it.  is_extended: the greeting was not HELO.
    talked_early: input came before the banner was sent.  decided_by: the policy or rule that gave the last verdict,
    for the log.  tls: None in clear text.  user: who signed in, "" for nobody.  proxy: who is at the other end of the
    connection where `peer` is the client behind it.  client_name: the peer's name in the DNS, checked both ways, ""
    where it has none or nobody asked.  proxy_facts: what the proxy said besides, for the log.  forwarded: what
    XFORWARD told of the client before this one, for one transaction.  is_probe: it is the
    proxy itself, checking whether we are there.
    """

    session_id: str
    listener: str
    hostname: str
    peer: Peer
    hello: str = ""
    is_extended: bool = False
    talked_early: bool = False
    messages: int = 0
    refused_recipients: int = 0
    decided_by: str = ""
    tls: Tls | None = None
    user: str = ""
    proxy: Peer | None = None
    client_name: str = ""
    proxy_facts: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)
    forwarded: Mapping[str, str | None] = field(default_factory=lambda: NOTHING_FORWARDED)
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """Where one copy of a message goes: a store and, inside it, whose mailbox.

    sink: a name under deliver_to.  domain: the local domain as the config names it (for a wildcard sub-domain the
    domain the peer named), lower case, A-labels.  mailbox: the local part as the config names it; where the domain
    takes any local part, as the peer wrote it, in lower case. Not yet safe as a file name: the sink makes it so.
    subaddress: what followed the separator, "" if nothing did.  recipient: the forward-path that led here.  route: what
    takes it on from the queue, such as "relay:smarthost"; then domain and mailbox are the address to send to, and may
    be foreign. "" where the store is the end.
    """

    sink: str
    domain: str
    mailbox: str
    subaddress: str
    recipient: Address
    route: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """The line of the config that decided: its name, and where it stands ("smtp.yaml:14"; "" for a built-in rule)."""

    name: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """What routing says of a forward-path: a reply, the rule that gave it and, if it is positive, the destinations."""

    rule: Rule
    reply: Reply
    destinations: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipient:
    """An accepted forward-path with the parameters RCPT brought (keys in upper case)."""

    address: Address
    route: Route
    parameters: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)


@dataclass(slots=True)
class Envelope:
    """Everything about a message that is not in it (RFC 5321 §2.3.1), as stores get it.

    queue_id: its name for the rest of its life.  protocol: for `with` in Received (RFC 3848): SMTP, ESMTPSA, ...
    declared_size: SIZE= of MAIL in bytes, 0 if not given.  received_at: seconds since the epoch, when MAIL came.
    values: what extensions made of their parameters.  is_lmtp: each recipient gets a reply of its own, so a store says
    for each destination what came of it.  tls, user, proxy, client_name: as in Session.  release_at: its sender has it
    held back until then, in seconds since the epoch; 0.0 for most.  priority: as MAIL has it (MT-PRIORITY), "" for
    most; what it was lowered to is among the parameters.
    """

    queue_id: str
    session_id: str
    listener: str
    hostname: str
    peer: Peer
    hello: str
    protocol: str
    received_at: float
    reverse_path: Address = NULL_REVERSE_PATH
    body: BodyType = BodyType.SEVEN_BIT
    is_utf8: bool = False
    declared_size: int = 0
    parameters: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)
    recipients: list[Recipient] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)
    is_lmtp: bool = False
    tls: Tls | None = None
    user: str = ""
    proxy: Peer | None = None
    client_name: str = ""
    release_at: float = 0.0
    priority: str = ""


@dataclass(slots=True)
class Transaction:
    """One mail transaction: the session it belongs to and the envelope as far as it is known.

    parameters: of the MAIL or RCPT command that is being decided (keys in upper case).
    """

    session: Session
    envelope: Envelope
    parameters: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)
