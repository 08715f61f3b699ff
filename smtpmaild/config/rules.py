"""The sections `relay_rules` and `relays`: mail for other domains than ours.

The rules are asked in order for each recipient in a foreign domain; the first that matches decides, and without one
the recipient is refused (550 5.7.1). A rule matches when each condition it has does: from_domains and from_addresses
are one condition (the sender is any of them), and so are to_domains and to_addresses.

Relaying itself is not there yet: `relay`, `authenticated` and `relays` are read so that mistakes in them are found.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, StrictBool, model_validator

from smtpmaild.config.names import DomainPattern, HostName, MailAddress, Network, SenderAddress
from smtpmaild.config.paths import SecretFile
from smtpmaild.config.section import Section


class RuleReply(Section):
    """What the client is told; the fields of both refusals."""

    code: int
    enhanced: str
    text: str = Field(
        "Relaying denied",
        min_length=1,
        max_length=400,
        pattern=r"^[ -~]+$",
        description="The words of the reply, in printable ASCII.",
    )

    @model_validator(mode="after")
    def _enhanced_fits_code(self) -> Self:
        # RFC 2034 §4: the class of the enhanced code is the first digit of the reply code.
        if self.enhanced[0] != str(self.code)[0]:
            raise ValueError(f"the enhanced code {self.enhanced} does not fit {self.code}: both begin with one digit")
        return self


class Rejection(RuleReply):
    """A refusal for good."""

    code: int = Field(550, ge=500, le=599, description="The reply code, 5yz.")
    enhanced: str = Field(
        "5.7.1", pattern=r"^5\.[0-9]{1,3}\.[0-9]{1,3}$", description="The enhanced status code (RFC 3463)."
    )


class Deferral(RuleReply):
    """A refusal for now: the client tries again later."""

    code: int = Field(450, ge=400, le=499, description="The reply code, 4yz.")
    enhanced: str = Field(
        "4.7.1", pattern=r"^4\.[0-9]{1,3}\.[0-9]{1,3}$", description="The enhanced status code (RFC 3463)."
    )
    text: str = Field(
        "Not now, try again later",
        min_length=1,
        max_length=400,
        pattern=r"^[ -~]+$",
        description="The words of the reply, in printable ASCII.",
    )


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
    authenticated: StrictBool = Field(False, description="The client has signed in. Comes with a later version.")
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
    relay: str | None = Field(
        None, description="Send on: a name under relays, mx, or host:port. Comes with a later version."
    )

    @model_validator(mode="after")
    def _decides_once(self) -> Self:
        actions = [name for name in ("deliver", "reject", "defer", "relay") if getattr(self, name) is not None]
        if not actions:
            raise ValueError(f"rule '{self.name}' decides nothing: give it deliver, reject, defer or relay")
        if len(actions) > 1:
            raise ValueError(f"rule '{self.name}' has {' and '.join(actions)}: a rule decides one thing")
        return self


class Relay(Section):
    """A host that takes our mail on."""

    host: HostName = Field(description="Its name.")
    port: int = Field(25, ge=1, le=65535, description="Its port.")
    tls: Literal["none", "optional", "required", "implicit"] = Field("optional", description="Encryption on the way.")
    username: str | None = Field(None, description="The account we sign in with.")
    password: SecretStr | None = Field(None, description="Its password; better in a file of its own.")
    password_file: SecretFile | None = Field(
        None,
        description="A file with the password that not everybody can read: a systemd credential, or a path.",
    )

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file: give one of them")
        return self

    @property
    def secret(self) -> SecretStr | None:
        """The password, wherever it came from."""
        return self.password or self.password_file
