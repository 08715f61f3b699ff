from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest

from smtpmaild.config.names import (
    alias_target,
    domain_pattern,
    host_name,
    mail_address,
    mailbox_name,
    network,
    sender_address,
)
from smtpmaild.idn import to_ascii


@pytest.mark.parametrize(
    ("normal", "text", "expected"),
    [
        (host_name, "MX.Example.COM", "mx.example.com"),
        (host_name, "localhost", "localhost"),
        (host_name, "Bücher.example", "xn--bcher-kva.example"),
        (host_name, "faß.example", "xn--fa-hia.example"),  # IDNA2008; 2003 made it fass
        (domain_pattern, "*.Example.com", "*.example.com"),
        (domain_pattern, "*.bücher.example", "*.xn--bcher-kva.example"),
        (domain_pattern, "[192.0.2.1]", "[192.0.2.1]"),
        (domain_pattern, "[ipv6:2001:DB8:0::1]", "[IPv6:2001:db8::1]"),
        (mailbox_name, "Alice", "alice"),
        (mailbox_name, "STRASSE", "strasse"),
        (mailbox_name, "straße", "strasse"),  # folded, not only lower case
        (mailbox_name, "e\u0301te\u0301", "\u00e9t\u00e9"),  # NFC
        (mailbox_name, '"a b"', "a b"),
        (mailbox_name, '"a@b"', "a@b"),
        (mail_address, "Alice@Example.com", "alice@example.com"),
        (mail_address, "user@[192.0.2.1]", "user@[192.0.2.1]"),
        (sender_address, "<>", "<>"),
        (sender_address, "A@b.example", "a@b.example"),
        (alias_target, "Bob", "bob"),
        (alias_target, "Bob@Example.com", "bob@example.com"),
    ],
)
def test_names(normal: Callable[[str], str], text: str, expected: str) -> None:
    assert normal(text) == expected


@pytest.mark.parametrize(
    ("normal", "text", "words"),
    [
        (host_name, "", "'' is not a host name"),
        (host_name, "a..b", "'a..b' is not a host name"),
        (host_name, "mx.example.com.", "did you mean 'mx.example.com'?"),
        (host_name, " mx.example.com", "did you mean 'mx.example.com'?"),
        (host_name, "alice@example.com", "did you mean 'example.com'?"),
        (host_name, "a" * 64, "is not a host name"),
        (host_name, "*.example.com", "is not a host name"),
        (host_name, "\u2665\u200d.example", "no valid IDNA2008 form"),
        (domain_pattern, "*", "is not a host name"),
        (domain_pattern, "*.*.example.com", "is not a host name"),
        (domain_pattern, "[nonsense]", "is not an address literal"),
        (domain_pattern, "[192.0.2.1", "is not an address literal"),
        (mailbox_name, "alice@example.com", "here stands only what is before the @"),
        (mailbox_name, "a b", "is not a mailbox name"),
        (mailbox_name, "", "is not a mailbox name"),
        (mail_address, "alice", "is not a mail address"),
        (mail_address, "<alice@example.com>", "is not a mail address"),
        (mail_address, "@route:alice@example.com", "is not a mail address"),
        (sender_address, "", "is not a mail address"),
        (alias_target, "alice@", "is not a mail address"),
    ],
)
def test_no_names(normal: Callable[[str], str], text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"not|only") as caught:
        normal(text)
    assert words in str(caught.value)


def test_a_labels_of_capitals() -> None:
    assert to_ascii("BÜCHER.example") == "xn--bcher-kva.example"


@pytest.mark.parametrize("text", ["192.0.2.0/24", "192.0.2.7/32", "2001:db8::/32", "::1/128", "0.0.0.0/0"])
def test_network(text: str) -> None:
    assert network(text) == ipaddress.ip_network(text)


def test_network_of_one_address() -> None:
    assert network("192.0.2.7") == ipaddress.ip_network("192.0.2.7/32")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("192.0.2.1/24", "bits are set behind the prefix; did you mean '192.0.2.0/24'?"),
        ("2001:db8::1/32", "did you mean '2001:db8::/32'?"),
        ("192.0.2.0/33", "write it as 192.0.2.0/24 or 2001:db8::/32"),
        ("example.com", "write it as 192.0.2.0/24 or 2001:db8::/32"),
        ("", "write it as 192.0.2.0/24 or 2001:db8::/32"),
        (10, "a network is written as 192.0.2.0/24"),  # ip_network would take a number
    ],
)
def test_no_network(value: object, words: str) -> None:
    with pytest.raises(ValueError, match="network") as caught:
        network(value)
    assert words in str(caught.value)
