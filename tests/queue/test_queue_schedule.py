"""When mail is tried again: growing delays, jitter, the last try, the warning."""

from __future__ import annotations

import pytest

from smtpmaild.queue.schedule import DAY, HOUR, Schedule

SCHEDULE = Schedule(warn_after=4 * HOUR)


@pytest.mark.parametrize(
    ("attempts", "delay"),
    [(0, 300), (1, 600), (2, 1200), (5, 9600), (6, 14400), (7, 14400), (100, 14400), (5000, 14400)],
)
def test_delays_grow_from_5_minutes_to_4_hours(attempts: int, delay: float) -> None:
    assert SCHEDULE.next_attempt(1000.0, 0.0, attempts, 0.5) == pytest.approx(1000.0 + delay)


def test_chance_makes_a_tenth_more_or_less() -> None:
    assert SCHEDULE.next_attempt(0.0, 0.0, 0, 0.0) == pytest.approx(270.0)
    assert SCHEDULE.next_attempt(0.0, 0.0, 0, 1.0) == pytest.approx(330.0)


def test_last_attempt_is_at_the_very_end() -> None:
    now = 5 * DAY - 60
    assert SCHEDULE.next_attempt(now, 0.0, 9, 0.5) == 5 * DAY
    assert not SCHEDULE.is_over(now, 0.0)
    assert SCHEDULE.is_over(5 * DAY, 0.0)
    assert SCHEDULE.next_attempt(6 * DAY, 0.0, 9, 0.5) == 6 * DAY + 1


@pytest.mark.parametrize(
    ("now", "attempted_at", "due"),
    [
        (4 * HOUR - 1, 0.0, False),  # not late yet
        (4 * HOUR, 0.0, True),
        (5 * HOUR, 3 * HOUR, True),  # the first attempt since it became late
        (8 * HOUR, 4 * HOUR, False),  # told at the one before
    ],
)
def test_warning_is_due_once(now: float, attempted_at: float, due: bool) -> None:
    assert SCHEDULE.is_warning_due(now, 0.0, attempted_at) is due
    assert not Schedule().is_warning_due(now, 0.0, attempted_at)


def test_life_of_a_message_that_nobody_takes() -> None:
    now, attempts = 0.0, 0
    while not SCHEDULE.is_over(now, 0.0):
        now = SCHEDULE.next_attempt(now, 0.0, attempts, 0.5)
        attempts += 1
    assert now == 5 * DAY
    assert 30 < attempts < 40
