"""Times and urgency of MAIL: DELIVERBY, FUTURERELEASE, MT-PRIORITY."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from smtpmaild.smtp import timing

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, ""),
        ({"BY": "120;R"}, ""),
        ({"BY": "0;R"}, "501 5.5.4"),  # RFC 2852 §4: with R it is to be positive
        ({"BY": "-5;rt"}, "501 5.5.4"),
        ({"BY": "-5;N"}, ""),  # late already, and somebody has said so
        ({"BY": "59;R"}, "555 5.5.4"),  # below what EHLO says: 55z (RFC 2852 §3), 555 (§4)
        ({"BY": "59;NT"}, ""),
        ({"HOLDFOR": "3600"}, ""),
        ({"HOLDFOR": "3601"}, "501 5.5.4"),
        ({"HOLDUNTIL": "2023-11-14T23:13:20Z"}, ""),
        ({"HOLDUNTIL": "2023-11-15T00:13:20+01:00"}, ""),
        ({"HOLDUNTIL": "2023-11-14t23:13:21z"}, "501 5.5.4"),  # later than an hour from now
        ({"HOLDUNTIL": "2023-11-14T22:13:19Z"}, "501 5.5.4"),  # has passed
        ({"HOLDUNTIL": "2023-13-14T22:13:19Z"}, "501 5.5.4"),  # no month
        ({"HOLDFOR": "1", "HOLDUNTIL": "2023-11-14T23:00:00Z"}, "501 5.5.4"),
        ({"HOLDFOR": "600", "BY": "600;R"}, "501 5.5.4"),  # would go back unsent
        ({"HOLDFOR": "600", "BY": "601;R"}, ""),
        ({"HOLDFOR": "600", "BY": "60;N"}, "501 5.5.4"),  # RFC 4865 §5.2.2 asks for no mode
        ({"HOLDFOR": "600", "BY": "601;N"}, ""),
        ({"HOLDUNTIL": "2023-11-14T22:59:60.1234567Z"}, ""),  # RFC 3339 §5.7 has leap seconds
        ({"HOLDUNTIL": "2023-11-14T22:59:61Z"}, "501 5.5.4"),
    ],
)
def test_refusals(parameters: Mapping[str, str], code: str) -> None:
    refusal = timing.refusal(parameters, NOW, least_by=60, longest_hold=3600)
    assert (f"{refusal.code} {refusal.enhanced}" if refusal else "") == code


def test_deliver_by() -> None:
    assert timing.deliver_by({}) is None
    by = timing.deliver_by({"BY": "+120;rT"})
    assert by == timing.DeliverBy(120, is_returned=True, is_traced=True)
    assert by.passed_on(20.9) == "100;RT"
    late = timing.deliver_by({"BY": "-999999990;N"})
    assert late is not None
    assert late.passed_on(60) == "-999999999;N"  # no more digits than RFC 2852 gives it


def test_release() -> None:
    assert timing.release_at({}, NOW) == 0.0
    assert timing.release_at({"HOLDFOR": "60"}, NOW) == NOW + 60
    assert timing.release_at({"HOLDUNTIL": "2023-11-14T22:14:20Z"}, 0.0) == NOW + 60
    assert timing.release_at({"HOLDUNTIL": "2023-11-14T22:13:60Z"}, 0.0) == NOW + 40
    assert timing.date_text(NOW + 0.7) == "2023-11-14T22:13:20Z"


def test_priority() -> None:
    assert timing.priority({}) == 0
    assert timing.priority({"MT-PRIORITY": "-9"}) == -9
