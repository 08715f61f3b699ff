"""Refuses a message that has passed through so many hosts that it must be running in a circle (RFC 5321 §6.3)."""

from __future__ import annotations

from pydantic import Field

from smtpmaild.content import Content
from smtpmaild.envelope import Transaction
from smtpmaild.policy import Policy, Verdict
from smtpmaild.policy.options import PolicyOptions
from smtpmaild.smtp.reply import Reply

REFUSED = Reply(554, "5.4.6", "Too many Received fields: the message is in a mail loop")


class MailLoopOptions(PolicyOptions):
    """Refuse a message that runs in a circle (554 5.4.6)."""

    # RFC 5321 §6.3: "the threshold SHOULD be at least 100". Postfix has 50, Exim 30.
    max_received: int = Field(100, ge=1, description="The most Received fields that a message may have.")


class MailLoop(Policy):
    name = "mail_loop"

    def __init__(self, options: MailLoopOptions) -> None:
        self._max_received = options.max_received

    def message(self, transaction: Transaction, content: Content) -> Verdict:
        return REFUSED if count_received(content.header) > self._max_received else None


def count_received(header: bytes) -> int:
    """The Received fields of a header. A folded line begins with a blank, so every one counts once."""
    # Seven times as fast as a regular expression that ignores case, and asked of every message.
    lower = header.lower()
    return lower.count(b"\nreceived:") + lower.startswith(b"received:")
