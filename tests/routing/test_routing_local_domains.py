"""Local domains: who gets the mail, and what the operator hears of aliases that cannot work."""

from __future__ import annotations

import pytest

from smtpmaild.envelope import Envelope, Peer, Route, Rule, Session, Transaction
from smtpmaild.routing import NO_SUCH_MAILBOX, QUEUE, LocalDomain, Refuse, RelayRule, Router, Routing
from smtpmaild.smtp.address import parse_forward_path
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply

PEER = Peer("192.0.2.1", 4711)
SESSION = Session("S1", "mx", "mx.example.com", PEER)
TRANSACTION = Transaction(SESSION, Envelope("Q1", "S1", "mx", "mx.example.com", PEER, "client.example", "SMTP", 0.0))


def local(name: str, mailboxes: str | None = None, *, catch_all: str = "", **aliases: str) -> LocalDomain:
    """A domain in the store of its own name; names are separated by blanks, "+" is the separator."""
    return LocalDomain(
        name,
        Rule(name, "smtp.yaml:7"),
        f"store of {name}",
        None if mailboxes is None else frozenset(mailboxes.split()),
        {alias: tuple(targets.split()) for alias, targets in aliases.items()},
        catch_all,
        "+",
    )


def route(router: Router, text: str) -> Route:
    parsed = parse_forward_path(f"<{text}>", lambda domain: domain.encode("idna").decode())
    assert parsed is not None and not parsed[1]
    return router.route(TRANSACTION, parsed[0])


def places(router: Router, text: str) -> list[str]:
    """mailbox@domain of each destination, with "/subaddress" where there is one; [] for a refusal."""
    found = route(router, text)
    assert found.reply is (RECIPIENT_OK if found.destinations else NO_SUCH_MAILBOX)
    assert all(destination.recipient.text == text for destination in found.destinations)
    return [
        f"{destination.mailbox}@{destination.domain}" + (destination.subaddress and f"/{destination.subaddress}")
        for destination in found.destinations
    ]


EXAMPLE = local(
    "example.com", "alice bob bob+work josé", catch_all="alice",
    sales="alice bob", all="sales carol@example.org", info="sales+web", elsewhere="x@sub.any.example",
)  # fmt: skip
ORG = local("example.org", "carol", back="alice@example.com")
ANY = local("*.any.example", hello="world")
DEEPER = local("*.deep.any.example", "only")
LITERAL = local("[192.0.2.9]", "root")


@pytest.fixture(scope="module")
def routing() -> Routing:
    return Routing([EXAMPLE, ORG, ANY, DEEPER, LITERAL], hostname="mx.example.com")


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("alice@example.com", ["alice@example.com"]),
        # Case does not matter, neither does the encoding of an accent.
        ("ALICE@EXAMPLE.COM", ["alice@example.com"]),
        ("JOSE\u0301@example.com", ["josé@example.com"]),
        # Quotes are only spelling.
        ('"alice"@example.com', ["alice@example.com"]),
        # Aliases: to several, nested, into another domain, each mailbox once.
        ("sales@example.com", ["alice@example.com", "bob@example.com"]),
        ("all@example.com", ["alice@example.com", "bob@example.com", "carol@example.org"]),
        ("back@example.org", ["alice@example.com"]),
        ("elsewhere@example.com", ["x@sub.any.example"]),
        # Subaddresses: the exact name first, then what stands before the first separator.
        ("alice+Lists@example.com", ["alice@example.com/lists"]),
        ("alice+a+b@example.com", ["alice@example.com/a+b"]),
        ("alice+@example.com", ["alice@example.com"]),
        ("bob+work@example.com", ["bob+work@example.com"]),
        ("bob+home@example.com", ["bob@example.com/home"]),
        # An alias hands the subaddress on; a target's own one stays.
        ("sales+x@example.com", ["alice@example.com/x", "bob@example.com/x"]),
        ("info@example.com", ["alice@example.com/web", "bob@example.com/web"]),
        ("info+x@example.com", ["alice@example.com/web", "bob@example.com/web"]),
        # The catch-all gets the rest; strangers do not choose its folder.
        ("nobody@example.com", ["alice@example.com"]),
        ("nobody+x@example.com", ["alice@example.com"]),
        ("+x@example.com", ["alice@example.com"]),
        # No catch-all: refused.
        ("nobody@example.org", []),
        ("+carol@example.org", []),
        # Any local part, below a wildcard: the domain is the one the peer named.
        ("Who@a.any.example", ["who@a.any.example"]),
        ("who+x@a.b.any.example", ["who@a.b.any.example/x"]),
        ("+x@a.any.example", ["+x@a.any.example"]),
        ("hello@a.any.example", ["world@a.any.example"]),
        ('""@a.any.example', []),
        # The longest wildcard wins.
        ("only@x.deep.any.example", ["only@x.deep.any.example"]),
        ("who@x.deep.any.example", []),
        ("who@deep.any.example", ["who@deep.any.example"]),
        ("root@[192.0.2.9]", ["root@[192.0.2.9]"]),
    ],
)
def test_finds_the_mailbox(routing: Routing, recipient: str, expected: list[str]) -> None:
    assert places(routing, recipient) == expected


