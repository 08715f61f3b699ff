"""Relay rules: which one decides, and what becomes of the recipient."""

from __future__ import annotations

import ipaddress

import pytest

from smtpmaild.envelope import (
    ClientCertificate,
    Destination,
    Envelope,
    Peer,
    Route,
    Rule,
    Session,
    Tls,
    Transaction,
)
from smtpmaild.routing import QUEUE, Deliver, LocalDomain, Refuse, Relay, RelayRule, Routing
from smtpmaild.smtp.address import Address, parse_forward_path, parse_reverse_path
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply

REFUSED = Refuse(Reply(554, "5.7.1", "Not for you"))
DEFERRED = Refuse(Reply(450, "4.7.1", "Later"))
STORED = Deliver("intake")


def recipient(text: str) -> Address:
    parsed = parse_forward_path(f"<{text}>")
    assert parsed is not None
    return parsed[0]


def transaction(sender: str = "eve@sender.example", client: str = "192.0.2.1", listener: str = "mx") -> Transaction:
    parsed = parse_reverse_path(f"<{sender}>")
    assert parsed is not None
    peer = Peer(client)
    envelope = Envelope("Q1", "S1", listener, "mx.example.com", peer, "c.example", "SMTP", 0.0, reverse_path=parsed[0])
    return Transaction(Session("S1", listener, "mx.example.com", peer), envelope)


def route(rule: RelayRule, tx: Transaction | None = None, to: str = "bob@far.example") -> Route:
    return Routing([], [rule]).route(tx or transaction(), recipient(to))


def matches(rule: RelayRule, tx: Transaction | None = None, to: str = "bob@far.example") -> bool:
    found = route(rule, tx, to)
    assert (found.rule is rule.rule) == (found.rule.name != "no relay rule matched")
    return found.rule is rule.rule


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


def test_refusal_is_the_reply_of_the_rule() -> None:
    rule = Rule("no", "smtp.yaml:9")
    assert route(RelayRule(rule, REFUSED)) == Route(rule, REFUSED.reply)
    assert route(RelayRule(rule, DEFERRED)) == Route(rule, DEFERRED.reply)


def test_delivery_goes_into_the_store() -> None:
    to = recipient("Bob+x@far.example")
    rule = Rule("take", "smtp.yaml:9")
    assert route(RelayRule(rule, STORED), to="Bob+x@far.example") == Route(
        rule, RECIPIENT_OK, (Destination("intake", "far.example", "bob+x", "", to),)
    )


def test_bare_postmaster_is_stored_under_our_name() -> None:
    routing = Routing([], [RelayRule(Rule("take"), STORED)], hostname="mx.example.com")
    found = routing.route(transaction(), recipient("postmaster"))
    assert [(place.mailbox, place.domain) for place in found.destinations] == [("postmaster", "mx.example.com")]


def test_local_domains_come_first() -> None:
    routing = Routing([LocalDomain("far.example", Rule("local"), "mail")], [RelayRule(Rule("rule"), REFUSED)])
    assert routing.route(transaction(), recipient("bob@far.example")).rule.name == "local"
    assert routing.route(transaction(), recipient("bob@else.example")).rule.name == "rule"


