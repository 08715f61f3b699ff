"""Password hashes as files of users hold them: `{SCHEME}hash` as Dovecot writes it, or the bare hash of htpasswd.

`parse` reads one and says at once what is wrong with it, never with a word of the hash itself; `PasswordHash.verify`
then takes the time its scheme wants. `hash_password` makes a new one. The libraries are in the extra `auth`; each is
imported when the first hash that needs it is read, so that a missing one is a mistake in the file and not in a session.

Passwords are those of RFC 4013 (saslprep.py). What is stored readable ({PLAIN}) is refused: it could be read by every
backup and every mistake. So are schemes of the last century (DES, plain MD5).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from smtpmaild.auth.scram import ScramKeys

EXTRA = "smtpmaild[auth]"

#: What OWASP recommends for argon2id: 20 ms and 19 MiB for each login on a small server, which signs in often.
ARGON2_TIME, ARGON2_MEMORY_KIB, ARGON2_LANES = 2, 19_456, 1
_SALT_SIZE = 16
_ARGON2_HASH_SIZE = 32
#: bcrypt never looked further; its library refuses more since version 5.
_BCRYPT_LONGEST = 72


class SchemeError(Exception):
    """This is no hash we can verify; the text says why and holds nothing of it."""


class HashError(Exception):
    """A good hash could not be computed: no memory for it, for example."""


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """One stored password. scheme: Dovecot's name for it.  scram: its keys, where it is stored as such."""

    scheme: str
    stored: str = field(repr=False)
    scram: ScramKeys | None = field(default=None, repr=False)

    def verify(self, password: str) -> bool:
        """The password is the right one. Takes a while; raises HashError."""
        return _SCHEMES[self.scheme].verify(self.stored, password)


@dataclass(frozen=True, slots=True)
class _Scheme:
    """grammar: of the hash behind {SCHEME}.  load: imports what it needs.  verify: (stored, password)."""

    grammar: re.Pattern[str]
    load: Callable[[], object]
    verify: Callable[[str, str], bool]


def parse(text: str) -> PasswordHash:
    """The hash in a field of a file; raises SchemeError."""
    match = _PREFIXED.fullmatch(text)
    name = match["scheme"].upper() if match else ""
    stored = match["stored"] if match else text
    if name in _READABLE:
        raise SchemeError(f"{{{name}}} keeps the password readable: store a hash of it")
    if name in _BY_SIGN:
        name = next((scheme for sign, scheme in _SIGNS.items() if stored.startswith(sign)), "")
        if not name:
            raise SchemeError("this is no hash of a known kind")
    scheme = _SCHEMES.get(name)
    if scheme is None:
        raise SchemeError(f"the scheme {{{name}}} is not known; these are: {', '.join(_SCHEMES)}")
    if not scheme.grammar.fullmatch(stored):
        raise SchemeError(f"this is no hash of the scheme {name}")
    try:
        scheme.load()
    except ImportError as error:
        raise SchemeError(f"{name} needs {error.name}, which is not installed: pip install '{EXTRA}'") from None
    try:
        return PasswordHash(name, stored, ScramKeys.parse(stored) if name == "SCRAM-SHA-256" else None)
    except ValueError as error:
        raise SchemeError(str(error)) from None


def hash_password(password: str, *, scram: bool = False) -> str:
    """A new hash with its {SCHEME}: argon2id, or keys for SCRAM, by which PLAIN and LOGIN can be verified as well."""
    salt = secrets.token_bytes(_SALT_SIZE)
    if scram:
        return f"{{SCRAM-SHA-256}}{ScramKeys.of_password(password, salt).format()}"
    try:
        from argon2 import low_level
    except ImportError as error:
        raise SchemeError(f"ARGON2ID needs {error.name}, which is not installed: pip install '{EXTRA}'") from None

    hashed = low_level.hash_secret(
        password.encode(), salt, ARGON2_TIME, ARGON2_MEMORY_KIB, ARGON2_LANES, _ARGON2_HASH_SIZE, low_level.Type.ID
    )
    return f"{{ARGON2ID}}{hashed.decode()}"


# The libraries, each behind one function that loads it.


def _nothing_to_load() -> None:
    """It is in the standard library."""


def _load_argon2() -> None:
    import argon2.low_level  # noqa: F401


def _load_bcrypt() -> None:
    import bcrypt  # noqa: F401


def _load_libpass() -> None:
    import passlib.handlers.md5_crypt
    import passlib.handlers.sha2_crypt  # noqa: F401


def _verify_argon2(stored: str, password: str) -> bool:
    from argon2 import exceptions, low_level

    kind = low_level.Type.ID if stored.startswith("$argon2id$") else low_level.Type.I
    try:
        return low_level.verify_secret(stored.encode(), password.encode(), kind)
    except exceptions.VerifyMismatchError:
        return False
    except exceptions.Argon2Error as error:
        raise HashError(str(error)) from error


