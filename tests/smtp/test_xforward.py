"""XFORWARD: attributes in xtext, from peers that are trusted and still not believed blindly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.smtp.reply import Reply
from smtpmaild.smtp.xforward import decode_xtext, parse_xforward


@pytest.mark.parametrize(
    ("xtext", "text"),
    [
        ("client.example", "client.example"),
        ("a+2Bb+3Dc+20d", "a+b=c d"),
        ("+C3+A9", "\u00e9"),
        ("", None),
        ("a b", None),
        ("a=b", None),  # "=" and "+" must be encoded
        ("a+b", None),
        ("a+2b", None),  # hexchar = "+" and two digits or CAPITAL letters
        ("a+2", None),
        ("a+\u0661\u0661", None),
        ("\u00e9", None),
        ("+0D+0A", None),  # line ends, hidden
        ("+00", None),
        ("+C2+85", None),  # a C1 control, hidden twice
        ("+E9", None),  # no UTF-8
    ],
)
def test_xtext(xtext: str, text: str | None) -> None:
    assert decode_xtext(xtext) == text


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1))
@settings(deadline=None, max_examples=100)
def test_xtext_round_trip(text: str) -> None:
    plain = b"!#$%&'*,-./:;<>?@"
    xtext = "".join(
        chr(octet) if octet in plain or (chr(octet).isalnum() and octet < 128) else f"+{octet:02X}"
        for octet in text.encode()
    )
    assert decode_xtext(xtext) == text


@pytest.mark.parametrize(
    ("argument", "attributes"),
    [
        ("NAME=a.example ADDR=192.0.2.1", {"name": "a.example", "addr": "192.0.2.1"}),
        # names are case-insensitive
        ("Helo=x  pOrt=25", {"helo": "x", "port": "25"}),
        # what the sender does not know, either for good or for now
        ("NAME=[UNAVAILABLE] IDENT=[tempunavail]", {"name": None, "ident": None}),
        ("ADDR=IPV6:2001:db8::1 PROTO=ESMTP SOURCE=REMOTE",
         {"addr": "IPV6:2001:db8::1", "proto": "ESMTP", "source": "REMOTE"}),
        # the later one counts
        ("NAME=a NAME=b", {"name": "b"}),
        (f"NAME={'a' * 255}", {"name": "a" * 255}),
    ],
)  # fmt: skip
def test_attributes(argument: str, attributes: dict[str, str | None]) -> None:
    assert parse_xforward(argument) == attributes


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("", "Syntax: XFORWARD attribute=value..."),
        ("COLOUR=red", "Bad XFORWARD attribute name: COLOUR"),
        ("NAME=a COLOUR=red", "Bad XFORWARD attribute name: COLOUR"),
        ("=a", "Bad XFORWARD attribute name: "),
        ("NAME", "Bad XFORWARD attribute value: "),
        ("NAME=", "Bad XFORWARD attribute value: "),
        ("NAME=a=b", "Bad XFORWARD attribute value: a=b"),
        ("NAME=+00", "Bad XFORWARD attribute value: +00"),
        (f"NAME={'a' * 256}", f"Bad XFORWARD attribute value: {'a' * 256}"),
        # letters that upper() turns into those of ASCII are not those
        ("\u0131dent=x", "XFORWARD attributes must be xtext, which is ASCII"),
        ("NAME=[UNAVA\u0131LABLE]", "XFORWARD attributes must be xtext, which is ASCII"),
        ("NAME=a\u2003ADDR=b", "XFORWARD attributes must be xtext, which is ASCII"),
    ],
)
def test_bad_attributes(argument: str, text: str) -> None:
    refusal = parse_xforward(argument)
    assert isinstance(refusal, Reply)
    assert (refusal.code, refusal.enhanced, refusal.text) == (501, "5.5.4", text)
