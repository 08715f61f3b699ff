"""The section `relay_rules`: mail for other domains than ours.

The rules are asked in order for each recipient in a foreign domain; the first that matches decides, and without one
the recipient is refused (550 5.7.1). A rule matches when each condition it has does: from_domains and from_addresses
are one condition (the sender is any of them), and so are to_domains and to_addresses.

What `relay` names is in relays.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, model_validator

from smtpmaild.config.names import (
    CertificateName,
    ClientName,
    DomainPattern,
    MailAddress,
    Network,
    SenderAddress,
    UserName,
)
from smtpmaild.config.section import Section, Whole


def _enhanced_like(example: str) -> AfterValidator:
    """Wants an enhanced code of the same class: RFC 2034 §4, its first digit is that of the reply code."""

    def check(text: str) -> str:
        if not _ENHANCED.fullmatch(text) or text[0] != example[0]:
            raise ValueError(f"'{text}' is not an enhanced code that fits here: write it as {example}")
        return text

    return AfterValidator(check)


def _reply_text(text: str) -> str:
    if not 0 < len(text) <= _LONGEST_TEXT or not (text.isascii() and text.isprintable()):
        raise ValueError(f"the text of a reply is 1 to {_LONGEST_TEXT} characters of printable ASCII")
    return text


# RFC 3463 §2: class "." subject "." detail.
_ENHANCED = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}")
# One reply line has 512 octets (RFC 5321 §4.5.3.1.5); codes and CRLF take some of them.
_LONGEST_TEXT = 400

ReplyText = Annotated[str, AfterValidator(_reply_text)]


class Rejection(Section):
    """A refusal for good."""

    code: Whole = Field(550, ge=500, le=599, description="The reply code, 5yz.")
    enhanced: Annotated[str, _enhanced_like("5.7.1")] = Field(
        "5.7.1", description="The enhanced status code (RFC 3463)."
    )
    text: ReplyText = Field("Relaying denied", description="The words of the reply, in printable ASCII.")


class Deferral(Section):
    """A refusal for now: the client tries again later."""

    # Not 421, which says that the connection is closed.
    code: Whole = Field(450, ge=450, le=499, description="The reply code, 4yz.")
    enhanced: Annotated[str, _enhanced_like("4.7.1")] = Field(
        "4.7.1", description="The enhanced status code (RFC 3463)."
    )
    text: ReplyText = Field("Not now, try again later", description="The words of the reply, in printable ASCII.")


def _short_forms(value: object) -> object:
    """`true` for the usual words, a text for other words."""
    if value is True:
        return {}
    if value is False:
        raise ValueError("false decides nothing: leave the key out, or write true")
    return {"text": value} if isinstance(value, str) else value


class RelayRule(Section):
    """One line of the decision: conditions, and exactly one of deliver, reject, defer and relay."""

    name: str = Field(min_length=1, description="How logs and `try` call it; unique.")
    from_networks: tuple[Network, ...] = Field((), description="The client is in one of these networks.")
    listeners: tuple[str, ...] = Field((), description="The client came in by one of these listeners.")
    authenticated: StrictBool | None = Field(
        None, description="true: the client has signed in; false: it has not. Left out: either."
    )
    users: tuple[UserName, ...] = Field((), description="The client has signed in as one of these.")
    tls: StrictBool | None = Field(
        None, description="true: the connection is encrypted; false: it is not. Left out: either."
    )
    client_certificates: tuple[CertificateName, ...] = Field(
        (),
        description="The client showed one of these certificates, and the client_ca vouches for it: the SHA-256 "
        "fingerprint, or the subject as in CN=printer,O=Example.",
    )
    client_names: tuple[ClientName, ...] = Field(
        (),
        description="The client's name in the DNS, checked both ways, is one of these; *.example.com stands for the "
        "names below. Needs reverse_dns at the listener.",
    )
    from_domains: tuple[DomainPattern, ...] = Field(
        (), description="The sender is in one of these domains; *.example.com stands for the sub-domains."
    )
    from_addresses: tuple[SenderAddress, ...] = Field(
        (), description="The sender is one of these addresses; <> is the null sender of bounces."
    )
    to_domains: tuple[DomainPattern, ...] = Field(
        (), description="The recipient is in one of these domains; *.example.com stands for the sub-domains."
    )
    to_addresses: tuple[MailAddress, ...] = Field((), description="The recipient is one of these addresses.")
    deliver: str | None = Field(None, description="Accept into this store: a name under deliver_to.")
    reject: Annotated[
        Rejection | None, BeforeValidator(_short_forms, json_schema_input_type=Literal[True] | str | Rejection)
    ] = Field(None, description="Refuse for good: true, or the words, or code, enhanced and text.")
    defer: Annotated[
        Deferral | None, BeforeValidator(_short_forms, json_schema_input_type=Literal[True] | str | Deferral)
    ] = Field(None, description="Refuse for now: true, or the words, or code, enhanced and text.")
    relay: str | None = Field(None, description="Send on by the queue: a name under relays, mx, or host:port.")

    @model_validator(mode="after")
    def _can_match(self) -> Self:
        if self.users and self.authenticated is False:
            raise ValueError(f"rule '{self.name}' matches nobody: who is one of its users has signed in")
        if self.client_certificates and self.tls is False:
            raise ValueError(f"rule '{self.name}' matches nobody: there is no client certificate without TLS")
        return self

    @model_validator(mode="after")
    def _decides_once(self) -> Self:
        given = {"deliver": self.deliver, "reject": self.reject, "defer": self.defer, "relay": self.relay}
        actions = [name for name, action in given.items() if action is not None]
        if not actions:
            raise ValueError(f"rule '{self.name}' decides nothing: give it deliver, reject, defer or relay")
        if len(actions) > 1:
            raise ValueError(f"rule '{self.name}' has {' and '.join(actions)}: a rule decides one thing")
        return self