@pytest.mark.parametrize(
    ("networks", "client", "expected"),
    [
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("192.0.2.1/32", "192.0.2.1", True),
        ("0.0.0.0/0", "198.51.100.1", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "192.0.2.1", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::", False),
        ("10.0.0.0/8 192.0.2.0/24 192.0.4.0/24 2001:db8::/32", "192.0.4.7", True),
        ("10.0.0.0/8 192.0.2.0/24 192.0.4.0/24 2001:db8::/32", "192.0.5.7", False),
        # A Unix socket has no network.
        ("0.0.0.0/0 ::/0", "", False),
    ],
)
def test_by_client_network(networks: str, client: str, expected: bool) -> None:
    rule = RelayRule(Rule("r"), STORED, from_networks=[network(text) for text in networks.split()])
    assert matches(rule, transaction(client=client)) is expected


@pytest.mark.parametrize(("listener", "expected"), [("submission", True), ("mx", False)])
def test_by_listener(listener: str, expected: bool) -> None:
    rule = RelayRule(Rule("r"), STORED, listeners=frozenset({"submission", "lmtp"}))
    assert matches(rule, transaction(listener=listener)) is expected


ADDRESSES = pytest.mark.parametrize(
    ("domains", "addresses", "address", "expected"),
    [
        ("a.example b.example", "", "x@b.example", True),
        ("a.example", "", "x@sub.a.example", False),
        ("*.a.example", "", "x@sub.a.example", True),
        ("*.a.example", "", "x@deep.sub.a.example", True),
        ("*.a.example", "", "x@a.example", False),
        ("*.a.example", "", "x@ba.example", False),
        ("*", "", "x@a.example", True),
        ("", "Eve@a.example", "eVE@A.example", True),
        ("", "eve@a.example", "eva@a.example", False),
        # One or the other suffices.
        ("b.example", "eve@a.example", "eve@a.example", True),
        ("b.example", "eve@a.example", "x@b.example", True),
        ("b.example", "eve@a.example", "x@a.example", False),
        ("", "eve@[IPv6:2001:db8::1]", "eve@[ipv6:2001:DB8:0::1]", True),
    ],
)


@ADDRESSES
def test_by_sender(domains: str, addresses: str, address: str, expected: bool) -> None:
    rule = RelayRule(Rule("r"), STORED, sender_domains=domains.split(), sender_addresses=addresses.split())
    assert matches(rule, transaction(sender=address)) is expected


@ADDRESSES
def test_by_recipient(domains: str, addresses: str, address: str, expected: bool) -> None:
    rule = RelayRule(Rule("r"), STORED, recipient_domains=domains.split(), recipient_addresses=addresses.split())
    assert matches(rule, to=address) is expected


def test_null_sender_is_written_as_it_stands() -> None:
    bounces = RelayRule(Rule("r"), STORED, sender_addresses=["<>"])
    assert matches(bounces, transaction(sender=""))
    assert not matches(bounces, transaction(sender="eve@a.example"))
    # It has no domain, so it is in none.
    assert not matches(RelayRule(Rule("r"), STORED, sender_domains=["*"]), transaction(sender=""))


def known_as(user: str = "", tls: Tls | None = None, client_name: str = "") -> Transaction:
    """A transaction of a client that we know more of."""
    tx = transaction()
    tx.session.user, tx.session.tls, tx.session.client_name = user, tls, client_name
    return tx


def encrypted(client: ClientCertificate | None = None) -> Tls:
    return Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", client=client)


PRINTER = ClientCertificate("CN=Printer,O=Example", "ab" * 32)


@pytest.mark.parametrize(("user", "expected"), [("alice", True), ("", False)])
def test_by_who_signed_in(user: str, expected: bool) -> None:
    assert matches(RelayRule(Rule("r"), STORED, authenticated=True), known_as(user)) is expected
    assert matches(RelayRule(Rule("r"), STORED, authenticated=False), known_as(user)) is not expected


@pytest.mark.parametrize(("user", "expected"), [("Alice", True), ("bob", True), ("carol", False), ("", False)])
def test_by_user(user: str, expected: bool) -> None:
    assert matches(RelayRule(Rule("r"), STORED, users=["alice", "BOB"]), known_as(user)) is expected


@pytest.mark.parametrize(("tls", "expected"), [(encrypted(), True), (None, False)])
def test_by_encryption(tls: Tls | None, expected: bool) -> None:
    assert matches(RelayRule(Rule("r"), STORED, tls=True), known_as(tls=tls)) is expected
    assert matches(RelayRule(Rule("r"), STORED, tls=False), known_as(tls=tls)) is not expected


@pytest.mark.parametrize(
    ("names", "tls", "expected"),
    [
        (["ab" * 32], encrypted(PRINTER), True),
        (["cd" * 32, "cn=printer,o=example"], encrypted(PRINTER), True),
        (["cd" * 32], encrypted(PRINTER), False),
        (["cn=printer"], encrypted(PRINTER), False),
        # Encrypted, but nobody showed a certificate; and no encryption at all.
        (["ab" * 32], encrypted(), False),
        (["ab" * 32], None, False),
    ],
)
def test_by_client_certificate(names: list[str], tls: Tls | None, expected: bool) -> None:
    assert matches(RelayRule(Rule("r"), STORED, client_certificates=names), known_as(tls=tls)) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mail.office.example", True),
        ("deep.mail.office.example", True),
        ("office.example", False),
        ("hub.example", True),
        ("Hub.Example", True),
        ("a.hub.example", False),
        ("notoffice.example", False),
        ("", False),
    ],
)
def test_by_client_name(name: str, expected: bool) -> None:
    rule = RelayRule(Rule("r"), STORED, client_names=["*.office.example", "hub.example"])
    assert matches(rule, known_as(client_name=name)) is expected


