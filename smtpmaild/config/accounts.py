"""The section `accounts`: who can sign in, and how fast passwords may be guessed (auth/throttle.py)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from smtpmaild.auth.throttle import LOOPBACK, ThrottleLimits
from smtpmaild.config.names import Network
from smtpmaild.config.paths import ConfigPath
from smtpmaild.config.section import Section, Whole
from smtpmaild.config.units import Duration


class Accounts(Section):
    """Who can sign in: users_file or dovecot_socket, one of them."""

    users_file: ConfigPath | None = Field(
        None,
        description="A file with a line name:{SCHEME}hash for each account, as `smtpmaild user add` writes it; lines "
        "of htpasswd and Dovecot's passwd-file are understood. Read again when it changes. The user of the daemon must "
        "be able to read it, and not everybody may.",
        examples=["users", "/etc/smtpmaild/users"],
    )
    dovecot_socket: ConfigPath | None = Field(
        None,
        description="The Unix socket on which Dovecot authenticates for others (service auth, unix_listener).",
        examples=["/run/dovecot/auth-client"],
    )
    verifications: Whole = Field(
        2, ge=1, le=64, description="Passwords that each worker verifies at the same time; others wait."
    )
    failures: Whole = Field(
        10,
        ge=1,
        le=1_000_000,
        description="Failed attempts from one address (of IPv6: one /64) until it is turned away (421).",
    )
    failures_forgotten_after: Duration = Field(
        600.0, gt=0, description="How long it takes until so many failed attempts are forgotten, one by one."
    )
    failure_delay: Duration = Field(
        1.0,
        description="How long an attempt waits after two failures from its address or for its account; doubled with "
        "each further failure.",
    )
    longest_failure_delay: Duration = Field(10.0, description="What failure_delay grows to.")
    uncounted_networks: tuple[Network, ...] = Field(
        LOOPBACK,
        description="Networks whose failures are not counted by address, as all users of a webmail come from one. They "
        "count for the account all the same.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.users_file is None) == (self.dovecot_socket is None):
            raise ValueError("accounts are in users_file or behind dovecot_socket: give one of them")
        return self

    @property
    def throttle(self) -> ThrottleLimits:
        """How fast passwords may be guessed."""
        return ThrottleLimits(
            self.failures,
            self.failures_forgotten_after,
            self.failure_delay,
            max(self.failure_delay, self.longest_failure_delay),
            self.uncounted_networks,
        )
