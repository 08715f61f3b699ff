"""The client's side of SASL: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 (RFC 5802, RFC 7677).

A mechanism says what to answer to a challenge and whether the server has proved what it has to. SCRAM never gives the
password away, and its server shows that it knows it too; PLAIN and LOGIN hand it over, so a caller uses them within
TLS only. Deriving a key takes time: `respond` is called in a thread.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from smtpmaild.auth.salted import derive
from smtpmaild.auth.saslprep import prepare

#: More than any server asks of its clients; who asks for more wants us to calculate, not to sign in.
MOST_ITERATIONS = 10_000_000
# RFC 7677 §4: "Announce a hash iteration-count of at least 4096".
FEWEST_ITERATIONS = 4096

# RFC 5802 §7: server-first-message = [reserved-mext ","] nonce "," salt "," iteration-count ["," extensions]
_SERVER_FIRST = re.compile(r"r=([!-+\--~]+),s=([A-Za-z0-9+/=]+),i=([1-9][0-9]{0,7})(?:,.*)?", re.DOTALL)
# server-final-message = (server-error / verifier) ["," extensions]
_SERVER_FINAL = re.compile(r"v=([A-Za-z0-9+/=]+)(?:,.*)?", re.DOTALL)


class SaslError(Exception):
    """The server broke the rules of the mechanism, or did not prove itself; the text holds nothing secret."""


class Mechanism(Protocol):
    """One exchange. Holds the password and shows it to nobody but the server."""

    @property
    def is_satisfied(self) -> bool:
        """The server has proved what this mechanism wants it to: only then a success is one."""
        ...

    def initial(self) -> bytes | None:
        """The initial response, None where the server speaks first."""
        ...

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a challenge; raises SaslError. May take a second."""
        ...


class Plain:
    """Both in one message: NUL user NUL password."""

    is_satisfied = True

    def __init__(self, user: str, password: str) -> None:
        self._message = f"\0{user}\0{password}".encode()

    def initial(self) -> bytes | None:
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        raise SaslError("a challenge to PLAIN, which has none")


class Login:
    """What the server asks for in turn; what exactly it writes into its questions differs and means nothing."""

    is_satisfied = True

    def __init__(self, user: str, password: str) -> None:
        self._answers = [password.encode(), user.encode()]

    def initial(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if not self._answers:
            raise SaslError("a third challenge to LOGIN")
        return self._answers.pop()


class ScramSha256:
    """Without channel binding: "n,,"."""

    def __init__(self, user: str, password: str, nonce: str = "") -> None:
        self.is_satisfied = False
        escaped = (prepare(user) or user).replace("=", "=3D").replace(",", "=2C")
        self._password = (prepare(password) or password).encode()
        self._nonce = nonce or secrets.token_urlsafe(18)
        self._first_bare = f"n={escaped},r={self._nonce}"
        self._signature = b""

    def initial(self) -> bytes | None:
        return f"n,,{self._first_bare}".encode()

    def respond(self, challenge: bytes) -> bytes:
        text = challenge.decode("utf-8", "replace")
        return self._verify(text) if self._signature else self._prove(text)

    def _prove(self, first: str) -> bytes:
        match = _SERVER_FIRST.fullmatch(first)
        if match is None or not match[1].startswith(self._nonce) or match[1] == self._nonce:
            raise SaslError("malformed first message of the server")
        iterations = int(match[3])
        if not FEWEST_ITERATIONS <= iterations <= MOST_ITERATIONS:
            raise SaslError(f"the server asks for {iterations} iterations")
        keys = derive(self._password, _decoded(match[2]), iterations)
        without_proof = f"c=biws,r={match[1]}"
        signed = f"{self._first_bare},{first},{without_proof}".encode()
        signature = hmac.digest(keys.stored_key, signed, "sha256")
        proof = bytes(ours ^ theirs for ours, theirs in zip(keys.client_key, signature, strict=True))
        self._signature = hmac.digest(keys.server_key, signed, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def _verify(self, final: str) -> bytes:
        match = _SERVER_FINAL.fullmatch(final)
        if match is None or not hmac.compare_digest(_decoded(match[1]), self._signature):
            raise SaslError("the server does not know the password")
        self.is_satisfied = True
        return b""


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode(), validate=True)
    except binascii.Error:
        raise SaslError("malformed base64") from None


#: In the order of preference.
MECHANISMS: Mapping[str, Callable[[str, str], Mechanism]] = {
    "SCRAM-SHA-256": ScramSha256,
    "PLAIN": Plain,
    "LOGIN": Login,
}


def choose(offered: Collection[str]) -> str | None:
    """The best mechanism that both sides know."""
    return next((name for name in MECHANISMS if name in offered), None)
