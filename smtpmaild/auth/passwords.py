"""The mechanisms that send the password itself: PLAIN (RFC 4616) and LOGIN, which never became an RFC.

An exchange reads what the client sends and hands user and password to `check`, which knows the accounts. The password
is held no longer than that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from smtpmaild.auth import Challenge, Failed, Step
from smtpmaild.auth.gate import MALFORMED, WRONG
from smtpmaild.auth.saslprep import prepare_bytes

_MALFORMED: Final = Failed(MALFORMED, "malformed credentials")
#: What clients have come to expect, and read as prompts for people.
_USERNAME: Final = Challenge(b"Username:")
_PASSWORD: Final = Challenge(b"Password:")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a client says it is, and how it proves it; both prepared (RFC 4013)."""

    user: str
    password: str = field(repr=False)


#: (credentials, is the client gone?) -> Authenticated or Failed.
Check = Callable[[Credentials, Callable[[], bool]], Awaitable[Step]]


class Plain:
    """One message: [authorization identity] NUL user NUL password."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._is_over = False

    def respond(self, response: bytes | None) -> Step | Awaitable[Step]:
        """As the seam says."""
        if response is None:
            return Challenge(b"")
        parts = response.split(b"\0")
        if len(parts) != 3:
            return _MALFORMED
        user, password = prepare_bytes(parts[1]), prepare_bytes(parts[2])
        if not (user and password):
            return _MALFORMED
        # RFC 4616 §2: who may act as somebody else is the server's business. Here nobody may.
        if parts[0] and prepare_bytes(parts[0]) != user:
            return Failed(WRONG, "asks to act as another user", user)
        return self._check(Credentials(user, password), lambda: self._is_over)

    def cancel(self) -> None:
        """As the seam says."""
        self._is_over = True


class Login:
    """Two messages, each after a prompt; the user may come with the command."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._user = ""
        self._is_over = False

    def respond(self, response: bytes | None) -> Step | Awaitable[Step]:
        """As the seam says."""
        if response is None:
            return _USERNAME
        text = prepare_bytes(response)
        if not text:
            return _MALFORMED
        if not self._user:
            self._user = text
            return _PASSWORD
        return self._check(Credentials(self._user, text), lambda: self._is_over)

    def cancel(self) -> None:
        """As the seam says."""
        self._is_over = True
