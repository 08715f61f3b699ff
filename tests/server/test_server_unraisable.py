"""What cannot be raised is logged, and not too often."""

from __future__ import annotations

import sys

import pytest
from house import Facts

from smtpmaild.server import unraisable


class Args:
    """What Python calls the hook with."""

    def __init__(self, error: BaseException) -> None:
        self.exc_type, self.exc_value, self.exc_traceback = type(error), error, None
        self.err_msg, self.object = None, b"\xff"


def test_each_kind_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    now = [100.0]
    monkeypatch.setattr(unraisable.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    facts = Facts()
    unraisable.log_unraisable(facts)
    for error in (ValueError("a"), ValueError("b"), TypeError("c")):
        sys.unraisablehook(Args(error))  # type: ignore[arg-type]
    now[0] += 1.0
    sys.unraisablehook(Args(ValueError("d")))  # type: ignore[arg-type]
    assert [one["cause"] for one in facts.named("exception_ignored")] == [
        "ValueError: a", "TypeError: c", "ValueError: d",
    ]  # fmt: skip
    assert facts.all[0][1]["about"] == "b'\\xff'"