@pytest.mark.parametrize(
    "recipient", ["a@any.example", "a@sub.example.com", "a@xany.example", "a@com", "a@[192.0.2.8]", "a@[IPv6:::1]"]
)
def test_other_domains_are_not_local(routing: Routing, recipient: str) -> None:
    found = route(routing, recipient)
    assert found.rule == Rule("no relay rule matched")
    assert str(found.reply) == "550 5.7.1 Relaying denied"


def test_domains_are_known_without_a_mailbox(routing: Routing) -> None:
    assert routing.is_local("example.com")
    assert not routing.is_local("elsewhere.example")


def test_names_the_rule_and_the_store(routing: Routing) -> None:
    refused = route(routing, "nobody@example.org")
    assert refused.rule is ORG.rule
    assert str(refused.reply) == "550 5.1.1 No such mailbox here"
    accepted = route(routing, "back@example.org")
    assert accepted.rule is ORG.rule
    assert accepted.destinations[0].sink == "store of example.com"


def test_wildcard_for_everything() -> None:
    routing = Routing([local("*")])
    assert places(routing, "a@b.example") == ["a@b.example"]
    assert places(routing, "a@[192.0.2.1]") == ["a@[192.0.2.1]"]


def test_without_separator_a_plus_is_a_letter() -> None:
    routing = Routing([LocalDomain("example.com", Rule("r"), "mail", frozenset({"alice"}))])
    assert places(routing, "alice+x@example.com") == []


def test_alias_may_name_its_own_mailbox() -> None:
    routing = Routing([local("a.example", "alice bob", alice="alice bob"), local("b.example", alice="alice bob")])
    assert places(routing, "alice@a.example") == ["alice@a.example", "bob@a.example"]
    assert places(routing, "alice@b.example") == ["alice@b.example", "bob@b.example"]


