"""One command line -> verb and argument; and the ESMTP parameters behind a path.

Knows the shape of commands (RFC 5321 §4.1.1 and §4.1.2), not their order and not what they are for.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping

from smtpmaild.smtp import reply
from smtpmaild.smtp.reply import Reply

#: What a client may be trying to say: verbs of RFC 5321 and of all extensions that we know, but those that only history
#: does. Anything else at the beginning of a line may be a password.
VERBS = frozenset(
    {"HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP"}
    | {"STARTTLS", "AUTH", "XCLIENT", "XFORWARD", "ETRN"}
)

# esmtp-param = esmtp-keyword ["=" esmtp-value];  esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
# esmtp-value = 1*(%d33-60 / %d62-126), and beyond ASCII with SMTPUTF8 (RFC 6531 §3.3)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f-\x9f]+))?")
# C0 and C1 control characters: in a command they are never what they seem.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# sasl-mech = 1*20mech-char;  mech-char = upper-case letters, digits, "-" and "_" (RFC 4422 §3.1); case is forgiven
_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}", re.ASCII)
# What a client means for AUTH, whether we take it for that or not; and the mechanisms there are, for what stands in
# their place may be the password.
_LIKE_AUTH = re.compile(r"[^A-Za-z]*AUTH", re.IGNORECASE)
_KNOWN_MECHANISM = re.compile(
    r"ANONYMOUS|CRAM-MD5|DIGEST-MD5|EXTERNAL|GSSAPI|LOGIN|NTLM|OAUTHBEARER|PLAIN|XOAUTH2|(SCRAM|X)-[A-Z0-9-]{1,16}",
    re.ASCII,
)
# bdat-cmd ::= "BDAT" SP chunk-size [ SP end-marker ];  chunk-size ::= 1*DIGIT;  end-marker ::= "LAST"  (RFC 3030 §2)
_BDAT = re.compile(r"([0-9]{1,20})( +LAST)?", re.IGNORECASE | re.ASCII)


def decode_line(line: bytes) -> str | None:
    """A command line as text; None if it holds control characters or is not UTF-8.

    RFC 5321 §4.1.1: "SMTP servers SHOULD tolerate trailing white space before the terminating <CRLF>": tabs as well.
    """
    try:
        text = line.rstrip(b" \t").decode()
    except UnicodeDecodeError:
        return None
    # isprintable() alone decides for ASCII, 0.05 us; only what it doubts is searched.
    return text if text.isprintable() or not _CONTROL.search(text) else None


def split_command(text: str) -> tuple[str, str]:
    """Verb in upper case and the rest: case does not matter, blanks around are dropped (RFC 5321 §2.4, §4.1.1).

    Case and blanks are those of ASCII: upper() would make RSET of a verb with U+017F for its S.
    """
    verb, _, argument = text.strip(" ").partition(" ")
    return verb.upper() if verb.isascii() else verb, argument.lstrip(" ")


def after_keyword(argument: str, keyword: str) -> str | None:
    """What follows "FROM:" or "TO:"; None if that is not there.

    RFC 5321 §3.3: "spaces are not permitted on either side of the colon". Clients that send one behind it are many
    and mean no harm; every server we know takes it.
    """
    if argument[: len(keyword)].upper() != keyword:
        return None
    return argument[len(keyword) :].lstrip(" ")


def parse_parameters(text: str, known: Mapping[str, re.Pattern[str]]) -> dict[str, str] | Reply:
    """The parameters behind a path: upper-case keyword -> value ("" if it has none), or the reply to a mistake.

    RFC 5321 §4.1.1.11: an unknown parameter is 555; a bad value or one given twice 501.
    """
    if not text.startswith(" "):
        return reply.SYNTAX
    parameters: dict[str, str] = {}
    for word in filter(None, text.split(" ")):
        match = _PARAMETER.fullmatch(word)
        if match is None:
            return reply.SYNTAX
        keyword, value = match[1].upper(), match[2] or ""
        pattern = known.get(keyword)
        if pattern is None:
            return Reply(555, "5.5.4", f"Unsupported option: {keyword}")
        if not pattern.fullmatch(value):
            return Reply(501, "5.5.4", f"Bad value of {keyword}")
        if keyword in parameters:
            return Reply(501, "5.5.4", f"{keyword} given twice")
        parameters[keyword] = value
    return parameters


def parse_auth(argument: str) -> tuple[str, bytes | None] | Reply:
    """Mechanism in upper case and initial response, None if there is none; or the reply to a mistake.

    auth-command = "AUTH" SP sasl-mech [SP initial-response];  initial-response = base64 / "="  (RFC 4954 §8)
    """
    mechanism, _, initial = argument.partition(" ")
    initial = initial.strip(" ")
    if not _MECHANISM.fullmatch(mechanism) or " " in initial:
        return reply.AUTH_SYNTAX
    if not initial:
        return mechanism.upper(), None
    decoded = b"" if initial == "=" else decode_base64(initial)
    return reply.AUTH_NOT_BASE64 if decoded is None else (mechanism.upper(), decoded)


def auth_without_secret(line: str) -> str | None:
    """A line that may have a password in it, as it can be shown: "AUTH PLAIN", or "AUTH" alone; None for others."""
    if _LIKE_AUTH.match(line) is None:
        return None
    mechanism = "".join(line.upper().split()[1:2])
    return f"AUTH {mechanism}" if _KNOWN_MECHANISM.fullmatch(mechanism) else "AUTH"


def decode_base64(text: str) -> bytes | None:
    """The octets that base64 stands for (RFC 4648 §4); None if it is none, whatever is wrong with it."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one, and so is a character beyond ASCII
        return None


def parse_bdat(argument: str) -> tuple[int, bool] | None:
    """Size in octets and whether it is the last chunk."""
    match = _BDAT.fullmatch(argument)
    return (int(match[1]), match[2] is not None) if match else None
