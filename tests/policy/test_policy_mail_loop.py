"""Mail loops: Received fields are counted as fields, not as words."""

from __future__ import annotations

import pytest

from smtpmaild.content import Content
from smtpmaild.envelope import Transaction
from smtpmaild.policy.mail_loop import MailLoop, MailLoopOptions, count_received

RECEIVED = b"Received: from a.example by b.example;\r\n\tSun, 22 Nov 2026 15:00:00 +0000\r\n"


def message(received: int) -> Content:
    content = Content(keep_body=False)
    content.write(RECEIVED * received + b"Subject: round\r\n\r\n" + RECEIVED * 200)
    return content


@pytest.mark.parametrize(
    ("header", "count"),
    [
        (b"", 0),
        (RECEIVED, 1),
        (b"Subject: x\r\n" + RECEIVED * 3, 3),
        (b"RECEIVED: x\r\nreceived: y\r\n", 2),
        # Folded lines, other fields and values that look like it.
        (b"Subject: a\r\n received: x\r\n\treceived: y\r\n", 0),
        (b"X-Received: x\r\nReceived-SPF: pass\r\nSubject: Received: x\r\n", 0),
    ],
)
def test_counts_fields(header: bytes, count: int) -> None:
    assert count_received(header) == count


def test_more_than_the_limit_is_a_loop(transaction: Transaction) -> None:
    policy = MailLoop(MailLoopOptions(max_received=3))
    assert policy.message(transaction, message(3)) is None
    verdict = policy.message(transaction, message(4))
    assert verdict is not None
    assert (verdict.code, verdict.enhanced) == (554, "5.4.6")


def test_a_hundred_are_allowed_by_default(transaction: Transaction) -> None:
    policy = MailLoop(MailLoopOptions())
    assert policy.message(transaction, message(100)) is None
    assert policy.message(transaction, message(101)) is not None
