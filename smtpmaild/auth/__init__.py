"""The seam of authentication: who is it, by which SASL mechanism (RFC 4422, RFC 4954).

The engine (smtp/) carries the exchange: base64, line limits, `*`, the order of commands. The receiver hands every
response of the client to an `Exchange` and sends what it answers. An `Authenticator` is what the section `accounts` of
the config becomes: a file of users, or a Dovecot that is asked over a socket; a program that embeds the engine brings
its own.

Who calls, when, from where: the receiver, once per AUTH command and once per line of the exchange, in the event loop's
thread. `respond` therefore never blocks; what takes time (a password hash of 100 ms, another process) is an awaitable,
and only that session waits for it. This room knows no socket and no loop: whoever builds an authenticator brings the
function that runs work elsewhere.

No secret is ever part of a repr, a log line, or the text of an error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smtpmaild.envelope import Session
from smtpmaild.smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class ChannelBinding:
    """What ties an exchange to its TLS connection (RFC 5056). name: "tls-exporter" (RFC 9266), ...  data: its bytes."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """Go on: 334 with these bytes (not yet base64); the client's answer comes to the next `respond`."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authenticated:
    """It is `user`: the authorization identity, as accounts write it. Never ""."""

    user: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It is not, or cannot be said.

    reply: 535 5.7.8 wrong, 454 4.7.0 backend down, 421 too often, 501 malformed.  cause: for the log.
    user: who the client said it was, for the log; "" if it did not come to that.
    """

    reply: Reply
    cause: str
    user: str = ""


Step = Challenge | Authenticated | Failed


class Exchange(Protocol):
    """One AUTH command from its beginning to its end."""

    def respond(self, response: bytes | None) -> Step | Awaitable[Step]:
        """The client's bytes, base64 taken off.

        First the initial response: None where the command had none, b"" where it was "=" (RFC 4954 §4).  After an
        Authenticated or Failed it is not called again.
        """
        ...

    def cancel(self) -> None:
        """The client gave up (`*`) or went away; respond() is not called again, what it still waits for is dropped."""
        ...


class Authenticator(Protocol):
    """All accounts of a listener, and the mechanisms they can be asked by.

    mechanisms: SASL names in upper case, the preferred one first; a listener offers those of them that it wants.
    """

    @property
    def mechanisms(self) -> Sequence[str]: ...

    def begin(self, mechanism: str, session: Session, binding: ChannelBinding | None) -> Exchange:
        """An exchange with the client of this session. mechanism: one of those offered to it.

        binding: the channel binding of its TLS connection, where there is one to bind to.
        """
        ...
