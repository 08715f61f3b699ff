"""Trace fields: RFC 5321 §4.4 to the letter, and harmless whatever the peer said."""

from __future__ import annotations

import re
from dataclasses import replace
from email import message_from_bytes
from email.policy import SMTP
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpmaild import trace
from smtpmaild.envelope import Envelope, Peer, Recipient, Route, Rule, Tls
from smtpmaild.smtp.address import Address, parse_mailbox
from smtpmaild.smtp.reply import RECIPIENT_OK

ROUTE = Route(Rule("local"), RECIPIENT_OK)


def recipient(text: str) -> Recipient:
    local_part, _, domain = text.partition("@")
    return Recipient(Address(local_part, domain, text), ROUTE)


def envelope(**changes: object) -> Envelope:
    plain = Envelope(
        "06A9X0Q2RB3EAEX0", "S1", "mx", "mx.example.com", Peer("192.0.2.1"), "client.example", "ESMTP", 1795359641.9
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_received_is_the_field_of_rfc_5321() -> None:
    assert trace.received(envelope(recipients=[recipient("user@example.com")])) == (
        b"Received: from client.example ([192.0.2.1])\r\n"
        b"\tby mx.example.com with ESMTP id 06A9X0Q2RB3EAEX0\r\n"
        b"\tfor <user@example.com>;\r\n"
        b"\tSun, 22 Nov 2026 15:00:41 +0000\r\n"
    )


def test_received_tells_what_priority_was_asked_for() -> None:
    """RFC 6710 §7: Pri = CFWS "PRIORITY" FWS priority-value, one of <Additional-Registered-Clauses>."""
    made = envelope(recipients=[recipient("user@example.com")], priority="-3")
    assert b"\r\n\tfor <user@example.com>\r\n\tpriority -3;\r\n" in trace.received(made)


@pytest.mark.parametrize(
    ("name", "host", "shown"),
    [
        ("c.example", "192.0.2.1", b"from client.example (c.example [192.0.2.1])\r\n"),
        ("c.example", "2001:db8::1", b"from client.example (c.example [IPv6:2001:db8::1])\r\n"),
        ("c.example) (", "192.0.2.1", b"from client.example ([192.0.2.1])\r\n"),
        ("c.example", "", b"from client.example\r\n"),
    ],
)
def test_name_of_the_client_stands_before_its_address(name: str, host: str, shown: bytes) -> None:
    assert shown in trace.received(envelope(peer=Peer(host), client_name=name))


def test_received_tells_how_it_was_encrypted() -> None:
    tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
    made = envelope(protocol="ESMTPS", tls=tls, recipients=[recipient("user@example.com")])
    assert trace.received(made) == (
        b"Received: from client.example ([192.0.2.1])\r\n"
        b"\tby mx.example.com with ESMTPS id 06A9X0Q2RB3EAEX0\r\n"
        b"\t(version=TLS1.3 cipher=TLS_AES_256_GCM_SHA384 bits=256)\r\n"
        b"\tfor <user@example.com>;\r\n"
        b"\tSun, 22 Nov 2026 15:00:41 +0000\r\n"
    )


@pytest.mark.parametrize("recipients", [[], [recipient("a@x.test"), recipient("b@x.test")]])
def test_for_names_only_a_single_recipient(recipients: list[Recipient]) -> None:
    assert b"for <" not in trace.received(envelope(recipients=recipients))


@pytest.mark.parametrize("text", ["postmaster", "x" * 400 + "@example.com"])
def test_for_leaves_out_what_has_no_place_there(text: str) -> None:
    assert b"for <" not in trace.received(envelope(recipients=[recipient(text)]))


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("2001:db8::1", b"from client.example ([IPv6:2001:db8::1])\r\n"),
        ("192.0.2.1", b"from client.example ([192.0.2.1])\r\n"),
        ("", b"from client.example\r\n"),  # a Unix socket
    ],
)
def test_peer_is_an_address_literal(host: str, shown: bytes) -> None:
    assert shown in trace.received(envelope(peer=Peer(host)))


