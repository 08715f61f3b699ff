"""How fast passwords may be guessed: failures are counted by address and by account, and slow down what follows.

An attempt counts as a failure from the moment it begins, and not any more when it succeeds: a hundred at once are a
hundred. Failures are forgotten one by one, so that `failures` of them are forgotten after `forgotten_after`.

- From one address (of IPv6: one /64) each further attempt waits longer than the one before, twice as long each time up
  to `longest_delay`; at `failures` failures the address is turned away until some are forgotten.
- For one account the attempts of all addresses together wait in the same way, but are never turned away, and
  addresses from which this account has signed in before do not wait: who guesses from a thousand addresses is slowed
  down, but locks nobody out. The owner comes in as ever from where she was before, and after one delay from elsewhere.

Addresses in `exempt` (a webmail on the same host) are not counted: all users come from there. What is remembered is
bounded, in each worker process for itself, and gone with it. Knows no clock: `now` is brought by who calls.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from math import exp2
from typing import TypeVar

from smtpmaild.envelope import IpAddress, IpNetwork

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

LOOPBACK: tuple[IpNetwork, ...] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))
#: Addresses, and accounts, that are remembered: some megabytes. Who is not heard of for longest goes first.
_REMEMBERED = 10_000
#: Addresses that an account is known from: the office, home, a phone or two.
_KNOWN_ADDRESSES = 8
_IPV6_PREFIX = 64  # what one customer has


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    """failures: from one address until it is turned away.  forgotten_after: seconds until so many are forgotten.
    first_delay: seconds, after the second failure.  longest_delay: what it grows to.  exempt: who is not counted."""

    failures: int = 10
    forgotten_after: float = 600.0
    first_delay: float = 1.0
    longest_delay: float = 10.0
    exempt: tuple[IpNetwork, ...] = LOOPBACK


@dataclass(frozen=True, slots=True)
class Admission:
    """What an attempt has to expect. delay: seconds before its password is looked at."""

    is_refused: bool
    delay: float = 0.0


class _Recent(OrderedDict[Key, Value]):
    """A dictionary of bounded size that forgets what was not touched for longest."""

    def put(self, key: Key, value: Value) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > _REMEMBERED:
            self.popitem(last=False)


class Throttle:
    """The counters of one process. Used in one thread."""

    def __init__(self, limits: ThrottleLimits) -> None:
        self._limits = limits
        self._seconds_each = limits.forgotten_after / limits.failures
        # When everything will be forgotten; the failures are that time, divided by the seconds for each. One number
        # says it all, and one of the past says nothing.
        self._addresses: _Recent[str, float] = _Recent()
        self._accounts: _Recent[str, float] = _Recent()
        self._known: _Recent[str, tuple[str, ...]] = _Recent()

    def begin(self, ip: IpAddress | None, account: str, now: float) -> Admission:
        """An attempt begins; it counts as failed. account: as the client says, in the one form of its name."""
        address = self._address(ip)
        by_address = self._failures(self._addresses, address, now) if address else 0.0
        if by_address > self._limits.failures - 1:  # no room for one more
            return Admission(is_refused=True)
        by_account = 0 if address in self._known.get(account, ()) else self._failures(self._accounts, account, now)
        if address:
            self._count(self._addresses, address, now)
        self._count(self._accounts, account, now)
        return Admission(is_refused=False, delay=max(self._delay(by_address), self._delay(by_account)))

    def succeed(self, ip: IpAddress | None, account: str, now: float) -> None:
        """It was the right password: the attempt does not count, and the account is known from here."""
        self.forgive(ip, account, now)
        address = self._address(ip)
        if address:
            others = [other for other in self._known.get(account, ()) if other != address]
            self._known.put(account, (address, *others)[:_KNOWN_ADDRESSES])

    def forgive(self, ip: IpAddress | None, account: str, now: float) -> None:
        """Nothing can be said of the password, for a reason of ours: the attempt does not count."""
        address = self._address(ip)
        if address:
            self._count(self._addresses, address, now, -1)
        self._count(self._accounts, account, now, -1)

    def _address(self, ip: IpAddress | None) -> str:
        if ip is None or any(ip in network for network in self._limits.exempt):
            return ""
        if isinstance(ip, ipaddress.IPv6Address):
            return str(ipaddress.IPv6Network((ip, _IPV6_PREFIX), strict=False))
        return str(ip)

    def _failures(self, counters: _Recent[str, float], key: str, now: float) -> float:
        return max(0.0, counters.get(key, now) - now) / self._seconds_each

    def _count(self, counters: _Recent[str, float], key: str, now: float, failures: int = 1) -> None:
        end = max(counters.get(key, now), now) + failures * self._seconds_each
        if end > now:
            # No more than can be forgotten in twice the time: an account under attack is as before soon after it.
            counters.put(key, min(end, now + 2 * self._limits.forgotten_after))
        else:
            counters.pop(key, None)

    def _delay(self, failures: float) -> float:
        """The first failure is a slip of the finger; what follows doubles."""
        if failures <= 1:
            return 0.0
        return min(self._limits.longest_delay, self._limits.first_delay * exp2(min(failures - 2, 64.0)))
