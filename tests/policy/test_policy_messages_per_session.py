"""The number of messages in one session."""

from __future__ import annotations

from smtpmaild.envelope import Session, Transaction
from smtpmaild.policy.messages_per_session import MessagesPerSession, MessagesPerSessionOptions


def test_the_next_message_ends_the_session(session: Session, transaction: Transaction) -> None:
    policy = MessagesPerSession(MessagesPerSessionOptions(limit=2))
    session.messages = 1
    assert policy.mail(transaction) is None
    session.messages = 2
    verdict = policy.mail(transaction)
    assert verdict is not None
    assert (verdict.code, verdict.enhanced) == (421, "4.7.0")


def test_any_number_by_default(session: Session, transaction: Transaction) -> None:
    session.messages = 1_000_000
    assert MessagesPerSession(MessagesPerSessionOptions()).mail(transaction) is None