@pytest.mark.parametrize(
    ("hello", "shown"),
    [
        ("[192.0.2.7]", "[192.0.2.7]"),
        ("[IPv6:2001:db8::7]", "[IPv6:2001:db8::7]"),
        ("under_score.example", "under_score.example"),
        ("", "unknown"),  # no greeting at all
        ("...", "unknown"),
        ("a..b.", "a.b"),  # a dot-atom has no empty parts
        ("x) by evil (", "x??by?evil??"),  # comments
        ('a"b;c<d>@e,f:g\\h', "a?b?c?d??e?f?g?h"),  # specials
        ("a\r\nBcc: evil", "a??Bcc??evil"),  # another field
        ("[a b]", "?a?b?"),
        ("grüße.example", "gr??e.example"),
        ("x" * 300, "x" * 255),
    ],
)
def test_hello_cannot_break_the_field(hello: str, shown: str) -> None:
    assert trace.received(envelope(hello=hello)).startswith(b"Received: from %s ([" % shown.encode())


def test_utf8_stands_only_in_smtputf8_messages() -> None:
    to = [recipient("jürgen@example.com")]
    with_utf8 = trace.received(envelope(hello="grüße.example", recipients=to, is_utf8=True, protocol="UTF8SMTP"))
    assert "from grüße.example" in with_utf8.decode()
    assert "for <jürgen@example.com>" in with_utf8.decode()
    assert trace.received(envelope(recipients=to)).isascii()
    assert (
        trace.return_path(envelope(reverse_path=Address("ü", "x.test", "ü@x.test"))) == b"Return-Path: <?@x.test>\r\n"
    )


@given(hello=st.text(), is_utf8=st.booleans())
@example(hello="[0]", is_utf8=False)
def test_any_hello_makes_one_field_of_three_tokens(hello: str, is_utf8: bool) -> None:
    field = trace.received(envelope(hello=hello, is_utf8=is_utf8))
    lines = field.decode().split("\r\n")
    assert lines[-1] == ""
    assert len(lines) == 4
    assert all(len(line) < 998 for line in lines)
    # Domain, or what looks like an address-literal.
    assert re.fullmatch(r'Received: from (?:[^\s()<>\[\]:;@\\,"]+|\[[0-9A-Za-z:.-]+\]) \(\[192\.0\.2\.1\]\)', lines[0])
    message = message_from_bytes(field + b"Subject: x\r\n\r\n", policy=SMTP)
    assert message.keys() == ["Received", "Subject"]


@given(st.integers(0, 4_000_000_000))
def test_date_is_the_second_of_mail(second: int) -> None:
    field = trace.received(envelope(received_at=second + 0.5)).decode()
    assert parsedate_to_datetime(field.rpartition(";")[2]).timestamp() == second


def test_return_path_of_a_bounce_is_empty() -> None:
    assert trace.return_path(envelope()) == b"Return-Path: <>\r\n"
    sender = parse_mailbox('"a b"@x.test')
    assert sender is not None
    assert trace.return_path(envelope(reverse_path=sender)) == b'Return-Path: <"a b"@x.test>\r\n'


def test_delivered_to() -> None:
    assert trace.delivered_to("user+tag@example.com") == b"Delivered-To: user+tag@example.com\r\n"
    assert trace.delivered_to("ü@x.test") == "Delivered-To: ü@x.test\r\n".encode()
    assert trace.delivered_to("a\r\nBcc: b\x85") == b"Delivered-To: a??Bcc: b?\r\n"


def test_a_hidden_client_leaves_no_trace() -> None:
    one = envelope(recipients=[recipient("user@example.com")])
    assert trace.received(one, hides_client=True) == (
        b"Received: by mx.example.com with ESMTP id 06A9X0Q2RB3EAEX0\r\n"
        b"\tfor <user@example.com>;\r\n"
        b"\tSun, 22 Nov 2026 15:00:41 +0000\r\n"
    )


def test_fields_for_a_message_without_them() -> None:
    fields = message_from_bytes(trace.date(envelope()) + trace.message_id(envelope()) + b"\r\n", policy=SMTP)
    assert parsedate_to_datetime(str(fields["Date"])).timestamp() == int(envelope().received_at)
    assert fields["Message-ID"] == "<06A9X0Q2RB3EAEX0@mx.example.com>"
