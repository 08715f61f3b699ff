"""What the log hears of a session; that each fact is there is tested with those who tell it (test_receiver.py)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from receiving import RecordingLog

from smtpmaild.envelope import Session
from smtpmaild.journal import Journal
from smtpmaild.metrics import Metrics
from smtpmaild.smtp.command import VERBS
from smtpmaild.smtp.reply import Reply


def test_refusal_is_never_told_behind_the_end_of_its_session(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0006)
    told: list[tuple[str, Any]] = []
    journal = Journal(session, RecordingLog(), Metrics(), 1000.0, lambda event, _, trace: told.append((event, trace)))
    journal.refused("RCPT", "x@example.net", Reply(550, "5.7.1", "Relaying denied"), None)
    journal.closed("", [])
    assert told == [("session_closed", ([(1000.0, "")],))]


@pytest.mark.parametrize(
    ("line", "verb"),
    [(verb, verb) for verb in sorted(VERBS)]
    + [("etrn x.example", "ETRN"), ("  MAIL FROM:<x>", "MAIL"), ("TURN", "other"), ("R\u017fET", "other")]
    + [("", "other")],
)
def test_what_the_protocol_refuses_is_counted_by_its_verb(session: Session, line: str, verb: str) -> None:
    metrics = Metrics()
    journal = Journal(session, RecordingLog(), metrics, time.time())
    journal.closed("", [(line, Reply(503, "5.5.1", "Not now"))])
    assert metrics.refusals.names == {(verb, "503 5.5.1", ""): 1}