def _verify_bcrypt(stored: str, password: str) -> bool:
    import bcrypt

    return bcrypt.checkpw(password.encode()[:_BCRYPT_LONGEST], stored.encode())


def _verify_sha512_crypt(stored: str, password: str) -> bool:
    from passlib.handlers.sha2_crypt import sha512_crypt

    return bool(sha512_crypt.verify(password, stored))


def _verify_sha256_crypt(stored: str, password: str) -> bool:
    from passlib.handlers.sha2_crypt import sha256_crypt

    return bool(sha256_crypt.verify(password, stored))


def _verify_md5_crypt(stored: str, password: str) -> bool:
    from passlib.handlers.md5_crypt import apr_md5_crypt, md5_crypt

    kind = apr_md5_crypt if stored.startswith("$apr1$") else md5_crypt
    return bool(kind.verify(password, stored))


def _verify_digest(algorithm: str, stored: str, password: str) -> bool:
    """base64 of the digest of password and salt, and of the salt, of which there may be none."""
    octets = base64.b64decode(stored)
    size = hashlib.new(algorithm).digest_size
    return hmac.compare_digest(hashlib.new(algorithm, password.encode() + octets[size:]).digest(), octets[:size])


def _verify_scram(stored: str, password: str) -> bool:
    return ScramKeys.parse(stored).fits(password)


def _digest(algorithm: str, size: int) -> _Scheme:
    """size: of the digest in octets."""
    length = 4 * -(-size // 3)  # of its base64
    grammar = re.compile(
        rf"(?=.{{{length},{length + 128}}}$)(?:{_QUAD})*(?:{_QUAD}|[A-Za-z0-9+/]{{2}}(?:==|[A-Za-z0-9+/]=))"
    )
    return _Scheme(grammar, _nothing_to_load, partial(_verify_digest, algorithm))


_QUAD = "[A-Za-z0-9+/]{4}"
_ARGON2 = r"\$v=19\$m=[0-9]{1,8},t=[0-9]{1,5},p=[0-9]{1,3}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}"
_SHA2_CRYPT = r"\$(?:rounds=[1-9][0-9]{3,8}\$)?[A-Za-z0-9./]{1,16}\$"

#: Dovecot's names of them.
_SCHEMES: Mapping[str, _Scheme] = {
    "ARGON2ID": _Scheme(re.compile(rf"\$argon2id{_ARGON2}"), _load_argon2, _verify_argon2),
    "ARGON2I": _Scheme(re.compile(rf"\$argon2i{_ARGON2}"), _load_argon2, _verify_argon2),
    "SCRAM-SHA-256": _Scheme(re.compile(".+"), _nothing_to_load, _verify_scram),
    "BLF-CRYPT": _Scheme(
        re.compile(r"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[A-Za-z0-9./]{53}"), _load_bcrypt, _verify_bcrypt
    ),
    "SHA512-CRYPT": _Scheme(re.compile(rf"\$6{_SHA2_CRYPT}[A-Za-z0-9./]{{86}}"), _load_libpass, _verify_sha512_crypt),
    "SHA256-CRYPT": _Scheme(re.compile(rf"\$5{_SHA2_CRYPT}[A-Za-z0-9./]{{43}}"), _load_libpass, _verify_sha256_crypt),
    "MD5-CRYPT": _Scheme(
        re.compile(r"\$(?:apr1|1)\$[A-Za-z0-9./]{0,8}\$[A-Za-z0-9./]{22}"), _load_libpass, _verify_md5_crypt
    ),
    "SSHA512": _digest("sha512", 64),
    "SSHA256": _digest("sha256", 32),
    "SSHA": _digest("sha1", 20),
    "SHA512": _digest("sha512", 64),
    "SHA256": _digest("sha256", 32),
    "SHA": _digest("sha1", 20),
}
#: How a hash begins that says its scheme itself.
_SIGNS: Mapping[str, str] = {
    "$argon2id$": "ARGON2ID",
    "$argon2i$": "ARGON2I",
    "$2": "BLF-CRYPT",
    "$6$": "SHA512-CRYPT",
    "$5$": "SHA256-CRYPT",
    "$1$": "MD5-CRYPT",
    "$apr1$": "MD5-CRYPT",
}
_BY_SIGN = ("", "CRYPT")
_READABLE = ("PLAIN", "CLEAR", "CLEARTEXT", "PLAIN-TRUNC")
_PREFIXED = re.compile(r"\{(?P<scheme>[A-Za-z0-9.-]+)\}(?P<stored>.*)")
