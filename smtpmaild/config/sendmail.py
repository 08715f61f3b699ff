"""The section `sendmail`: where programs on this machine hand in mail with the command of that name."""

from __future__ import annotations

from pydantic import Field

from smtpmaild.config.findings import Finding, Findings
from smtpmaild.config.listeners import Listener
from smtpmaild.config.mistakes import did_you_mean
from smtpmaild.config.paths import ConfigPath
from smtpmaild.config.section import Section
from smtpmaild.config.sockets import UnixAddress


class Sendmail(Section):
    """Mail from programs on this machine."""

    listener: str = Field(
        description="The listener whose Unix socket the command talks to. What was dropped is handed in there as well.",
        examples=["local"],
    )
    drop: ConfigPath = Field(
        "/var/spool/smtpmaild/drop",
        description="The directory where mail waits that was handed in while the daemon did not run.",
    )

    def socket_of(self, listeners: tuple[Listener, ...]) -> str:
        """The path of the socket."""
        own = (address for one in listeners if one.name == self.listener for address in one.listen)
        return next(address.path for address in own if isinstance(address, UnixAddress))

    def findings(self, listeners: tuple[Listener, ...]) -> Findings:
        """Why the command could not talk to that listener."""
        names = [one.name for one in listeners]
        if self.listener not in names:
            message = f"there is no listener '{self.listener}'{did_you_mean(self.listener, names)}"
            yield Finding(("sendmail", "listener"), message)
            return
        number = names.index(self.listener)
        listener, rests_on = listeners[number], (("listeners", number),)
        if not any(isinstance(address, UnixAddress) for address in listener.listen):
            message = f"listener '{self.listener}' has no Unix socket, and that is how sendmail hands in mail"
            yield Finding(("sendmail", "listener"), message, rests_on=rests_on)
        wants = [what for what, is_so in _HINDRANCES if is_so(listener)]
        if wants:
            message = f"sendmail speaks plain SMTP, and listener '{self.listener}' wants {' and '.join(wants)}"
            yield Finding(("sendmail", "listener"), message, rests_on=rests_on)


_HINDRANCES = (
    ("LMTP", lambda listener: listener.protocol == "lmtp"),
    ("TLS", lambda listener: listener.tls in ("required", "implicit")),
    ("AUTH", lambda listener: listener.auth == "required"),
    ("a PROXY header", lambda listener: listener.proxy_protocol),
)
