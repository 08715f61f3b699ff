"""Accounts in a users file, behind the seam of authentication.

What takes time runs elsewhere, by the function `run`; passwords one after the other as it likes, and so many waiting
that the last of them is still worth an answer. No result is kept: a cache of right passwords would be one more place
that holds them, and one of wrong ones would tell by its speed what was tried before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from smtpmaild.auth import Authenticated, Challenge, ChannelBinding, Exchange, Failed, Step
from smtpmaild.auth.accounts import Verdict
from smtpmaild.auth.gate import MALFORMED, WRONG, Gate, Run
from smtpmaild.auth.passwords import Credentials, Login, Plain
from smtpmaild.auth.schemes import HashError
from smtpmaild.auth.scram import SCRAM, SCRAM_PLUS, ScramError, ScramKeys, ScramServer
from smtpmaild.auth.users_file import UsersFile
from smtpmaild.envelope import IpAddress, Session
from smtpmaild.smtp.reply import AUTH_UNAVAILABLE

#: The best one first.
MECHANISMS: Final = (SCRAM_PLUS, SCRAM, "PLAIN", "LOGIN")
#: Passwords that wait to be looked at, of all sessions: at 20 ms each on two processors that is ten seconds.
_MOST_WAITING = 1000


class Local:
    """An Authenticator. wanted: mechanisms that the listener wants; SCRAM is there when every account has its keys.

    make_nonce: 24 random printable characters without a comma.
    """

    def __init__(
        self, file: UsersFile, run: Run, gate: Gate, make_nonce: Callable[[], str], wanted: Sequence[str] = MECHANISMS
    ) -> None:
        self._file = file
        self._run = run
        self._gate = gate
        self._make_nonce = make_nonce
        self._waiting = 0
        serve_scram = file.current().serve_scram
        self._mechanisms = tuple(
            name for name in MECHANISMS if name in wanted and (serve_scram or name not in (SCRAM, SCRAM_PLUS))
        )

    @property
    def mechanisms(self) -> Sequence[str]:
        """As the seam says. Settled when the configuration is read: sessions are told them by EHLO."""
        return self._mechanisms

    def begin(self, mechanism: str, session: Session, binding: ChannelBinding | None) -> Exchange:
        """As the seam says."""
        ip = session.peer.ip
        if mechanism in (SCRAM, SCRAM_PLUS):
            # Only who was offered -PLUS can be told that it was taken out of the offer.
            bound = binding if SCRAM_PLUS in self._mechanisms else None
            return _Scram(self, ip, ScramServer(mechanism, bound, self._make_nonce()))
        return (Login if mechanism == "LOGIN" else Plain)(partial(self._check, ip))

    async def _check(self, ip: IpAddress | None, credentials: Credentials, is_over: Callable[[], bool]) -> Step:
        return await self._gate.attempt(ip, credentials.user, is_over, partial(self._verify, credentials, is_over))

    async def _verify(self, credentials: Credentials, is_over: Callable[[], bool]) -> Step:
        user = credentials.user

        def verify() -> Verdict:
            if is_over():
                return Verdict("", "the client went away")
            return self._file.current().verify(user, credentials.password)

        if self._waiting >= _MOST_WAITING:
            return Failed(AUTH_UNAVAILABLE, "too many passwords wait to be looked at", user)
        self._waiting += 1
        try:
            return step_of(await self._run(verify), user)
        except HashError as error:
            return Failed(AUTH_UNAVAILABLE, f"the hash cannot be computed: {error}", user)
        finally:
            self._waiting -= 1

    async def keys(self, user: str) -> tuple[Verdict, ScramKeys]:
        """Those to challenge a client with."""
        return await self._run(lambda: self._file.current().scram_keys(user))

    async def settle(self, ip: IpAddress | None, user: str, is_over: Callable[[], bool], step: Step) -> Step:
        """Put the end of an exchange through the gate."""

        async def settled() -> Step:
            return step

        return await self._gate.attempt(ip, user, is_over, settled)


def step_of(verdict: Verdict, user: str) -> Step:
    """What a verdict means for the exchange."""
    return Authenticated(verdict.user) if verdict.user else Failed(WRONG, verdict.cause, user)


class _Scram:
    """SCRAM: first message, challenge, proof, our proof, and the client's nod to it (RFC 5802 §5)."""

    def __init__(self, accounts: Local, ip: IpAddress | None, server: ScramServer) -> None:
        self._accounts = accounts
        self._ip = ip
        self._server = server
        self._user = ""
        self._verdict: Verdict | None = None
        self._settled: Authenticated | None = None
        self._is_over = False

    def respond(self, response: bytes | None) -> Step | Awaitable[Step]:
        """As the seam says."""
        if self._settled is not None:
            return Failed(MALFORMED, "something came after the proof", self._user) if response else self._settled
        if response is None:
            return Challenge(b"")
        if self._verdict is None:
            return self._first(response)
        return self._final(response, self._verdict)

    def cancel(self) -> None:
        """As the seam says."""
        self._is_over = True

    def _first(self, message: bytes) -> Step | Awaitable[Step]:
        try:
            self._user = self._server.read_first(message)
        except ScramError as error:
            return self._refused(error)
        return self._challenge()

    async def _challenge(self) -> Step:
        self._verdict, keys = await self._accounts.keys(self._user)
        return Challenge(self._server.challenge(keys))

    async def _final(self, message: bytes, verdict: Verdict) -> Step:
        proof = b""
        try:
            proof = self._server.read_final(message)
            step = step_of(verdict, self._user)
        except ScramError as error:
            step = self._refused(error, verdict.cause)
        step = await self._accounts.settle(self._ip, self._user, lambda: self._is_over, step)
        if not isinstance(step, Authenticated):
            return step
        self._settled = step
        return Challenge(proof)

    def _refused(self, error: ScramError, cause: str = "") -> Step:
        return Failed(MALFORMED if error.is_malformed else WRONG, cause or str(error), self._user)
