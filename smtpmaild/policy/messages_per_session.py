"""Ends a session after a number of messages, so that no client keeps a connection for ever.

The client is told 421 at its next MAIL, as Exim does (smtp_accept_max_per_connection): it goes on with a new
connection, at once and without counting a failure for the message.
"""

from __future__ import annotations

from pydantic import Field

from smtpmaild.envelope import Transaction
from smtpmaild.policy import Policy, Verdict
from smtpmaild.policy.options import PolicyOptions
from smtpmaild.smtp.reply import Reply

ENOUGH = Reply(421, "4.7.0", "Too many messages in this session, please connect again")


class MessagesPerSessionOptions(PolicyOptions):
    """End a session after so many messages (421 4.7.0)."""

    limit: int = Field(0, ge=0, description="How many messages a session may bring; 0: any number.")


class MessagesPerSession(Policy):
    name = "messages_per_session"

    def __init__(self, options: MessagesPerSessionOptions) -> None:
        self._limit = options.limit

    def mail(self, transaction: Transaction) -> Verdict:
        return ENOUGH if 0 < self._limit <= transaction.session.messages else None
