"""The throttle with a clock of its own: who waits how long, who is turned away, who is not."""

from __future__ import annotations

import ipaddress

import pytest

from smtpmaild.auth.throttle import Admission, Throttle, ThrottleLimits
from smtpmaild.envelope import IpAddress

HOME = ipaddress.ip_address("192.0.2.1")
ATTACKER = ipaddress.ip_address("198.51.100.7")
REFUSED = Admission(is_refused=True)
#: One failure is forgotten each minute.
LIMITS = ThrottleLimits(failures=10, forgotten_after=600.0, first_delay=1.0, longest_delay=10.0)


def delays(throttle: Throttle, ip: IpAddress | None, account: str, attempts: int, now: float = 0.0) -> list[float]:
    return [round(throttle.begin(ip, account, now).delay, 1) for _ in range(attempts)]


def test_delay_grows_and_then_the_address_is_turned_away() -> None:
    throttle = Throttle(LIMITS)
    assert delays(throttle, ATTACKER, "alice", 10) == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]
    assert throttle.begin(ATTACKER, "alice", 0.0) == REFUSED
    assert throttle.begin(ATTACKER, "bob", 59.0) == REFUSED
    # after a minute there is room for one more, and no more
    assert not throttle.begin(ATTACKER, "alice", 61.0).is_refused
    assert throttle.begin(ATTACKER, "alice", 61.0) == REFUSED
    # after all of them are forgotten it is a stranger again
    assert throttle.begin(ATTACKER, "dora", 1300.0) == Admission(is_refused=False, delay=0.0)


def test_attempts_under_way_count() -> None:
    # a hundred connections at once do not see each other's results
    throttle = Throttle(LIMITS)
    admissions = [throttle.begin(ATTACKER, f"user{number}", 0.0) for number in range(100)]
    assert sum(not one.is_refused for one in admissions) == 10


def test_an_account_is_slowed_down_but_never_locked() -> None:
    throttle = Throttle(LIMITS)
    throttle.begin(HOME, "alice", 0.0)
    throttle.succeed(HOME, "alice", 0.0)
    for number in range(200):
        admission = throttle.begin(ipaddress.ip_address(0xC6336400 + number), "alice", 1.0)
        assert not admission.is_refused
    assert admission.delay == 10.0
    # who was here before does not wait; who was not waits once, for the longest delay
    assert throttle.begin(HOME, "alice", 2.0) == Admission(is_refused=False, delay=0.0)
    elsewhere = ipaddress.ip_address("203.0.113.9")
    assert throttle.begin(elsewhere, "alice", 2.0) == Admission(is_refused=False, delay=10.0)
    throttle.succeed(elsewhere, "alice", 3.0)
    assert throttle.begin(elsewhere, "alice", 3.0).delay == 0.0
    # soon after the attack all is as before
    assert throttle.begin(ipaddress.ip_address("203.0.113.77"), "alice", 1210.0).delay == 0.0


def test_known_address_is_no_licence_to_guess() -> None:
    throttle = Throttle(LIMITS)
    throttle.begin(HOME, "alice", 0.0)
    throttle.succeed(HOME, "alice", 0.0)
    assert delays(throttle, HOME, "alice", 10)[-1] == 10.0
    assert throttle.begin(HOME, "alice", 0.0) == REFUSED


def test_success_does_not_count() -> None:
    throttle = Throttle(LIMITS)
    for _ in range(1000):
        assert throttle.begin(HOME, "alice", 0.0) == Admission(is_refused=False, delay=0.0)
        throttle.succeed(HOME, "alice", 0.0)


def test_trouble_of_ours_does_not_count() -> None:
    throttle = Throttle(LIMITS)
    for _ in range(1000):
        assert throttle.begin(HOME, "alice", 0.0) == Admission(is_refused=False, delay=0.0)
        throttle.forgive(HOME, "alice", 0.0)


def test_success_leaves_the_failures_before_it() -> None:
    # else an attacker with an account of his own would sign in between his guesses
    throttle = Throttle(LIMITS)
    delays(throttle, ATTACKER, "alice", 5)
    throttle.begin(ATTACKER, "mallory", 0.0)
    throttle.succeed(ATTACKER, "mallory", 0.0)
    assert delays(throttle, ATTACKER, "alice", 1) == [8.0]


def test_one_customer_of_ipv6_is_one_address() -> None:
    throttle = Throttle(LIMITS)
    for number in range(10):
        throttle.begin(ipaddress.ip_address(f"2001:db8:1:2::{number:x}"), f"user{number}", 0.0)
    assert throttle.begin(ipaddress.ip_address("2001:db8:1:2:ffff::1"), "x", 0.0) == REFUSED
    assert not throttle.begin(ipaddress.ip_address("2001:db8:1:3::1"), "x", 0.0).is_refused


@pytest.mark.parametrize("ip", [None, ipaddress.ip_address("127.0.0.5"), ipaddress.ip_address("::1")])
def test_webmail_is_not_turned_away(ip: IpAddress | None) -> None:
    throttle = Throttle(LIMITS)
    for number in range(50):
        assert throttle.begin(ip, f"user{number}", 0.0) == Admission(is_refused=False, delay=0.0)
    # but whose password is guessed there is slowed down
    assert delays(throttle, ip, "alice", 4) == [0.0, 0.0, 1.0, 2.0]
    throttle.succeed(ip, "alice", 0.0)
    assert delays(throttle, ip, "alice", 1) == [2.0]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpmaild.auth.throttle._REMEMBERED", 100)
    throttle = Throttle(LIMITS)
    for number in range(1000):
        ip = ipaddress.ip_address(number + 1)
        throttle.begin(ip, f"user{number}", 0.0)
        throttle.begin(ip, f"good{number}", 0.0)
        throttle.succeed(ip, f"good{number}", 0.0)
    tables = (throttle._addresses, throttle._accounts, throttle._known)
    assert [len(table) for table in tables] == [100, 99, 100]  # a success takes one back
    for number in range(20):
        throttle.succeed(ipaddress.ip_address(number + 1), "alice", 0.0)
    assert len(throttle._known["alice"]) == 8
