"""What a server session tells its driver. Every event but Body waits for one reply().

`success` is the reply the protocol foresees when nobody has anything to say against it.

They are values and nobody changes them, but they are not frozen: a frozen dataclass takes 0.65 us to make, a plain
one 0.23 us, and a message is eight of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smtpmaild.smtp import reply
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import Reply


@dataclass(slots=True)
class Connected:
    """The connection stands; its reply is the banner. 554 leaves only QUIT, 421 closes (RFC 5321 §3.1)."""

    success: Reply


@dataclass(slots=True)
class Hello:
    """HELO, EHLO or LHLO. domain: the whole argument, not judged.  keywords: the EHLO lines we would answer with."""

    verb: str
    domain: str
    keywords: tuple[str, ...]
    success: Reply


@dataclass(slots=True)
class Mail:
    """MAIL FROM with its parameters: upper-case keys, known ones only, values checked, "" where there is none."""

    reverse_path: Address
    parameters: Mapping[str, str]
    success: Reply


@dataclass(slots=True)
class Rcpt:
    """RCPT TO; parameters as in Mail."""

    forward_path: Address
    parameters: Mapping[str, str]
    success: Reply


@dataclass(slots=True)
class Data:
    """DATA, or the first BDAT: shall a message be read? A refusal keeps the recipients."""

    success: Reply = reply.START_MAIL_INPUT


@dataclass(slots=True)
class Body:
    """Bytes of the message, never empty, CRLF line ends, without dot-stuffing. Takes no reply."""

    chunk: bytes


@dataclass(slots=True)
class EndOfData:
    """The message was read to its end, or a BDAT failed. failure: the refusal the protocol demands, if it does."""

    size: int
    failure: Reply | None
    success: Reply = reply.MESSAGE_ACCEPTED


@dataclass(slots=True)
class Command:
    """Any other verb: RSET always, the rest where the driver listens for it, and the verbs of extensions."""

    verb: str
    argument: str
    success: Reply


@dataclass(slots=True)
class XForward:
    """XFORWARD from a peer that may send it: what this command told. None: the value is not known to the sender."""

    attributes: Mapping[str, str | None]
    success: Reply = reply.XFORWARD_OK


@dataclass(slots=True)
class XClient:
    """XCLIENT from a peer that may send it: the client it speaks for, of all such commands together.

    The session begins again with this client, so the reply is the banner, or its refusal. ADDR begins another client:
    what was said of the one before is forgotten.
    """

    attributes: Mapping[str, str | None]
    success: Reply


@dataclass(slots=True)
class StartTls:
    """STARTTLS, with nothing behind it. After a 220 the session waits for the handshake and for restart()."""

    success: Reply = reply.READY_FOR_TLS


@dataclass(slots=True)
class Auth:
    """AUTH with a mechanism that is offered. initial: the initial response, decoded; None if there was none.

    The reply is 334 with base64 for its text (another line of the client follows), 235, or a refusal.
    """

    mechanism: str
    initial: bytes | None = field(repr=False)


@dataclass(slots=True)
class AuthResponse:
    """The client's answer to a 334, decoded; to be replied to as Auth."""

    data: bytes = field(repr=False)


@dataclass(slots=True)
class AuthCancelled:
    """The exchange ended without a response: the client sent "*", or what is none. success: how that is answered."""

    success: Reply


@dataclass(slots=True)
class LineTooLong:
    """A command line over the limit, where the driver listens for it; what was read of it is gone."""

    success: Reply = reply.COMMAND_TOO_LONG


Event = (
    Connected | Hello | Mail | Rcpt | Data | Body | EndOfData | Command
    | XForward | XClient | StartTls | Auth | AuthResponse | AuthCancelled | LineTooLong
)  # fmt: skip
