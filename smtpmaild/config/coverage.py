"""Which relay rules an earlier one hides: does everything that matches this rule match that one already?

Rules are compared one with one; several earlier rules that hide a later one only together are not found. A condition
that is not given matches everything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from smtpmaild.config.names import IpNetwork
from smtpmaild.config.rules import RelayRule


def hides(earlier: RelayRule, later: RelayRule) -> bool:
    """True if the later rule is never asked because of the earlier one."""
    return (
        (not earlier.authenticated or later.authenticated)
        and _covers_words(earlier.listeners, later.listeners)
        and _covers_networks(earlier.from_networks, later.from_networks)
        and _covers_addresses(
            (*earlier.from_domains, *earlier.from_addresses), (*later.from_domains, *later.from_addresses)
        )
        and _covers_addresses((*earlier.to_domains, *earlier.to_addresses), (*later.to_domains, *later.to_addresses))
    )


def _covers_words(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _covers_networks(wide: Sequence[IpNetwork], narrow: Sequence[IpNetwork]) -> bool:
    if not wide:
        return True
    joined = _joined(wide)
    return bool(narrow) and all(any(_contains(outer, inner) for outer in joined) for inner in narrow)


def _joined(networks: Iterable[IpNetwork]) -> list[IpNetwork]:
    """Neighbours as one: two halves of a network cover the whole of it."""
    networks = list(networks)
    v4 = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    v6 = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6)]


def _contains(outer: IpNetwork, inner: IpNetwork) -> bool:
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _covers_addresses(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    return not wide or (bool(narrow) and all(any(pattern_covers(outer, inner) for outer in wide) for inner in narrow))


def pattern_covers(outer: str, inner: str) -> bool:
    """True if a domain pattern or address stands for everything that another one does."""
    if outer == inner:
        return True
    if "@" in outer or outer.startswith("<"):
        return False
    domain = inner.rpartition("@")[2]
    if outer.startswith("*."):
        return domain.removeprefix("*").endswith(outer[1:])
    return domain == outer
