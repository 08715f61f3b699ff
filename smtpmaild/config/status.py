"""The section `status`: where the operator's browser and monitoring look at the daemon."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool, field_validator

from smtpmaild.config.findings import Finding, Findings
from smtpmaild.config.listeners import Mode
from smtpmaild.config.names import HostName
from smtpmaild.config.paths import SecretFile
from smtpmaild.config.section import Section
from smtpmaild.config.sockets import Listen, is_local
from smtpmaild.web.presence import INSTALL, missing

_SHORTEST_TOKEN = 16


class Status(Section):
    """The status page, /metrics, /livez and /readyz."""

    listen: Listen = Field(
        "127.0.0.1:8080",
        validate_default=True,
        description="Where: host:port, or a Unix socket for a proxy in front of it. Beyond this machine with "
        "token_file only.",
        examples=["127.0.0.1:8080", "/run/smtpmaild/status.sock"],
    )
    mode: Mode = Field(0o600, description="Permissions of the Unix socket: who can write to it can use it.")
    group: str | None = Field(None, description="The group of the Unix socket. Left out: that of the daemon.")
    page: StrictBool = Field(True, description="Show the page; else there are /metrics, /livez and /readyz only.")
    token_file: SecretFile | None = Field(
        None,
        description="A file with a secret of 16 characters or more. Who shows it may retry, hold, release and drop "
        "what is in the queue; without it the page is for reading only.",
    )
    token_for: Literal["steering", "everything"] = Field(
        "steering",
        description="What the token is wanted for. everything: for reading as well, /metrics included. Beyond this "
        "machine that is always so; /livez and /readyz never want it.",
    )
    hosts: tuple[HostName, ...] = Field(
        (),
        description="Names that a proxy calls us by. Others than these, localhost and addresses are refused, so that "
        "no page elsewhere can make a browser read us.",
        examples=[["status.example.com"]],
    )

    @field_validator("token_file", mode="after")
    @classmethod
    def _is_long(cls, token: SecretFile | None) -> SecretFile | None:
        if token is not None and (len(token.get_secret_value()) < _SHORTEST_TOKEN or not _is_plain(token)):
            raise ValueError(
                f"a token has {_SHORTEST_TOKEN} ASCII characters or more, no blanks: `openssl rand -hex 32` makes one"
            )
        return token

    def findings(self) -> Findings:
        """Why it cannot be served, or not so."""
        package = missing()
        if package:
            yield Finding(("status",), f"status needs {package}, which is not installed: {INSTALL}", of_key=True)
        if not is_local(self.listen) and self.token_file is None:
            message = (
                f"whoever reaches {self.listen} could read who writes to whom: "
                "give it a token_file, or listen on 127.0.0.1"
            )
            yield Finding(("status", "listen"), message)
        if self.token_for == "everything" and self.token_file is None:  # noqa: S105  which token it is, it does not say
            yield Finding(("status", "token_for"), "there is no token_file that could be wanted")


def _is_plain(token: SecretFile) -> bool:
    text = token.get_secret_value()
    return text.isascii() and text.isprintable() and " " not in text
