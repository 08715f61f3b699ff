"""Pseudonyms: the same all day, whatever the spelling; and found in any text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpmaild.privacy.pseudonyms import Pseudonyms

KEY = b"k" * 32


@pytest.fixture
def known() -> Pseudonyms:
    return Pseudonyms(lambda: (1, KEY), words=("var", "mail", "example.com", "new", "tmp"))


def test_same_person_same_pseudonym(known: Pseudonyms) -> None:
    alice = known.address("alice@example.com")
    assert re.fullmatch(r"u-[0-9a-f]{10}@example\.com", alice)
    assert known.address("ALICE@example.com") == alice
    assert known.address('"alice"@example.com') == alice
    assert known.text("<alice@example.com>: unknown") == f"<{alice}>: unknown"
    assert known.name("alice@example.com") == alice  # who signs in by his address
    assert known.local_part("alice", "example.com") == alice.partition("@")[0]
    assert known.address("alice@other.example") != alice.replace("example.com", "other.example")


def test_another_day_another_pseudonym() -> None:
    day = [1, b"a" * 32]
    known = Pseudonyms(lambda: (day[0], day[1]))  # type: ignore[return-value,arg-type]
    first = known.ip("192.0.2.1")
    assert known.ip("192.0.2.1:25") == first
    day[:] = [2, b"b" * 32]
    assert known.ip("192.0.2.1") != first


def test_memory_is_bounded(known: Pseudonyms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpmaild.privacy.pseudonyms._REMEMBERED", 3)
    first = known.name("a")
    for letter in "bcdefg":
        known.name(letter)
    assert len(known._known) <= 4
    assert known.name("a") == first


@pytest.mark.parametrize("text", ["192.0.2.1", "192.0.2.1:4000", "[192.0.2.1]"])
def test_ip_without_its_port(known: Pseudonyms, text: str) -> None:
    assert known.ip(text) == known.ip("192.0.2.1")
    assert re.fullmatch(r"ip-[0-9a-f]{10}", known.ip(text))


@pytest.mark.parametrize("text", ["[2001:DB8::1]:25", "[IPv6:2001:db8::1]", "2001:db8::1"])
def test_ipv6_as_well(known: Pseudonyms, text: str) -> None:
    assert known.ip(text) == known.ip("2001:db8::1")


def test_what_is_nobody_stays(known: Pseudonyms) -> None:
    assert (known.ip("local"), known.address(""), known.name(""), known.ip("unknown")) == ("local", "", "", "unknown")
    assert known.text("250 2.0.0 Ok: queued as 660E3F12830DBF50E0 at 21:13:00, 1.2.3") == (
        "250 2.0.0 Ok: queued as 660E3F12830DBF50E0 at 21:13:00, 1.2.3"
    )


HIDDEN = [
    "550 5.1.1 <secret@x.example>: unknown",
    "secret@x.example",
    "SECRET@X.EXAMPLE",
    '"secret"@x.example',
    '"se cret secret"@x.example',
    "o'secret@x.example",
    "bounces+secret=home.example@list.example",
    "user=secret@x.example,",
    "secret@[192.0.2.1]",
    "sécret.secret@bücher.example",
    "mailto:secret@x.example?x",
    "a@x.example secret@x.example",
    "No space left on device: '/var/mail/example.com/secret/new/1.2'",
    "'/secret'",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_mailboxes_and_paths_in_texts(known: Pseudonyms, text: str) -> None:
    assert "secret" not in known.text(text).lower()


ADDRESSES = [
    ("[192.0.2.7]:25 said", "192.0.2.7"),
    ("at 192.0.2.7.", "192.0.2.7"),
    ("::ffff:192.0.2.7", "192.0.2.7"),
    ("blocked: https://bl.example/?ip=192.0.2.7", "192.0.2.7"),
    ("[IPv6:2001:db8::7]", "2001:db8"),
    ("[ipv6:2001:DB8::7]", "2001:DB8"),
    ("from 2001:db8:0:0:0:0:0:7 x", "2001:db8"),
    ("from fe80::7%eth0,", "fe80"),
    ("[2001:db8::7]:25", "2001:db8"),
    ("x ::1 y", "::1"),
    ("net 2001:db8::/32", "2001:db8"),
]


@pytest.mark.parametrize(("text", "secret"), ADDRESSES)
def test_ip_addresses_in_texts(known: Pseudonyms, text: str, secret: str) -> None:
    assert secret not in known.text(text)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("localhost", "localhost"),
        ("client.example", "client.example"),
        ("dsl-192-0-2-7.pool.provider.example", "n-XXXXXXXXXX.provider.example"),
        ("alices-laptop.lan.example", "n-XXXXXXXXXX.lan.example"),
        ("[192.0.2.7]", "[ip-XXXXXXXXXX]"),
        ("192.0.2.7", "[ip-XXXXXXXXXX]"),
        ("[IPv6:2001:db8::7]", "[ip-XXXXXXXXXX]"),
        ("p5b0a1234.example", "n-XXXXXXXXXX"),
        ("192.0.2.7.", "n-XXXXXXXXXX"),
        ("192.0.2.7:25", "n-XXXXXXXXXX"),
        ("1.192.0.2.7", "n-XXXXXXXXXX"),
        ("alices-laptop.local", "n-XXXXXXXXXX"),
        ("alice@x.example", "u-XXXXXXXXXX@x.example"),
        ("", ""),
    ],
)
def test_hosts(known: Pseudonyms, name: str, shown: str) -> None:
    assert re.sub(r"-[0-9a-f]{10}", "-XXXXXXXXXX", known.host(name)) == shown


def test_paths_keep_the_steps_of_the_configuration(known: Pseudonyms) -> None:
    alice = known.path("/var/mail/example.com/alice/new")
    assert re.fullmatch(r"/var/mail/example\.com/n-[0-9a-f]{10}/new", alice)
    assert known.path(alice) == alice


def test_a_text_about_somebody(known: Pseudonyms) -> None:
    alice = known.address("alice@x.example")
    said = known.said("450 4.2.1 user ALICE <alice@x.example> is busy", "alice@x.example")
    assert said == f"450 4.2.1 user {alice.partition('@')[0]} <{alice}> is busy"
    assert known.said("550 5.1.1 no 550", "550@x.example").startswith("550 5.1.1 no u-")
    assert known.said("ann", "ann") == known.name("ann")
    assert known.said("as it is", "") == "as it is"


@given(st.text(max_size=80))
def test_any_text_passes(text: str) -> None:
    Pseudonyms(lambda: (1, KEY)).text(text)


@given(
    st.from_regex(r"[a-z]{9}[a-z.+'/=]{0,10}[a-z]", fullmatch=True),
    st.sampled_from(["<{}>", "{}:", "({})", " {} ", "{}"]),
)
def test_any_mailbox_is_found(local_part: str, around: str) -> None:
    text = Pseudonyms(lambda: (1, KEY)).text(around.format(f"{local_part}@x.example"))
    assert local_part[:9] not in text
