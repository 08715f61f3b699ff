"""The section `listeners`: where clients connect, what each door is for, and what it is lenient about."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator

from smtpmaild.config.limits import DoorLimits, DoorTimeouts
from smtpmaild.config.names import Network
from smtpmaild.config.policies import Policies
from smtpmaild.config.roles import Role, with_role
from smtpmaild.config.section import AtLeastOne, Section, Whole
from smtpmaild.config.sockets import Listen
from smtpmaild.config.tls import TlsMode
from smtpmaild.config.units import Duration
from smtpmaild.tls.settings import ClientCertificates

ExtensionKeyword = Literal[
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "CHUNKING",
    "BINARYMIME",
    "HELP",
    "LIMITS",
    "DSN",
    "DELIVERBY",
    "FUTURERELEASE",
    "MT-PRIORITY",
    "REQUIRETLS",
]

MechanismName = Literal["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]

_MODE = re.compile(r"0?[0-7]{3}")


def _upper_case(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _listener_name(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("a name must be printable and not empty")
    return text


def _banner_text(text: str) -> str:
    # RFC 5321 §4.2: textstring. Host name, codes and CRLF take the rest of the 512 octets of a reply line.
    if not (text.isascii() and text.isprintable()) or len(text) > 200:
        raise ValueError("the banner is one line of at most 200 printable ASCII characters")
    return text


def parse_mode(value: object) -> int:
    """File permission bits, written in octal as chmod takes them: 0660."""
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise ValueError("a mode is written in octal with a leading zero, as in 0660")
    return int(value, 8)


Mode = Annotated[
    int,
    BeforeValidator(parse_mode),
    WithJsonSchema({"type": ["string", "integer"], "pattern": f"^{_MODE.pattern}$", "examples": ["0660"]}),
]


class Listener(Section):
    """One door: its sockets and what it offers."""

    name: Annotated[str, AfterValidator(_listener_name)] = Field(
        description="How logs, rules and `try` call it; unique.", examples=["mx"]
    )
    listen: AtLeastOne[Listen] = Field(
        description="Where to listen: host:port, [::]:port, /path.sock for a Unix socket, or systemd:NAME for a socket "
        "that systemd opened. IPv4 and IPv6 are separate.",
        examples=[["0.0.0.0:25", "[::]:25"]],
    )
    role: Role = Field(
        "mx",
        description="What it is for, which brings defaults for the other keys: mx takes mail from other servers, "
        "submission from people's mail programs, lmtp from another server of ours, internal from devices and scripts "
        "on a private network.",
    )
    protocol: Literal["smtp", "lmtp"] = Field(
        "smtp",
        description="The protocol spoken. LMTP (RFC 2033) answers for each recipient of a message by itself, and is "
        "for a server that queues: not for port 25.",
    )
    tls: TlsMode = Field(
        "none",
        description="optional: STARTTLS is offered; required: and no mail is taken before it; implicit: TLS comes "
        "first, as on port 465.",
    )
    client_certificates: ClientCertificates | None = Field(
        None, description="As in the section tls, for this listener alone."
    )
    banner: Annotated[str, AfterValidator(_banner_text)] = Field(
        "ESMTP Service ready",
        description="What follows the host name in the greeting; left out for LMTP: LMTP Service ready.",
    )
    auth: Literal["none", "optional", "required"] = Field(
        "none",
        description="Whether clients can sign in, or must before they send mail. The accounts are in the section "
        "`accounts`. Offered within TLS only, unless auth_without_tls says otherwise.",
    )
    mechanisms: AtLeastOne[Annotated[MechanismName, BeforeValidator(_upper_case)]] = Field(
        ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"),
        description="How clients can sign in, as far as the accounts can serve it: SCRAM needs keys for every account "
        "(`smtpmaild user add --scram`), SCRAM-SHA-256-PLUS also a TLS connection to bind to.",
    )
    auth_without_tls: StrictBool = Field(
        False, description="Let clients sign in without TLS: for listeners on loopback addresses and Unix sockets."
    )
    disable_extensions: tuple[Annotated[ExtensionKeyword, BeforeValidator(_upper_case)], ...] = Field(
        (), description="EHLO keywords that are neither offered nor taken. BINARYMIME goes with CHUNKING."
    )
    bare_newlines: Literal["refuse", "keep"] = Field(
        "refuse",
        description="What to do with a message that has a bare CR or LF: refuse it (550 5.6.0), or keep it as it is. "
        "Neither ends a message.",
    )
    bare_lf_commands: StrictBool = Field(
        False, description="Take commands that end in LF alone, for old devices. Never applies to the message."
    )
    long_lines: Literal["refuse", "accept"] = Field(
        "refuse", description="What to do with a message that has a line longer than body_line_length."
    )
    body_line_length: Whole = Field(
        998, ge=78, le=10_000_000, description="Longest line of a message in octets, without CRLF (RFC 5322 2.1.1)."
    )
    greeting_delay: Duration = Field(
        0.0,
        description="How long to wait before the greeting. Clients that talk into it are caught by the policy "
        "early_talker.",
    )
    proxy_protocol: StrictBool = Field(
        False,
        description="Every connection begins with a PROXY header (version 1 or 2) that names the real client, as "
        "HAProxy and other balancers send it. Who sends none gets no greeting.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="Networks of those balancers; nobody else may connect.", examples=[["192.0.2.8"]]
    )
    reverse_dns: StrictBool = Field(
        False,
        description="Look up the client's name before the greeting: that of its address, if the name has the address. "
        "For Received, the log and the rules.",
    )
    xforward_from: tuple[Network, ...] = Field(
        (),
        description="Networks of proxies that may tell the original client by XFORWARD, for the log. Empty: nobody.",
    )
    xclient_from: tuple[Network, ...] = Field(
        (),
        description="Networks of proxies that may speak for another client by XCLIENT, which every rule and limit then "
        "sees in their place. Empty: nobody.",
    )
    etrn_from: tuple[Network, ...] = Field(
        (),
        description="Networks of hosts that may have the queue's mail for a domain tried at once (ETRN, RFC 1985). "
        "Empty: nobody.",
    )
    etrn_signed_in: StrictBool = Field(
        False, description="The same for everybody who has signed in; with `auth: required`."
    )
    add_missing_headers: StrictBool = Field(
        False, description="Put Date and Message-ID in front of messages that have none (RFC 6409 8)."
    )
    hide_client: StrictBool = Field(
        False, description="Leave the client's name and address out of the Received field; the log has them."
    )
    policies: Policies = Field(
        default_factory=Policies,
        description="What is checked at this listener; what is left out is as in the section policies for all.",
    )
    limits: DoorLimits = Field(
        default_factory=DoorLimits,
        description="How much and how many at this listener; what is left out is as in the section limits for all. "
        "Limits on connections given here count those of this listener alone, within the connections of all.",
    )
    timeouts: DoorTimeouts = Field(
        default_factory=DoorTimeouts,
        description="How long we wait at this listener; what is left out is as in the section timeouts for all.",
    )
    backlog: Whole = Field(1024, ge=1, le=65535, description="Connections the kernel keeps until they are accepted.")
    socket_mode: Mode = Field(0o660, description="Permissions of Unix sockets.")
    socket_owner: str | None = Field(None, description="User who owns Unix sockets; left out: who starts the daemon.")
    socket_group: str | None = Field(None, description="Group of Unix sockets; left out: that of the daemon.")

    @property
    def greeting(self) -> str:
        """The banner of its protocol."""
        is_left_out = self.protocol == "lmtp" and "banner" not in self.model_fields_set
        return "LMTP Service ready" if is_left_out else self.banner

    @model_validator(mode="before")
    @classmethod
    def _with_role(cls, value: object) -> object:
        return with_role(value)
