"""What the YAML may say of targets that are spoken to in SMTP or LMTP. Paths are absolute when an agent is built."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from smtpmaild.sink.options import Seconds

TlsMode = Literal["none", "may", "required", "verify"]
Port = Annotated[int, Field(ge=1, le=65535)]


def _ip_address(version: int) -> AfterValidator:
    def check(text: str) -> str:
        try:
            return str({4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}[version](text))
        except ValueError:
            raise ValueError(f"{text!r} is not an IPv{version} address") from None

    return AfterValidator(check)


class AgentOptions(BaseModel):
    """What has no other home: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeoutOptions(AgentOptions):
    """How long a server may take; RFC 5321 §4.5.3.2 has the defaults."""

    connect: Seconds = Field(30.0, description="For a connection to be made.")
    tls_handshake: Seconds = Field(30.0, description="For a TLS handshake.")
    greeting: Seconds = Field(300.0, description="For the server's greeting.")
    command: Seconds = Field(300.0, description="For the reply to EHLO, AUTH, MAIL, RCPT and RSET, each.")
    data: Seconds = Field(120.0, description="For the reply to DATA.")
    block: Seconds = Field(180.0, description="For a block of the message to be taken.")
    end_of_data: Seconds = Field(600.0, description="For the reply to the whole message.")
    quit: Seconds = Field(5.0, description="For the reply to QUIT.")


class SessionOptions(AgentOptions):
    """How sessions with a server are had."""

    tls: TlsMode = Field(
        "may",
        description="none: clear text. may: TLS where the server offers it, whoever it is, else clear text. required: "
        "TLS, whoever it is. verify: TLS, and its certificate is valid for its name.",
    )
    ca_file: str = Field(
        "", description="Certificates of the authorities to trust with `tls: verify`, PEM; left out: the system's."
    )
    username: str = Field("", description="Sign in as this user.")
    password_file: str = Field("", description="File with the password of `username`, nothing else in it.")
    hello: str = Field("", description="How to call ourselves in EHLO; left out: `hostname`.")
    source_ipv4: Annotated[str, _ip_address(4)] | None = Field(
        None, description="Address that IPv4 connections come from."
    )
    source_ipv6: Annotated[str, _ip_address(6)] | None = Field(
        None, description="Address that IPv6 connections come from."
    )
    messages_per_connection: int = Field(100, ge=1, description="Messages after which a connection is closed.")
    idle: Seconds = Field(10.0, description="How long a connection is kept for another message.")
    recipients_per_message: int = Field(100, ge=1, description="Recipients of one transaction at most.")
    eight_bit: Literal["bounce", "downgrade"] = Field(
        "bounce",
        description="What becomes of an 8-bit message where the server takes none. bounce: it goes back (5.6.3). "
        "downgrade: its 8-bit parts become quoted-printable or base64, if nothing in it is signed.",
    )
    timeouts: TimeoutOptions = Field(default_factory=TimeoutOptions, description="How long a server may take.")

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if bool(self.username) != bool(self.password_file):
            raise ValueError("username and password_file belong together")
        if self.username and self.tls == "may":
            raise ValueError("with a username, tls is `required` or `verify`: else who is in between gets the password")
        return self
