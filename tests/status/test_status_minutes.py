"""The ring of minutes: differences, kept over those who count."""

from __future__ import annotations

import pytest

from smtpmaild.metrics import Metrics
from smtpmaild.server.sums import Ledger
from smtpmaild.status import minutes
from smtpmaild.status.minutes import COLUMNS, Minutes


def counted(messages: int, refused: int = 0) -> Metrics:
    return Metrics(messages_accepted=messages, recipients_refused=refused, messages_refused=min(refused, 1))


def column(ring: Minutes, name: str) -> list[tuple[int, int]]:
    place = COLUMNS.index(name) + 1
    return [(row[0], row[place]) for row in ring.rows]


def test_rows_are_differences() -> None:
    ring = Minutes(Ledger())
    ring.note(600.0, counted(100))  # what was before nobody saw
    ring.note(610.0, counted(103))
    ring.note(662.0, counted(105, refused=2))
    ring.note(790.0, counted(106, refused=2))
    assert column(ring, "accepted") == [(10, 5), (11, 1), (13, 0)]
    assert column(ring, "refused") == [(10, 3), (11, 0), (13, 0)]


def test_deliveries_are_summed_over_routes() -> None:
    ring, metrics = Minutes(Ledger()), Metrics()
    ring.note(0.0, metrics)
    for route, result in (("a", "delivered"), ("b", "delivered"), ("a", "bounced"), ("a", "expired")):
        metrics.deliveries.count(route, result)
    ring.note(1.0, metrics)
    assert (column(ring, "delivered"), column(ring, "failed")) == ([(0, 2)], [(0, 2)])


def test_the_next_one_goes_on() -> None:
    ledger = Ledger()
    ring = Minutes(ledger)
    ring.note(0.0, counted(1))
    ring.note(61.0, counted(5))
    after = Minutes(ledger)
    after.note(70.0, counted(9))
    assert column(after, "accepted") == [(0, 4), (1, 4)]


def test_a_day_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minutes, "MOST_ROWS", 3)
    ring = Minutes(Ledger())
    for minute in range(6):
        ring.note(minute * 60.0, counted(minute))
    assert [row[0] for row in ring.rows] == [3, 4, 5]


def test_the_largest_day_fits() -> None:
    ledger = Ledger()
    ring = Minutes(ledger)
    for minute in range(minutes.MOST_ROWS):
        ring.rows.append([minute, *([10**12] * len(COLUMNS))])
    ring.save()
    assert len(Minutes(ledger).rows) == minutes.MOST_ROWS
