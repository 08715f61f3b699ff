"""Clients that talk before the greeting."""

from __future__ import annotations

from smtpmaild.envelope import Session
from smtpmaild.policy.early_talker import EarlyTalker


def test_who_waits_is_greeted(session: Session) -> None:
    assert EarlyTalker().connect(session) is None


def test_who_talks_early_is_refused(session: Session) -> None:
    session.talked_early = True
    verdict = EarlyTalker().connect(session)
    assert verdict is not None
    # RFC 2034 §4: no enhanced code in a greeting.
    assert (verdict.code, verdict.enhanced) == (554, "")