def test_all_criteria_must_hold() -> None:
    rule = RelayRule(
        Rule("r"), STORED, [network("192.0.2.0/24")], frozenset({"mx"}), ["sender.example"], (), ["far.example"]
    )
    assert matches(rule)
    assert not matches(rule, transaction(client="198.51.100.1"))
    assert not matches(rule, transaction(listener="other"))
    assert not matches(rule, transaction(sender="eve@else.example"))
    assert not matches(rule, to="bob@else.example")


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("x@a.example", "a"),
        ("bob@b.example", "bob of b"),
        ("x@b.example", "a or b"),
        ("x@c.example", "wildcard"),
        ("x@sub.d.example", "sub-domains of d"),
        ("x@d.example", "wildcard"),
    ],
)
def test_first_match_decides_however_it_is_found(to: str, expected: str) -> None:
    """Rules by recipient domain alone are looked up, the others are walked: the order is that of the config."""
    rules = [
        RelayRule(Rule("a"), STORED, recipient_domains=["a.example"]),
        RelayRule(Rule("bob of b"), STORED, recipient_addresses=["bob@b.example"]),
        RelayRule(Rule("a or b"), REFUSED, recipient_domains=["a.example", "b.example"]),
        RelayRule(Rule("sub-domains of d"), STORED, recipient_domains=["x.example", "*.d.example"]),
        RelayRule(Rule("wildcard"), REFUSED),
        RelayRule(Rule("c, too late"), STORED, recipient_domains=["c.example", "d.example"]),
    ]
    assert Routing([], rules).route(transaction(), recipient(to)).rule.name == expected


def test_why_rules_did_not_match() -> None:
    rules = [
        RelayRule(Rule("door"), STORED, listeners=frozenset({"other"})),
        RelayRule(Rule("who"), STORED, authenticated=True, tls=True),
        RelayRule(Rule("encrypted"), STORED, authenticated=False, tls=True),
        RelayRule(Rule("to"), STORED, recipient_domains=["x.example"], recipient_addresses=["a@y.example"]),
        RelayRule(Rule("to one"), STORED, recipient_addresses=["a@y.example"]),
        RelayRule(Rule("from"), STORED, sender_domains=["x.example"]),
        RelayRule(Rule("net"), STORED, from_networks=[network("10.0.0.0/8")]),
        RelayRule(Rule("this one"), STORED, from_networks=[network("192.0.2.0/24")]),
        RelayRule(Rule("not asked"), STORED, listeners=frozenset({"other"})),
    ]
    routing = Routing([LocalDomain("here.example", Rule("local"), "mail")], rules)
    assert [
        (rule.name, condition) for rule, condition in routing.missed(transaction(), recipient("b@far.example"))
    ] == [
        ("door", "listeners"),
        ("who", "authenticated"),
        ("encrypted", "tls"),
        ("to", "to_domains or to_addresses"),
        ("to one", "to_addresses"),
        ("from", "from_domains"),
        ("net", "from_networks"),
    ]
    assert routing.missed(transaction(), recipient("b@here.example")) == ()


@pytest.mark.parametrize("to", ["Bob@far.example", "postmaster"])
def test_relayed_mail_goes_to_the_queue_with_its_route_and_its_spelling(to: str) -> None:
    found = route(RelayRule(Rule("on", "smtp.yaml:9"), Relay("relay:mx")), to=to)
    (destination,) = found.destinations
    assert found.reply is RECIPIENT_OK
    assert (destination.sink, destination.route) == (QUEUE, "relay:mx")
    assert destination.mailbox == recipient(to).local_part
    assert destination.recipient == recipient(to)
