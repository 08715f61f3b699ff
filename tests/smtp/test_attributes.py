"""XFORWARD and XCLIENT: attributes in xtext, from peers that are trusted and still not believed blindly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.smtp.attributes import decode_xtext, parse_xclient, parse_xforward
from smtpmaild.smtp.reply import Reply


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


@pytest.mark.parametrize(
    ("argument", "attributes"),
    [
        ("NAME=a_1.b-c.example ADDR=192.0.2.1 PORT=0", {"name": "a_1.b-c.example", "addr": "192.0.2.1", "port": "0"}),
        ("ADDR=IPV6:2001:DB8:0::1", {"addr": "2001:db8::1"}),
        ("addr=ipv6:::ffff:192.0.2.1 destaddr=2001:db8::25", {"addr": "192.0.2.1", "destaddr": "2001:db8::25"}),
        ("PROTO=esmtp HELO=[192.0.2.1]", {"proto": "ESMTP", "helo": "[192.0.2.1]"}),
        ("LOGIN=a+2Bb@c DESTPORT=65535", {"login": "a+b@c", "destport": "65535"}),
        ("NAME=[TEMPUNAVAIL] ADDR=[unavailable] LOGIN=[UNAVAILABLE]", {"name": None, "addr": None, "login": None}),
    ],
)  # fmt: skip
def test_attributes_of_a_client(argument: str, attributes: dict[str, str | None]) -> None:
    assert parse_xclient(argument) == attributes


@pytest.mark.parametrize(
    "word",
    [
        "NAME=a..b", "NAME=-a", "NAME=a-.b", "NAME=a+20b", "NAME=", "ADDR=192.0.2.256", "ADDR=192.0.2.1:25",
        "ADDR=[192.0.2.1]", "ADDR=IPV6:", "ADDR=fe80::1%25eth0", "PORT=65536", "PORT=-1", "PORT=x", "PROTO=LMTP",
        "DESTADDR=mx", "DESTPORT=smtp", "LOGIN=", "HELO=+0A",
    ],
)  # fmt: skip
def test_client_that_is_none(word: str) -> None:
    refusal = parse_xclient(f"HELO=x {word}")
    assert isinstance(refusal, Reply)
    assert str(refusal) == f"501 5.5.4 Bad XCLIENT attribute value: {word.partition('=')[2]}"


def test_attributes_that_xclient_does_not_have() -> None:
    assert str(parse_xclient("IDENT=x")) == "501 5.5.4 Bad XCLIENT attribute name: IDENT"
    assert str(parse_xclient(" ")) == "501 5.5.4 Syntax: XCLIENT attribute=value..."
