"""HELO names: what no honest client sends is refused, and what honest ones send against the grammar is not."""

from __future__ import annotations

import pytest

from smtpmaild.envelope import Session
from smtpmaild.policy.helo_syntax import HeloSyntax


@pytest.mark.parametrize(
    "hello",
    [
        "mx.example.com",
        "MX.Example.COM",
        "localhost",
        "xn--bcher-kva.example",
        "[192.0.2.1]",
        "[IPv6:2001:db8::1]",
        "[ipv6:::1]",
        # Against the grammar, or nearly, and seen in the field:
        "DESKTOP_1234",
        "_spf.example.com",
        "192.0.2.1",
        "mx.example.com.",
        "bücher.example",
        "[::1]",
        "[2001:db8::1]",
    ],
)
def test_takes_names_and_addresses(session: Session, hello: str) -> None:
    session.hello = hello
    assert HeloSyntax().helo(session) is None


@pytest.mark.parametrize(
    "hello",
    [
        "",
        ".",
        "mx..example",
        ".example.com",
        "mx.example.com..",
        "-mx.example.com",
        "mx-.example.com",
        "mx example.com",
        "mx.example.com foo",
        "user@example.com",
        "<mx.example.com>",
        "2001:db8::1",
        "[192.0.2]",
        "[192.0.2.256]",
        "[192.0.2.1",
        "192.0.2.1]",
        "[]",
        "[IPv6:192.0.2.1]",
        "[fe80::1%eth0]",
        "[mx.example.com]",
        "[smtp:foo]",
        "a" * 64 + ".example",
        "a." * 128 + "example",
        "mx.example.com\x00",
        "mx.example.com\n",
    ],
)
def test_refuses_what_is_neither(session: Session, hello: str) -> None:
    session.hello = hello
    verdict = HeloSyntax().helo(session)
    assert verdict is not None
    # RFC 2034 §4: no enhanced code in an answer to HELO or EHLO.
    assert (verdict.code, verdict.enhanced) == (501, "")
