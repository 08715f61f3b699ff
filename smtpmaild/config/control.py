"""The section `control`: the socket by which commands ask and steer a running daemon."""

from __future__ import annotations

from pydantic import Field, field_validator

from smtpmaild.config.findings import Finding, Findings
from smtpmaild.config.listeners import Mode
from smtpmaild.config.paths import ConfigPath
from smtpmaild.config.section import Section
from smtpmaild.config.sockets import LONGEST_SOCKET_PATH

#: Write permission lets a user connect (unix(7)).
_OTHERS = 0o002


class Control(Section):
    """Who may ask and steer a running daemon."""

    socket: ConfigPath = Field(
        "var/run/control.sock",
        validate_default=True,
        description="The Unix socket that status, reload, drain and queue talk to; its folder is made.",
    )
    mode: Mode = Field(
        0o600,
        description="Its permissions: who can write to it can do everything that the commands do. 0660 is for a group.",
    )
    group: str | None = Field(None, description="Its group. Left out: that of the daemon.")

    @field_validator("socket", mode="after")
    @classmethod
    def _fits(cls, path: str) -> str:
        if len(path.encode()) > LONGEST_SOCKET_PATH:
            raise ValueError(
                f"the path of a Unix socket may have {LONGEST_SOCKET_PATH} bytes, not {len(path.encode())}"
            )
        return path

    def findings(self) -> Findings:
        """What is doubtful."""
        if self.mode & _OTHERS:
            yield Finding(("control", "mode"), "every user of this machine could stop the daemon and drop its mail")
        if self.group is not None and not self.mode & 0o020:
            message = f"the group '{self.group}' cannot use it with this mode: 0660 lets a group in"
            yield Finding(("control", "group"), message, "warning")
