"""The options of a session, by names in any case, and the log of a program that names none."""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import IO

from smtpmaild.auth import Authenticator
from smtpmaild.envelope import Peer
from smtpmaild.facts import Log
from smtpmaild.idn import to_ascii
from smtpmaild.smtp.extension import ServerOptions


class StandardLog:
    """Facts for Python's own `logging`, under the name "smtpmaild": its warnings and errors are seen without set-up."""

    _logger = logging.getLogger("smtpmaild")

    def info(self, event: str, /, **facts: object) -> None:
        self._logger.info("%s %s", event, facts)

    def warning(self, event: str, /, **facts: object) -> None:
        self._logger.warning("%s %s", event, facts)

    def error(self, event: str, /, **facts: object) -> None:
        self._logger.error("%s %s", event, facts)

    def exception(self, event: str, /, **facts: object) -> None:
        self._logger.exception("%s %s", event, facts)


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What a session may be told when it is made.

    socket: both directions; or handle_in and handle_out: asyncio streams, or files with a descriptor; with neither,
    standard input and output.  idle_timeout: seconds without input, 0 for ever.  error_sleep_time: seconds before each
    4yz and 5yz, in this session only, 0 for none.  application: a word of the banner.  peer: who the other end is,
    where the socket does not tell.  log: a structlog logger or one like it.  xforward: offer XFORWARD (Esmtp only);
    for peers you trust.  ssl_config: what STARTTLS begins with, an ssl.SSLContext or a mapping with the paths
    `certificate` and `key` and perhaps a `password`; it is offered then (Esmtp and Lmtp).  authenticator: who knows the
    accounts (smtpmaild.auth.Authenticator); AUTH is offered within TLS then, with auth_in_clear before it too.
    requires_auth: no mail before it.

    The rest are limits of the protocol: message_size in bytes, 0 for none; recipients per message; body_line, octets
    of a message line, 0 for any; keep_bare_newlines: take messages with a bare CR or LF; allow_bare_lf: LF ends a
    command; bad_commands and refused_recipients before 421.
    """

    socket: sockets.socket | None = None
    handle_in: asyncio.StreamReader | IO[bytes] | None = None
    handle_out: asyncio.StreamWriter | IO[bytes] | None = None
    idle_timeout: float = 300.0
    error_sleep_time: float = 0.0
    hostname: str = field(default_factory=sockets.gethostname)
    application: str = "smtpmaild"
    peer: Peer | None = None
    log: Log = field(default_factory=StandardLog)
    xforward: bool = False
    ssl_config: ssl.SSLContext | Mapping[str, str] | None = None
    authenticator: Authenticator | None = None
    auth_in_clear: bool = False
    requires_auth: bool = False
    message_size: int = 50_000_000
    recipients: int = 1000
    body_line: int = 998
    keep_bare_newlines: bool = False
    allow_bare_lf: bool = False
    bad_commands: int = 20
    refused_recipients: int = 100

    def protocol(
        self, name: str, listens: frozenset[str], *, is_lmtp: bool = False, can_encrypt: bool = True
    ) -> ServerOptions:
        """What of this the protocol engine needs. name: of the protocol, in the banner.  can_encrypt: the streams are
        ours, so that STARTTLS can be offered."""
        return ServerOptions(
            hostname=self.hostname,
            banner=f"{name} {self.application} Service ready",
            message_size=self.message_size,
            recipients=self.recipients,
            body_line=self.body_line,
            keep_bare_newlines=self.keep_bare_newlines,
            allow_bare_lf=self.allow_bare_lf,
            bad_commands=self.bad_commands,
            refused_recipients=self.refused_recipients,
            listens=listens,
            to_ascii=to_ascii,
            is_lmtp=is_lmtp,
            starttls=self.ssl_config is not None and can_encrypt,
            mechanisms=tuple(self.authenticator.mechanisms) if self.authenticator else (),
            auth_in_clear=self.auth_in_clear,
            requires_auth=self.requires_auth,
        )

    def context(self) -> ssl.SSLContext | None:
        """What a handshake begins with. Raises OSError and ssl.SSLError for files that do not serve."""
        if self.ssl_config is None or isinstance(self.ssl_config, ssl.SSLContext):
            return self.ssl_config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = self.ssl_config["certificate"]
        # Never without a password: OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, self.ssl_config.get("key"), self.ssl_config.get("password", ""))
        return context


_NAMES = tuple(option.name for option in fields(SessionOptions))


def read_options(given: Mapping[str, object]) -> SessionOptions:
    """The options by their names in any case. Raises TypeError for a name that is none, for one given twice, and for
    one handle without the other."""
    options: dict[str, object] = {}
    for name, value in given.items():
        if name.lower() not in _NAMES:
            raise TypeError(f"there is no option {name!r}; there are {', '.join(_NAMES)}")
        if name.lower() in options:
            raise TypeError(f"the option {name!r} is given twice")
        options[name.lower()] = value
    if ("handle_in" in options) is not ("handle_out" in options):
        raise TypeError("handle_in and handle_out belong together")
    return SessionOptions(**options)  # type: ignore[arg-type]
