"""AUTH of one session: carries the exchange between the client's lines and whoever knows the accounts (auth/)."""

from __future__ import annotations

import binascii
from collections.abc import Awaitable

from smtpmaild.auth import Authenticated, Authenticator, Challenge, ChannelBinding, Exchange, Failed, Step
from smtpmaild.envelope import Session
from smtpmaild.journal import Journal
from smtpmaild.smtp import reply as replies
from smtpmaild.smtp.reply import Reply


class SignIn:
    """binding: the channel binding of the session's TLS connection, where there is one."""

    __slots__ = ("_exchange", "_journal", "_session", "binding")

    def __init__(self, session: Session, journal: Journal) -> None:
        self.binding: ChannelBinding | None = None
        self._session = session
        self._journal = journal
        self._exchange: Exchange | None = None

    def begin(
        self, authenticator: Authenticator, mechanism: str, initial: bytes | None
    ) -> Reply | Awaitable[Reply | None]:
        """The first line: AUTH with its initial response, None if it had none."""
        self._exchange = authenticator.begin(mechanism, self._session, self.binding)
        return self._respond(self._exchange, initial)

    def respond(self, response: bytes) -> Reply | Awaitable[Reply | None]:
        """Each further line."""
        assert self._exchange is not None, "the protocol lets no response through before a challenge"
        return self._respond(self._exchange, response)

    def cancel(self) -> None:
        """The client gave up, or is gone."""
        if self._exchange is not None:
            self._exchange.cancel()
            self._exchange = None

    def _respond(self, exchange: Exchange, response: bytes | None) -> Reply | Awaitable[Reply | None]:
        step = exchange.respond(response)
        if isinstance(step, Challenge | Authenticated | Failed):
            return self._reply(step)
        return self._later(exchange, step)

    async def _later(self, exchange: Exchange, waiting: Awaitable[Step]) -> Reply | None:
        step = await waiting
        # A session that ended meanwhile has cancelled it, and nobody hears the reply.
        return self._reply(step) if self._exchange is exchange else None

    def _reply(self, step: Step) -> Reply:
        """What an exchange came to: another line of it, or its end."""
        if isinstance(step, Challenge):
            return Reply(334, "", binascii.b2a_base64(step.data, newline=False).decode("ascii"))
        self._exchange = None
        if isinstance(step, Authenticated):
            self._session.user = step.user
        self._journal.signed_in(step)
        return replies.AUTHENTICATED if isinstance(step, Authenticated) else step.reply
