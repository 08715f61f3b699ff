"""SMTP replies: a code, an enhanced status code, a text, and the bytes they make on the wire.

A reply is safe to send whatever its text was built from: control characters and bytes beyond ASCII are made
harmless here, and lines are folded so that none exceeds 512 octets (RFC 5321 §4.5.3.1.5). Canned replies at the end
of the file are constants with ready bytes; only replies that carry a value are built while the daemon runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# RFC 5321 §4.5.3.1.5: "The maximum total length of a reply line including the reply code and the <CRLF> is 512
# octets."  Four octets are the code and its separator, two the CRLF.
_LONGEST_TEXT = 512 - 4 - 2

# RFC 5321 §4.2: textstring = 1*(%d09 / %d32-126).  We drop the tabulator too: some clients show it as it is.
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
# RFC 3463 §2: status-code = class "." subject "." detail, each up to three digits.
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete SMTP reply.

    code: 200-599.  enhanced: the enhanced status code of RFC 3463 such as "2.1.5", or "" where RFC 2034 wants none
    (greeting, HELO, EHLO and every 3yz).  text: what people read, without code and CRLF; "\\n" separates the lines of
    a multi-line reply.  Raises ValueError for a code or enhanced code that cannot be sent.
    """

    code: int
    enhanced: str
    text: str
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.code, self.enhanced) not in _VALID:
            _validate(self.code, self.enhanced)
        object.__setattr__(self, "wire", _wire(self.code, self.enhanced, self.text))

    @property
    def is_positive(self) -> bool:
        """True for 2yz and 3yz."""
        return self.code < 400

    @property
    def is_permanent(self) -> bool:
        """True for 5yz: trying again will not help."""
        return self.code >= 500

    def wire_without_enhanced(self) -> bytes:
        """The same reply for a listener that does not offer ENHANCEDSTATUSCODES."""
        # The banner and the answer to EHLO have none: made anew they took a tenth of what a session costs.
        return _wire(self.code, "", self.text) if self.enhanced else self.wire

    def __str__(self) -> str:
        """As logs show it: '550 5.1.1 No such mailbox'."""
        code = f"{self.code} {self.enhanced}" if self.enhanced else str(self.code)
        words = self.text.replace("\n", " / ")
        return f"{code} {words}" if words else code


@dataclass(frozen=True, slots=True)
class OwnReply(Reply):
    """What a client says of a server, or in its place: no server gave this reply."""


#: Codes that were found valid: a reply with a value in its text is made for each message, with few codes.
_VALID: set[tuple[int, str]] = set()


def _validate(code: int, enhanced: str) -> None:
    if not 200 <= code <= 599:
        raise ValueError(f"reply code {code} is not between 200 and 599")
    # RFC 2034 §4: the class digit of the enhanced code agrees with the first digit of the reply code.
    if enhanced and (not _ENHANCED.fullmatch(enhanced) or enhanced[0] != str(code)[0]):
        raise ValueError(f"enhanced status code {enhanced!r} does not fit reply code {code}")
    _VALID.add((code, enhanced))


def _wire(code: int, enhanced: str, text: str) -> bytes:
    # RFC 2034 §4: in a multi-line reply the enhanced code stands on every line.
    prefix = enhanced + " " if enhanced else ""
    room = _LONGEST_TEXT - len(prefix)
    if len(text) <= room and text.isascii() and text.isprintable():
        return f"{code} {prefix}{text}\r\n".encode("ascii")
    lines: list[str] = []
    for line in text.split("\n"):
        lines += _folded(printable(line), room)
    last = lines.pop()
    wire = "".join(f"{code}-{prefix}{line}\r\n" for line in lines)
    return f"{wire}{code} {prefix}{last}\r\n".encode("ascii")


def printable(text: str) -> str:
    """The text in printable ASCII: anything else becomes '?', so that nothing a peer sent can break out of a line."""
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub("?", text)


def _folded(line: str, room: int) -> list[str]:
    pieces = []
    while len(line) > room:
        cut = line.rfind(" ", 1, room) + 1 or room
        pieces.append(line[:cut].rstrip(" "))
        line = line[cut:]
    return [*pieces, line]