def test_mailbox_keeps_the_spelling_of_the_config() -> None:
    assert places(Routing([local("a.example", "Alice")]), "aLICE@a.example") == ["Alice@a.example"]


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ([local("a.example", "", a="b", b="c", c="a")], "circle: a@a.example -> b@a.example -> c@a.example -> a@a.ex"),
        ([local("a.example", "", a="a@b.example"), local("b.example", "", a="a@a.example")], "a@b.example -> a@a.exam"),
        # Its own name, but no mailbox of that name.
        ([local("a.example", "", a="a")], "circle: a@a.example -> a@a.example"),
        ([local("a.example", "", a="alice")], "nowhere: a@a.example -> alice@a.example"),
        ([local("a.example", "", a="b@foreign.example")], "nowhere: a@a.example -> b@foreign.example"),
        ([local("a.example", "", a="")], "nowhere: a@a.example"),
        ([local("a.example", "bob", catch_all="alice")], "nowhere: .*alice@a.example"),
        ([local("*.a.example", "", a="b")], r"nowhere: a@\*.a.example -> b@\*.a.example"),
    ],
)
def test_impossible_aliases_are_named(domains: list[LocalDomain], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Routing(domains)


def test_many_paths_to_one_mailbox_are_followed_once() -> None:
    # Each alias names two that name the same next two: 2^60 paths.
    aliases: dict[str, tuple[str, ...]] = {"a60": ("alice",), "b60": ("alice",)}
    for level in range(60):
        aliases[f"a{level}"] = aliases[f"b{level}"] = (f"a{level + 1}", f"b{level + 1}")
    routing = Routing([LocalDomain("example.com", Rule("r"), "mail", frozenset({"alice"}), aliases)])
    assert places(routing, "a0@example.com") == ["alice@example.com"]


POSTMASTER_OF = {
    "mailbox": local("example.com", "postmaster alice", catch_all="alice"),
    "alias": local("example.com", "alice", postmaster="alice"),
    "any": local("example.com"),
    "catch_all": local("example.com", "alice", catch_all="alice"),
    "nothing": local("example.com", "alice"),
}


@pytest.mark.parametrize(
    ("domain", "server", "expected"),
    [
        # The domain says who it is, the server's postmaster does not matter.
        ("mailbox", "root@example.org", "postmaster@example.com"),
        ("alias", "root@example.org", "alice@example.com"),
        ("any", "root@example.org", "postmaster@example.com"),
        ("catch_all", "root@example.org", "alice@example.com"),
        # It does not.
        ("nothing", "root@example.org", "root@example.org"),
        ("nothing", "", "postmaster@example.com"),
        ("nothing", "postmaster@example.com", "postmaster@example.com"),
        ("nothing", "postmaster@example.org", "postmaster@example.org"),
    ],
)
def test_postmaster_of_a_domain(domain: str, server: str, expected: str) -> None:
    routing = Routing([POSTMASTER_OF[domain], local("example.org", "root")], postmaster=server)
    assert places(routing, "PostMaster@example.com") == [expected]


@pytest.mark.parametrize(
    ("domains", "postmaster", "hostname", "expected"),
    [
        # The one the server names; else our host's domain, or one above it; else the first domain.
        ("a.example b.example", "root@b.example", "a.example", "root@b.example"),
        ("a.example b.example", "", "b.example", "postmaster@b.example"),
        ("a.example b.example", "", "mx.in.b.example", "postmaster@b.example"),
        ("a.example b.example", "", "mx.else.example", "postmaster@a.example"),
        ("*.a.example b.example", "", "mx.a.example", "postmaster@mx.a.example"),
        ("*.a.example", "", "mx.else.example", "postmaster@postmaster.a.example"),
        ("*", "", "", "postmaster@postmaster"),
    ],
)
def test_postmaster_without_domain(domains: str, postmaster: str, hostname: str, expected: str) -> None:
    routing = Routing([local(name) for name in domains.split()], hostname=hostname, postmaster=postmaster)
    assert places(routing, "Postmaster") == [expected]
    assert route(routing, "postmaster").rule.name in domains


def test_postmaster_of_the_server_is_local() -> None:
    with pytest.raises(ValueError, match=r"root@else\.example is in no local domain"):
        Routing([local("a.example")], postmaster="root@else.example")


def test_without_local_domains_the_rules_decide_about_postmaster() -> None:
    deferred = Refuse(Reply(450, "4.7.1", "Later"))
    assert route(Routing([], [RelayRule(Rule("all"), deferred)]), "postmaster").rule.name == "all"
    assert route(Routing(), "postmaster").reply.code == 550


def test_alias_leads_to_other_domains_by_the_route_of_the_domain_that_names_them() -> None:
    one = LocalDomain(
        "a.example", Rule("a"), "store", frozenset(["x"]), {"boss": ("x", "Boss@far.example"), "b": ("b@b.example",)},
        route="relay:mx",
    )  # fmt: skip
    other = LocalDomain("b.example", Rule("b"), "store", frozenset(), {"b": ("boss@far.example",)}, route="relay:smart")
    router = Routing([one, other])

    def onward(text: str) -> list[tuple[str, str, str]]:
        return [(each.sink, f"{each.mailbox}@{each.domain}", each.route) for each in route(router, text).destinations]

    assert onward("boss@a.example") == [("store", "x@a.example", ""), (QUEUE, "boss@far.example", "relay:mx")]
    assert onward("b@a.example") == [(QUEUE, "boss@far.example", "relay:smart")]
