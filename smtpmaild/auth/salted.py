"""What SCRAM-SHA-256 makes of a password (RFC 5802 §3): the keys that both sides of it work with."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SaltedKeys:
    """client_key: proves the password; the client's alone.  stored_key: knows such a proof.  server_key: proves that
    the server has the keys."""

    client_key: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


def derive(password: bytes, salt: bytes, iterations: int) -> SaltedKeys:
    """Takes the time that guessing shall take."""
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return SaltedKeys(client_key, hashlib.sha256(client_key).digest(), server_key)
