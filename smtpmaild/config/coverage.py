"""Which relay rules an earlier one hides: does everything that matches this rule match that one already?

Rules are compared one with one; several earlier rules that hide a later one only together are not found. A condition
that is not given matches everything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from smtpmaild.config.names import IpNetwork
from smtpmaild.config.rules import RelayRule

#: Stands among the recipients for a rule that takes every recipient.
_EVERY = ""


def hidden_rules(rules: Sequence[RelayRule]) -> Iterator[tuple[int, int]]:
    """Each rule that is never reached, with the first one that hides it, by their numbers.

    Rules are found by their recipients: lists of a thousand domains with a rule each are real.
    """
    by_recipient: dict[str, list[int]] = {}
    for number, rule in enumerate(rules):
        recipients = _recipients(rule)
        ways = [_EVERY, *(_covering(recipients[0]) if recipients else ())]
        candidates = sorted({index for way in ways for index in by_recipient.get(way, ())})
        hiding = next((index for index in candidates if hides(rules[index], rule)), None)
        if hiding is not None:
            yield number, hiding
        for recipient in set(recipients) or {_EVERY}:
            by_recipient.setdefault(recipient, []).append(number)


def hides(earlier: RelayRule, later: RelayRule) -> bool:
    """True if the later rule is never asked because of the earlier one."""
    return (
        earlier.authenticated in (None, _authenticated(later))
        and earlier.tls in (None, _tls(later))
        and _covers_words(earlier.users, later.users)
        and _covers_words(earlier.client_certificates, later.client_certificates)
        and _covers_addresses(earlier.client_names, later.client_names)
        and _covers_words(earlier.listeners, later.listeners)
        and _covers_addresses(_recipients(earlier), _recipients(later))
        and _covers_addresses(_senders(earlier), _senders(later))
        and _covers_networks(earlier.from_networks, later.from_networks)
    )


def _authenticated(rule: RelayRule) -> bool | None:
    """None: clients that have signed in and others."""
    return True if rule.users else rule.authenticated


def _tls(rule: RelayRule) -> bool | None:
    """None: connections with TLS and without."""
    return True if rule.client_certificates else rule.tls


def _recipients(rule: RelayRule) -> tuple[str, ...]:
    return (*rule.to_domains, *rule.to_addresses)


def _senders(rule: RelayRule) -> tuple[str, ...]:
    return (*rule.from_domains, *rule.from_addresses)


def _covers_words(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _covers_addresses(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    return not wide or (bool(narrow) and all(not set(wide).isdisjoint(_covering(inner)) for inner in narrow))


def _covering(pattern: str) -> Iterator[str]:
    """Every address and domain pattern that stands for all that this one does: itself, its domain, wildcards above."""
    yield pattern
    domain = pattern.rpartition("@")[2]
    if domain != pattern:
        yield domain
    parent = domain.removeprefix("*.").partition(".")[2]
    while parent:
        yield f"*.{parent}"
        parent = parent.partition(".")[2]


def _covers_networks(wide: Sequence[IpNetwork], narrow: Sequence[IpNetwork]) -> bool:
    if not wide:
        return True
    outers = joined(wide)
    return bool(narrow) and all(any(_contains(outer, inner) for outer in outers) for inner in narrow)


def joined(networks: Iterable[IpNetwork]) -> list[IpNetwork]:
    """Neighbours as one: two halves of a network cover the whole of it."""
    networks = list(networks)
    v4 = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    v6 = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6)]


def _contains(outer: IpNetwork, inner: IpNetwork) -> bool:
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)
