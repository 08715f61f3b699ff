"""How many at a time: growth, shrinking, death, the probe, the share."""

from __future__ import annotations

import pytest

from smtpmaild.delivery.pacing import FIRST_PAUSE, LONGEST_PAUSE, START, Pacing, is_trouble
from smtpmaild.smtp.reply import Reply

REFUSED = Reply(451, "4.4.1", "Connection refused")


def room(pacing: Pacing, now: float = 0.0, destination: str = "d") -> int:
    found = pacing.room(now)
    return found.of.get(destination, found.other)


def one(pacing: Pacing, is_success: bool | None, now: float = 0.0, destination: str = "d") -> None:
    pacing.began(destination)
    pacing.ended(destination, now, is_success=is_success)


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([REFUSED], True),
        ([Reply(421, "4.7.0", "Too busy")], True),
        ([Reply(452, "4.3.1", "Disk full")], True),
        ([Reply(450, "4.2.0", "Greylisted")], False),
        ([Reply(452, "4.2.2", "Mailbox full")], False),
        ([Reply(550, "5.4.4", "No such host")], False),
        ([REFUSED, Reply(250, "2.0.0", "Ok")], False),
        ([REFUSED, REFUSED], True),
    ],
)
def test_what_is_trouble_of_the_destination(replies: list[Reply], expected: bool) -> None:
    assert is_trouble(replies) is expected


def test_window_grows_with_success_up_to_its_limit() -> None:
    pacing = Pacing(100, 5)
    assert room(pacing) == START
    for expected in (3, 4, 5, 5):
        one(pacing, True)
        assert room(pacing) == expected
    pacing.began("d")
    assert room(pacing) == 4


def test_failure_halves_and_then_growth_is_slow() -> None:
    pacing = Pacing(100, 20)
    for _ in range(6):
        one(pacing, True)
    one(pacing, False)
    assert room(pacing) == 4
    for _ in range(4):
        one(pacing, True)
    assert room(pacing) == 4
    one(pacing, True)
    assert room(pacing) == 5


def test_dead_destination_gets_one_probe_after_each_pause() -> None:
    pacing = Pacing(100, 20)
    one(pacing, False)
    one(pacing, False)
    assert not pacing.is_dead("d"), "that may happen to everybody"
    one(pacing, False)
    assert pacing.is_dead("d")
    assert not pacing.is_dead("other")
    assert room(pacing, FIRST_PAUSE - 1) == 0
    assert room(pacing, FIRST_PAUSE) == 1
    pacing.began("d")
    assert room(pacing, FIRST_PAUSE) == 0, "one probe at a time"
    pacing.ended("d", FIRST_PAUSE, is_success=False)
    assert room(pacing, 3 * FIRST_PAUSE - 1) == 0
    assert room(pacing, 3 * FIRST_PAUSE) == 1
    for _ in range(9):
        one(pacing, False, now=1000.0)
    assert room(pacing, 1000.0 + LONGEST_PAUSE) == 1
    one(pacing, True)
    assert room(pacing, 1000.0) == START
    assert not pacing.is_dead("d")


def test_what_began_before_the_death_makes_the_pause_no_longer() -> None:
    pacing = Pacing(100, 20)
    for _ in range(5):
        pacing.began("d")
    for _ in range(5):
        pacing.ended("d", 0.0, is_success=False)
    # The last one was alone when it ended, as a probe would be.
    assert room(pacing, 2 * FIRST_PAUSE) == 1
    assert room(pacing, 2 * FIRST_PAUSE - 1) == 0


def test_success_forgets_the_troubles_before_it() -> None:
    pacing = Pacing(100, 20)
    for is_success in (False, False, True, False, False):
        one(pacing, is_success)
    assert not pacing.is_dead("d")
    assert room(pacing) == 1


def test_not_asked_is_neither_success_nor_failure() -> None:
    pacing = Pacing(100, 20)
    one(pacing, None)
    assert room(pacing) == START


def test_share_shrinks_with_the_destinations_at_work() -> None:
    pacing = Pacing(12, 20)
    for _ in range(12):
        one(pacing, True, destination="fast")
    assert room(pacing, destination="fast") == 12
    for number in range(6):
        pacing.began(str(number))
    assert room(pacing, destination="fast") == 2
    assert pacing.free == 6
    assert room(pacing, destination="0") == 1


def test_what_is_plain_is_forgotten() -> None:
    pacing = Pacing(100, 20)
    for number in range(100):
        one(pacing, None, destination=str(number))
    assert pacing.room(0.0).of == {}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpmaild.delivery.pacing._MOST_PACES", 10)
    pacing = Pacing(100, 20)
    for number in range(100):
        one(pacing, True, destination=str(number))
    assert len(pacing.room(0.0).of) <= 10
