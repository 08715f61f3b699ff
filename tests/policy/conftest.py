"""A session and a transaction for policies to look at."""

from __future__ import annotations

import pytest

from smtpmaild.envelope import Envelope, Peer, Session, Transaction


@pytest.fixture
def session() -> Session:
    return Session("S1", "mx", "mx.example.com", Peer("192.0.2.1", 4711), hello="client.example")


@pytest.fixture
def transaction(session: Session) -> Transaction:
    envelope = Envelope("Q1", "S1", "mx", "mx.example.com", session.peer, session.hello, "SMTP", 0.0)
    return Transaction(session, envelope)
