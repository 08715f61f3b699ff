"""Signing in where no account is real: every login is right, or those are that a test has named.

Clients pick a mechanism by themselves, so those are offered that need no secret of ours: PLAIN, LOGIN, CRAM-MD5
(RFC 2195) and the two of bearer tokens, XOAUTH2 and OAUTHBEARER (RFC 7628). A bearer token counts as the password.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from smtpmaild import queue_id
from smtpmaild.auth import Authenticated, Challenge, ChannelBinding, Exchange, Failed, Step
from smtpmaild.auth.gate import MALFORMED, WRONG
from smtpmaild.auth.passwords import Credentials, Login, Plain
from smtpmaild.dev.failures import Failures
from smtpmaild.envelope import Session
from smtpmaild.smtp.reply import Reply

_MALFORMED: Final = Failed(MALFORMED, "malformed credentials")
#: True if it is right for the password of the account.
Proof = Callable[[str], bool]


class Logins:
    """An Authenticator. accounts: user -> password; None: whoever it is, with whatever password."""

    mechanisms = ("PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER")

    def __init__(self, failures: Failures, accounts: Mapping[str, str] | None = None) -> None:
        self._failures = failures
        self._accounts = accounts

    def begin(self, mechanism: str, session: Session, binding: ChannelBinding | None) -> Exchange:
        """As the seam says."""

        async def settle(user: str, proof: Proof) -> Step:
            verdict = self._failures.at("auth", session)
            if verdict is not None:
                reply = verdict if isinstance(verdict, Reply) else await verdict
                assert reply is not None, "a failure that happens has a reply"
                return Failed(reply, "chosen failure", user)
            return Authenticated(user) if self._knows(user, proof) else Failed(WRONG, "wrong user or password", user)

        async def check(credentials: Credentials, _is_over: Callable[[], bool]) -> Step:
            return await settle(credentials.user, lambda password: password == credentials.password)

        if mechanism == "CRAM-MD5":
            return _CramMd5(settle, session.hostname)
        if mechanism in ("XOAUTH2", "OAUTHBEARER"):
            return _Bearer(settle)
        return (Login if mechanism == "LOGIN" else Plain)(check)

    def _knows(self, user: str, proof: Proof) -> bool:
        if self._accounts is None:
            return True
        return user in self._accounts and proof(self._accounts[user])


Settle = Callable[[str, Proof], Awaitable[Step]]


class _CramMd5:
    """A challenge, and its HMAC by the password."""

    def __init__(self, settle: Settle, hostname: str) -> None:
        self._settle = settle
        self._challenge = f"<{queue_id.make()}@{hostname}>".encode()

    def respond(self, response: bytes | None) -> Step | Awaitable[Step]:
        """As the seam says."""
        if response is None:
            return Challenge(self._challenge)
        user, _, digest = response.decode("utf-8", "replace").rpartition(" ")
        if not user:
            return _MALFORMED
        return self._settle(user, lambda password: hmac.compare_digest(self._digest(password), digest.encode()))

    def _digest(self, password: str) -> bytes:
        return hmac.new(password.encode(), self._challenge, "md5").hexdigest().encode()

    def cancel(self) -> None:
        """As the seam says."""


class _Bearer:
    """user=...^Aauth=Bearer TOKEN^A^A, or n,a=...,^A...; one message."""

    def __init__(self, settle: Settle) -> None:
        self._settle = settle

    def respond(self, response: bytes | None) -> Step | Awaitable[Step]:
        """As the seam says."""
        if response is None:
            return Challenge(b"")
        text = response.decode("utf-8", "replace")
        fields = dict(part.partition("=")[::2] for part in text.split("\1"))
        header = next((part[2:] for part in text.split("\1")[0].split(",") if part[:2] == "a="), "")
        user = fields.get("user") or header
        scheme, _, token = fields.get("auth", "").partition(" ")
        if not user or scheme.lower() != "bearer":
            return _MALFORMED
        return self._settle(user, lambda password: password == token)

    def cancel(self) -> None:
        """As the seam says."""
