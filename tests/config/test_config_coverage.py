"""Hidden rules against a slow reference: every envelope of a small world that a hidden rule matches."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.config.coverage import hidden_rules, hides
from smtpmaild.config.rules import RelayRule


@dataclass(frozen=True)
class Mail:
    client: str
    listener: str
    sender: str
    recipient: str
    known: Known


@dataclass(frozen=True)
class Known:
    """What else we know of the client."""

    user: str = ""
    tls: bool = False
    certificate: str = ""
    name: str = ""


CLIENTS = ["10.0.0.1", "10.128.0.1", "10.128.64.1", "2001:db8::1"]
LISTENERS = ["mx", "local"]
SENDERS = ["<>", "a@x.example", "b@y.x.example"]
RECIPIENTS = ["a@x.example", "b@x.example", "a@y.x.example", "a@z.example"]
KNOWN = [
    Known(),
    Known("alice"),
    Known("bob", tls=True, name="a.x.example"),
    Known(tls=True),
    Known(tls=True, certificate="cn=a"),
    Known(tls=True, certificate="cn=b", name="x.example"),
]
WORLD = [Mail(*parts) for parts in itertools.product(CLIENTS, LISTENERS, SENDERS, RECIPIENTS, KNOWN)]

NETWORKS = ["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.128.0.0/10", "10.128.64.1/32", "2001:db8::/32", "::/0"]
DOMAINS = ["x.example", "*.x.example", "*.example", "z.example"]
WHO: Mapping[str, st.SearchStrategy[object]] = {
    "authenticated": st.booleans(),
    "users": st.lists(st.sampled_from(["alice", "bob"]), max_size=2),
    "tls": st.booleans(),
    "client_certificates": st.lists(st.sampled_from(["cn=a", "cn=b"]), max_size=2),
    "client_names": st.lists(st.sampled_from(["x.example", "*.x.example", "*.example"]), max_size=2),
}


def can_match(conditions: Mapping[str, object]) -> bool:
    """The models refuse what contradicts itself."""
    return not (
        (conditions.get("users") and conditions.get("authenticated") is False)
        or (conditions.get("client_certificates") and conditions.get("tls") is False)
    )


CONDITIONS = st.fixed_dictionaries(
    {"name": st.just("rule"), "reject": st.just(True)},
    optional={
        "from_networks": st.lists(st.sampled_from(NETWORKS), max_size=3),
        "listeners": st.lists(st.sampled_from(LISTENERS), max_size=2),
        "from_domains": st.lists(st.sampled_from(DOMAINS), max_size=2),
        "from_addresses": st.lists(st.sampled_from(SENDERS), max_size=2),
        "to_domains": st.lists(st.sampled_from(DOMAINS), max_size=2),
        "to_addresses": st.lists(st.sampled_from(RECIPIENTS), max_size=2),
        **WHO,
    },
)
RULES = CONDITIONS.filter(can_match).map(RelayRule.model_validate)


def matches(rule: RelayRule, mail: Mail) -> bool:
    client = ipaddress.ip_address(mail.client)
    return (
        (not rule.from_networks or any(client in network for network in rule.from_networks))
        and (not rule.listeners or mail.listener in rule.listeners)
        and rule.authenticated in (None, bool(mail.known.user))
        and (not rule.users or mail.known.user in rule.users)
        and rule.tls in (None, mail.known.tls)
        and (not rule.client_certificates or mail.known.certificate in rule.client_certificates)
        and is_one_of(mail.known.name, rule.client_names, ())
        and is_one_of(mail.sender, rule.from_domains, rule.from_addresses)
        and is_one_of(mail.recipient, rule.to_domains, rule.to_addresses)
    )


def is_one_of(address: str, domains: Sequence[str], addresses: Sequence[str]) -> bool:
    if not domains and not addresses:
        return True
    domain = address.rpartition("@")[2]
    return address in addresses or any(
        domain == pattern or (pattern[:2] == "*." and domain.endswith(pattern[1:])) for pattern in domains
    )


@given(RULES, RULES)
@settings(max_examples=400, deadline=None)
def test_hidden_rule_matches_nothing_of_its_own(earlier: RelayRule, later: RelayRule) -> None:
    if hides(earlier, later):
        assert all(matches(earlier, mail) for mail in WORLD if matches(later, mail))


@settings(deadline=None)
@given(st.lists(RULES, max_size=6))
def test_index_finds_what_comparing_all_finds(rules: list[RelayRule]) -> None:
    slow = []
    for number, rule in enumerate(rules):
        hiding = next((index for index in range(number) if hides(rules[index], rule)), None)
        if hiding is not None:
            slow.append((number, hiding))
    assert list(hidden_rules(rules)) == slow


def rule(**conditions: object) -> RelayRule:
    return RelayRule.model_validate({"name": "rule", "reject": True, **conditions})


def test_signed_in_users_are_fewer_than_all() -> None:
    assert hides(rule(), rule(authenticated=True))
    assert not hides(rule(authenticated=True), rule())


def test_halves_of_a_network_hide_the_whole() -> None:
    halves = rule(from_networks=["10.0.0.0/9", "10.128.0.0/9"])
    assert hides(halves, rule(from_networks=["10.0.0.0/8"]))
    assert not hides(halves, rule(from_networks=["10.0.0.0/7"]))
    assert not hides(halves, rule(from_networks=["2001:db8::/32"]))
    assert not hides(rule(from_networks=["::/0"]), rule(from_networks=["10.0.0.0/8"]))


def test_wildcard_hides_neither_its_own_name_nor_a_wider_one() -> None:
    assert hides(rule(to_domains=["*.example.com"]), rule(to_domains=["a.b.example.com", "*.b.example.com"]))
    assert hides(rule(to_domains=["*.example.com"]), rule(to_addresses=["a@b.example.com"]))
    assert not hides(rule(to_domains=["*.example.com"]), rule(to_domains=["example.com"]))
    assert not hides(rule(to_domains=["*.b.example.com"]), rule(to_domains=["*.example.com"]))
    assert not hides(rule(to_addresses=["a@example.com"]), rule(to_domains=["example.com"]))
