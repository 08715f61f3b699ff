"""Accounts that Dovecot has, behind the seam of authentication.

PLAIN and LOGIN are read here, so that the throttle knows whose password is guessed, and are handed on as PLAIN; SCRAM
is handed on line by line. What Dovecot cannot say now is 454.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol

from smtpmaild.auth import Authenticated, Challenge, ChannelBinding, Exchange, Failed, Step
from smtpmaild.auth.dovecot import LONGEST_RESPONSE, Accepted, Answer, Continue, parameters_of
from smtpmaild.auth.gate import MALFORMED, WRONG, Gate
from smtpmaild.auth.passwords import Credentials, Login, Plain
from smtpmaild.auth.scram import SCRAM, ScramError, ScramServer
from smtpmaild.envelope import Session
from smtpmaild.smtp.reply import AUTH_UNAVAILABLE

#: What we carry -> what Dovecot must offer for it. Its protocol has no channel binding, hence no SCRAM-SHA-256-PLUS.
CARRIED: Final = {SCRAM: SCRAM, "PLAIN": "PLAIN", "LOGIN": "PLAIN"}


class Unavailable(Exception):  # noqa: N818  it is what is wrong with Dovecot
    """Dovecot does not answer; the text says why."""


class Request(Protocol):
    """One request under way."""

    async def proceed(self, data: bytes) -> Answer:
        """Hand on the client's answer to a Continue. Raises Unavailable."""
        ...

    def cancel(self) -> None:
        """Forget it; nothing happens if it was answered for good."""
        ...


class Dovecot(Protocol):
    """Whoever has the connection."""

    async def ask(self, mechanism: str, parameters: Sequence[str], initial: bytes | None) -> tuple[Request, Answer]:
        """Begin a request. Raises Unavailable."""
        ...


class Relayed:
    """An Authenticator. offered: by Dovecot.  wanted: by the listener."""

    def __init__(self, dovecot: Dovecot, gate: Gate, offered: Sequence[str], wanted: Sequence[str]) -> None:
        self._dovecot = dovecot
        self._gate = gate
        self._mechanisms = tuple(name for name, needed in CARRIED.items() if name in wanted and needed in offered)

    @property
    def mechanisms(self) -> Sequence[str]:
        """As the seam says. Settled when the configuration is read."""
        return self._mechanisms

    def begin(self, mechanism: str, session: Session, binding: ChannelBinding | None) -> Exchange:
        """As the seam says."""
        if mechanism == SCRAM:
            return _Scram(self._dovecot, self._gate, session)
        return (Login if mechanism == "LOGIN" else Plain)(partial(self._check, session))

    async def _check(self, session: Session, credentials: Credentials, is_over: Callable[[], bool]) -> Step:
        async def verify() -> Step:
            message = f"\0{credentials.user}\0{credentials.password}".encode()
            try:
                _, answer = await self._dovecot.ask("PLAIN", parameters_of(session), message)
            except Unavailable as error:
                return Failed(AUTH_UNAVAILABLE, str(error), credentials.user)
            return step_of(answer, credentials.user)

        return await self._gate.attempt(session.peer.ip, credentials.user, is_over, verify)


def step_of(answer: Answer, user: str) -> Step:
    """What an answer means for the exchange."""
    if isinstance(answer, Continue):
        return Challenge(answer.data)
    if isinstance(answer, Accepted):
        return Authenticated(answer.user)
    return Failed(AUTH_UNAVAILABLE if answer.is_temporary else WRONG, answer.cause, answer.user or user)


class _Scram:
    """SCRAM between client and Dovecot. Its second message proves the password, or not: that one goes by the gate."""

    def __init__(self, dovecot: Dovecot, gate: Gate, session: Session) -> None:
        self._dovecot = dovecot
        self._gate = gate
        self._session = session
        self._user = ""
        self._request: Request | None = None
        self._is_proved = False
        self._is_over = False

    def respond(self, response: bytes | None) -> Step | Awaitable[Step]:
        """As the seam says."""
        if response is None:
            return Challenge(b"")
        if self._request is None:
            return self._first(response)
        if len(response) > LONGEST_RESPONSE:
            return Failed(MALFORMED, "too long for Dovecot", self._user)
        return self._rest(self._request, response)

    def cancel(self) -> None:
        """As the seam says."""
        self._is_over = True
        if self._request is not None:
            self._request.cancel()

    def _first(self, message: bytes) -> Step | Awaitable[Step]:
        try:
            self._user = ScramServer(SCRAM, None, "x").read_first(message)
        except ScramError as error:
            return Failed(MALFORMED if error.is_malformed else WRONG, str(error))
        if len(message) > LONGEST_RESPONSE:
            return Failed(MALFORMED, "too long for Dovecot", self._user)
        return self._ask(message)

    async def _ask(self, message: bytes) -> Step:
        try:
            self._request, answer = await self._dovecot.ask(SCRAM, parameters_of(self._session), message)
        except Unavailable as error:
            return Failed(AUTH_UNAVAILABLE, str(error), self._user)
        return step_of(answer, self._user)

    async def _rest(self, request: Request, message: bytes) -> Step:
        async def proceed() -> Step:
            try:
                return step_of(await request.proceed(message), self._user)
            except Unavailable as error:
                return Failed(AUTH_UNAVAILABLE, str(error), self._user)

        if self._is_proved:  # the client's nod to Dovecot's proof
            return await proceed()
        self._is_proved = True
        step = await self._gate.attempt(self._session.peer.ip, self._user, lambda: self._is_over, proceed)
        if isinstance(step, Failed):
            request.cancel()  # the gate may have let nobody through
        return step
