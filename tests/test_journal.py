"""What the log hears of a session; that each fact is there is tested with those who tell it (test_receiver.py)."""

from __future__ import annotations

import time

import pytest
from receiving import RecordingLog

from smtpmaild.envelope import Session
from smtpmaild.journal import Journal
from smtpmaild.metrics import Metrics
from smtpmaild.smtp.reply import Reply


def test_refusal_is_never_told_behind_the_end_of_its_session(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0006)
    log = RecordingLog()
    journal = Journal(session, log, Metrics(), 1000.0, is_recorded=True)
    journal.refused("RCPT", "x@example.net", Reply(550, "5.7.1", "Relaying denied"), None)
    journal.closed("", [])
    closed = log.only("session_closed")
    assert closed["trace"] == ([(1000.0, "")],)
