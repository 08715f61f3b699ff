"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802, RFC 7677): messages in, messages out.

The server holds keys that prove a password without being one; the client proves that it knows the password, the server
that it has the keys, and with -PLUS both that they are the two ends of one TLS connection. `ScramServer` never looks
anything up and never waits: whoever drives it brings the keys of the user that it names. Whatever a client sends, the
only exception is ScramError.

Written here and not taken from the library scramp, which refuses the binding of TLS 1.3 (tls-exporter), has no types
and is slow to import. It is the client in our tests.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from smtpmaild.auth import ChannelBinding
from smtpmaild.auth.salted import derive
from smtpmaild.auth.saslprep import prepare_bytes

SCRAM = "SCRAM-SHA-256"
SCRAM_PLUS = "SCRAM-SHA-256-PLUS"

#: What OWASP recommends for PBKDF2 with SHA-256: 140 ms for who guesses, and once per login for the client.
ITERATIONS = 600_000
_FEWEST_ITERATIONS = 4096  # RFC 7677 §4
_MOST_ITERATIONS = 10_000_000  # several seconds; beyond that a file holds a mistake
_KEY_SIZE = 32

# RFC 5802 §7:
#   gs2-cbind-flag          = ("p=" cb-name) / "n" / "y"
#   gs2-header              = gs2-cbind-flag "," [ "a=" saslname ] ","
#   client-first-message    = gs2-header [reserved-mext ","] "n=" saslname "," "r=" c-nonce ["," extensions]
#   saslname                = 1*(value-safe-char / "=2C" / "=3D")
# A message with reserved-mext ("m=") does not match: that is what "m=" is for.
_SASLNAME = r"(?:[^\0=,]|=2C|=3D)+"
_CLIENT_FIRST = re.compile(
    rf"(?P<header>(?:(?P<flag>[ny])|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>{_SASLNAME}))?,)"
    rf"(?P<bare>n=(?P<user>{_SASLNAME}),r=(?P<nonce>[!-+\--~]+)(?:,[a-zA-Z]=[^\0,]+)*)"
)
#   client-final-message    = "c=" base64 "," "r=" nonce ["," extensions] "," "p=" base64
_CLIENT_FINAL = re.compile(
    r"(?P<without_proof>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>[!-+\--~]+)(?:,[a-zA-Z]=[^\0,]+)*)"
    r",p=(?P<proof>[A-Za-z0-9+/=]+)"
)
#: As Dovecot writes it: iterations, salt, StoredKey, ServerKey.
_KEYS = re.compile(r"(?P<iterations>[1-9][0-9]{0,7}),(?P<salt>[^,]+),(?P<stored>[^,]+),(?P<server>[^,]+)")


class ScramError(Exception):
    """The exchange has failed; the text says why and holds nothing secret.

    is_malformed: it was no SCRAM message at all, as opposed to a wrong one.
    """

    def __init__(self, text: str, *, is_malformed: bool = False) -> None:
        super().__init__(text)
        self.is_malformed = is_malformed


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What the server keeps of a password (RFC 5802 §3)."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def of_password(cls, password: str, salt: bytes, iterations: int = ITERATIONS) -> ScramKeys:
        """Takes the time that guessing shall take."""
        keys = derive(password.encode(), salt, iterations)
        return cls(iterations, salt, keys.stored_key, keys.server_key)

    @classmethod
    def parse(cls, text: str) -> ScramKeys:
        """From "4096,salt,StoredKey,ServerKey" in base64; raises ValueError."""
        match = _KEYS.fullmatch(text)
        if match is None:
            raise ValueError("SCRAM keys are four fields: iterations, salt, StoredKey and ServerKey")
        iterations = int(match["iterations"])
        if not _FEWEST_ITERATIONS <= iterations <= _MOST_ITERATIONS:
            raise ValueError(f"SCRAM wants {_FEWEST_ITERATIONS} to {_MOST_ITERATIONS} iterations, not {iterations}")
        keys = cls(iterations, *(_octets(match[name]) for name in ("salt", "stored", "server")))
        if not keys.salt or len(keys.stored_key) != _KEY_SIZE or len(keys.server_key) != _KEY_SIZE:
            raise ValueError("SCRAM keys are base64 of a salt and of two times 32 octets")
        return keys

    def format(self) -> str:
        """What parse() reads."""
        return ",".join((str(self.iterations), *map(_base64, (self.salt, self.stored_key, self.server_key))))

    def fits(self, password: str) -> bool:
        """The password is the right one. Takes as long as of_password()."""
        derived = ScramKeys.of_password(password, self.salt, self.iterations)
        return hmac.compare_digest(derived.stored_key, self.stored_key)


