"""Which reverse-paths a user may have: his own, listed ones, and what both of them mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from smtpmaild.envelope import Rule, Transaction
from smtpmaild.policy.senders import REFUSED, Senders, SendersOptions
from smtpmaild.routing import LocalDomain, Routing
from smtpmaild.smtp.address import parse_reverse_path

ROUTING = Routing(
    [
        LocalDomain(
            "a.example",
            Rule("a"),
            "mail",
            frozenset({"alice", "bob"}),
            {"sales": ("alice", "bob"), "info": ("sales",), "only-bob": ("bob",)},
            catch_all="alice",
            subaddress="+",
        ),
        LocalDomain("b.example", Rule("b"), "mail", frozenset({"alice", "carol"}), {"boss": ("alice@a.example",)}),
        LocalDomain("c.example", Rule("c"), "mail", frozenset({"dora"}), {"away": ("bob@far.example",)}, route="mx"),
        LocalDomain("*.any.example", Rule("any"), "mail"),
    ]
)


@pytest.fixture
def says(transaction: Transaction) -> Any:
    def say(user: str, sender: str, **options: Any) -> bool:
        """True if this user may send as that sender."""
        parsed = parse_reverse_path(f"<{sender}>")
        assert parsed is not None
        transaction.session.user = user
        transaction.envelope.reverse_path = parsed[0]
        verdict = Senders(SendersOptions.model_validate(options), ROUTING).mail(transaction)
        assert verdict in (None, REFUSED)
        return verdict is None

    return say


def test_the_refusal_is_for_good() -> None:
    assert (REFUSED.code, REFUSED.enhanced) == (553, "5.7.1")


@pytest.mark.parametrize(
    ("user", "sender", "expected"),
    [
        # A whole address: the very name, in a domain of ours or not, in any case of letters.
        ("alice@a.example", "Alice@A.example", True),
        ("Someone@far.example", "someone@far.example", True),
        ("someone@far.example", "other@far.example", False),
        # What leads to the mailbox: aliases at any depth, sub-addresses, the catch-all, aliases of another domain.
        ("alice@a.example", "info@a.example", True),
        ("alice@a.example", "alice+shop@a.example", True),
        ("alice@a.example", "anything@a.example", True),
        ("alice@a.example", "boss@b.example", True),
        ("alice@a.example", "only-bob@a.example", False),
        ("bob@a.example", "anything@a.example", False),
        # The same name in another domain is somebody else.
        ("alice@a.example", "alice@b.example", False),
        # A name alone: that mailbox, wherever it is.
        ("alice", "alice@a.example", True),
        ("ALICE", "alice@b.example", True),
        ("alice", "sales@a.example", True),
        ("alice", "carol@b.example", False),
        ("alice", "alice@far.example", False),
        ("anybody", "anybody+x@sub.any.example", False),
        ("anybody", "anybody@sub.any.example", True),
        # Whom an alias sends on to is somebody else of that name.
        ("bob", "away@c.example", False),
        ("dora", "dora@c.example", True),
        # A login that is an alias is that address, not those whom it leads to.
        ("sales@a.example", "sales@a.example", True),
        ("sales@a.example", "bob@a.example", False),
    ],
)
def test_own_addresses(says: Any, user: str, sender: str, expected: bool) -> None:
    assert says(user, sender) is expected
    assert says(user, sender, own=False) is False


def test_nobody_has_signed_in(says: Any) -> None:
    assert says("", "alice@a.example")
    assert says("", "eve@far.example", own=False, null_sender=False)


@pytest.mark.parametrize("allowed", [True, False])
def test_null_sender(says: Any, allowed: bool) -> None:
    assert says("alice", "", null_sender=allowed) is allowed


@pytest.mark.parametrize(
    ("pattern", "sender", "expected"),
    [
        ("x@far.example", "X@far.example", True),
        ("x@far.example", "xx@far.example", False),
        ("X.Y@Far.example", "x.y@far.example", True),
        ("x.y@far.example", "xzy@far.example", False),
        ("far.example", "anyone@far.example", True),
        ("far.example", "anyone@sub.far.example", False),
        ("*.far.example", "anyone@deep.sub.far.example", True),
        ("*.far.example", "anyone@far.example", False),
        ("*.far.example", "anyone@notfar.example", False),
        ("*@far.example", "anyone@far.example", True),
        ("news-*@far.example", "news-2026@far.example", True),
        ("news-*@far.example", "news@far.example", False),
        ("news-*@*.far.example", "news-1@sub.far.example", True),
        ("news-*@far.example", '"news-@evil.example"@far.example', True),
        ("far.example", '"x@far.example"@evil.example', False),
        ("*", "anyone@anywhere.example", True),
        ("bücher.example", "x@xn--bcher-kva.example", True),
        ("x@bücher.example", "x@xn--bcher-kva.example", True),
    ],
)
def test_listed_senders(says: Any, pattern: str, sender: str, expected: bool) -> None:
    assert says("bob", sender, users={"bob": pattern}) is expected
    assert says("BOB", sender, users={"Bob": ["never@x.example", pattern]}) is expected
    assert says("bob", sender, users={"*": pattern}) is expected
    assert says("bob", sender, users={"*": pattern, "bob": []}) is expected
    assert not says("eve", sender, users={"bob": pattern})


@pytest.mark.parametrize(
    "users",
    [
        {"bob": ["@far.example"]},
        {"bob": ["a b@far.example"]},
        {"bob": [""]},
        {"bob": ["far..example"]},
        {"bob": ["x@*"]},
        {"bob": ["*.*.example"]},
        {"bob": ["<>"]},
        {"": ["*"]},
        {"bob\n": ["*"]},
        {"bob": [5]},
    ],
)
def test_what_is_no_sender_or_no_user(users: Mapping[str, object]) -> None:
    with pytest.raises(ValidationError):
        SendersOptions.model_validate({"users": users})