# Replies that belong to no single command.
BAD_SEQUENCE = Reply(503, "5.5.1", "Bad sequence of commands")
HELLO_FIRST = Reply(503, "5.5.1", "Send HELO or EHLO first")
LHLO_FIRST = Reply(503, "5.5.1", "Send LHLO first")
UNRECOGNIZED = Reply(500, "5.5.2", "Syntax error: unrecognized command")
# RFC 2033 §4.1: a LMTP server must not say yes to HELO and EHLO; "the 500 reply code is recommended".
LMTP_IS_SPOKEN = Reply(500, "5.5.1", "This is LMTP: say LHLO")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
SYNTAX = Reply(501, "5.5.4", "Syntax error in parameters or arguments")
NO_PARAMETERS = Reply(501, "5.5.4", "This command takes no parameters")
COMMAND_TOO_LONG = Reply(500, "5.5.2", "Command line too long")
BARE_LINE_FEED = Reply(500, "5.5.2", "Lines must end in CRLF")
UNPRINTABLE = Reply(500, "5.5.2", "Control characters or broken UTF-8 in a command")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors, closing transmission channel")
LOCAL_ERROR = Reply(451, "4.3.0", "Local error in processing, try again later")
INTERNAL_ERROR = Reply(421, "4.3.0", "Internal error, closing transmission channel")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down, closing transmission channel")

# Replies of the single commands.
HELLO_SYNTAX = Reply(501, "", "Syntax error in parameters or arguments")
NOOP_OK = Reply(250, "2.0.0", "Ok")
RSET_OK = Reply(250, "2.0.0", "Requested mail action okay, completed")
VRFY_NEUTRAL = Reply(252, "2.5.0", "Cannot VRFY user, but will accept message and attempt delivery")
SENDER_SYNTAX = Reply(501, "5.1.7", "Syntax error in reverse-path: MAIL FROM:<address>")
NESTED_MAIL = Reply(503, "5.5.1", "Sender already given, send RSET to start again")
MAIL_FIRST = Reply(503, "5.5.1", "Send MAIL first")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient ok")
RECIPIENT_SYNTAX = Reply(501, "5.1.3", "Syntax error in forward-path: RCPT TO:<address>")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
# RFC 6531 §3.5: a mailbox beyond ASCII without SMTPUTF8 gets 550 or 553, enhanced code 5.6.7.
SENDER_NEEDS_UTF8 = Reply(550, "5.6.7", "An address beyond ASCII needs MAIL with SMTPUTF8")
RECIPIENT_NEEDS_UTF8 = Reply(553, "5.6.7", "An address beyond ASCII needs MAIL with SMTPUTF8")
NO_VALID_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
# RFC 2033 §4.2: without an accepted RCPT "the DATA command MUST fail with a 503 reply code".
LMTP_NO_VALID_RECIPIENTS = Reply(503, "5.5.1", "No valid recipients")
START_MAIL_INPUT = Reply(354, "", "Start mail input; end with <CRLF>.<CRLF>")
MESSAGE_TOO_BIG = Reply(552, "5.3.4", "Message size exceeds the limit")
BODY_LINE_TOO_LONG = Reply(500, "5.6.0", "A line of the message is too long")
BARE_CR_OR_LF = Reply(550, "5.6.0", "Message contains a bare CR or LF: lines must end in CRLF")
MESSAGE_ACCEPTED = Reply(250, "2.0.0", "message sent")
BINARY_NEEDS_BDAT = Reply(503, "5.5.1", "A BINARYMIME message must be sent with BDAT")
BDAT_SYNTAX = Reply(501, "5.5.4", "Syntax: BDAT size [LAST]; closing transmission channel")
XFORWARD_OK = Reply(250, "2.0.0", "OK")
COMMAND_OK = Reply(250, "2.0.0", "Ok")
# RFC 3207 §4 and its example.
READY_FOR_TLS = Reply(220, "2.0.0", "Ready to start TLS")
TLS_FIRST = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
TLS_UNAVAILABLE = Reply(454, "4.7.0", "TLS not available due to a temporary reason")
TLS_ALREADY = Reply(503, "5.5.1", "TLS is active already")
INPUT_BEHIND_STARTTLS = Reply(503, "5.5.1", "Nothing may follow STARTTLS; closing transmission channel")
# RFC 4954 §4 and §6; the enhanced codes are those of the IANA registry.
AUTHENTICATED = Reply(235, "2.7.0", "Authentication succeeded")
AUTH_SYNTAX = Reply(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
AUTH_UNKNOWN_MECHANISM = Reply(504, "5.5.4", "Authentication mechanism is not offered")
AUTH_NOT_BASE64 = Reply(501, "5.5.2", "Cannot decode the response: it is not base64")
AUTH_CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
AUTH_LINE_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")
AUTH_ALREADY = Reply(503, "5.5.1", "Already authenticated")
AUTH_NEEDS_EHLO = Reply(503, "5.5.1", "Send EHLO first")
AUTH_NEEDS_TLS = Reply(538, "5.7.11", "Encryption required for requested authentication mechanism")
AUTH_UNAVAILABLE = Reply(454, "4.7.0", "Temporary authentication failure")
AUTH_REQUIRED = Reply(530, "5.7.0", "Authentication required")