class ScramServer:
    """One exchange: read_first(), challenge(), read_final(), in this order.

    binding: that of the TLS connection, if -PLUS was offered on it.  nonce: random, printable, without a comma.
    """

    def __init__(self, mechanism: str, binding: ChannelBinding | None, nonce: str) -> None:
        self._is_plus = mechanism == SCRAM_PLUS
        self._binding = binding
        self._nonce = nonce
        self._header = ""
        self._first_bare = ""
        self._challenge = ""
        self._keys: ScramKeys | None = None

    def read_first(self, message: bytes) -> str:
        """The user that the client says it is."""
        match = _CLIENT_FIRST.fullmatch(_text(message))
        if match is None:
            raise ScramError("malformed first message", is_malformed=True)
        self._check_binding(match["flag"] or "", match["binding"] or "")
        user = prepare_bytes(_unescaped(match["user"]))
        if not user:
            raise ScramError("malformed user name", is_malformed=True)
        if match["authzid"] is not None and prepare_bytes(_unescaped(match["authzid"])) != user:
            raise ScramError("asks to act as another user")
        self._header, self._first_bare = match["header"], match["bare"]
        self._nonce = match["nonce"] + self._nonce
        return user

    def _check_binding(self, flag: str, name: str) -> None:
        if self._is_plus != bool(name):
            raise ScramError("channel binding and mechanism do not agree")
        if name and (self._binding is None or name != self._binding.name):
            raise ScramError("this channel binding was not offered")
        # RFC 5802 §6: "y" is "I would bind the channel but you do not offer it". We did; somebody took it out.
        if flag == "y" and self._binding is not None:
            raise ScramError("channel binding was offered and did not arrive: somebody is in between")

    def challenge(self, keys: ScramKeys) -> bytes:
        """The server-first-message."""
        self._keys = keys
        self._challenge = f"r={self._nonce},s={_base64(keys.salt)},i={keys.iterations}"
        return self._challenge.encode()

    def read_final(self, message: bytes) -> bytes:
        """The server-final-message, which proves to the client who we are. Raises ScramError if it proved nothing."""
        keys = self._keys
        assert keys is not None, "challenge() comes first"
        match = _CLIENT_FINAL.fullmatch(_text(message))
        if match is None:
            raise ScramError("malformed final message", is_malformed=True)
        if match["nonce"] != self._nonce:
            raise ScramError("wrong nonce")
        if not hmac.compare_digest(_decoded(match["binding"]), self._bound()):
            raise ScramError("wrong channel binding")
        signed = ",".join((self._first_bare, self._challenge, match["without_proof"])).encode()
        proof = _decoded(match["proof"])
        signature = _hmac(keys.stored_key, signed)
        if len(proof) != len(signature):
            raise ScramError("malformed proof", is_malformed=True)
        client_key = bytes(ours ^ theirs for ours, theirs in zip(signature, proof, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key):
            raise ScramError("wrong password")
        return f"v={_base64(_hmac(keys.server_key, signed))}".encode()

    def _bound(self) -> bytes:
        """RFC 5802 §7: cbind-input = gs2-header [ cbind-data ]."""
        data = self._binding.data if self._is_plus and self._binding is not None else b""
        return self._header.encode() + data


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _octets(text: str) -> bytes:
    """From base64; raises ValueError."""
    return base64.b64decode(text.encode(), validate=True)


def _decoded(text: str) -> bytes:
    """From base64 in a message."""
    try:
        return _octets(text)
    except binascii.Error:
        raise ScramError("malformed base64", is_malformed=True) from None


def _text(message: bytes) -> str:
    """The message as text; one that is not UTF-8 matches no grammar, as NUL does not."""
    try:
        return message.decode()
    except UnicodeDecodeError:
        return "\0"


def _unescaped(saslname: str) -> bytes:
    return saslname.replace("=2C", ",").replace("=3D", "=").encode()
