"""SASLprep: what becomes of names and passwords (RFC 4013)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpmaild.auth.saslprep import prepare, prepare_bytes


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # the examples of RFC 4013 §3
        ("I\u00adX", "IX"),  # soft hyphen mapped to nothing
        ("user", "user"),
        ("USER", "USER"),  # case is kept
        ("\u00aa", "a"),  # NFKC
        ("\u2168", "IX"),
        ("\x07", ""),  # prohibited character
        ("\u06271", ""),  # bidirectional check
        # more
        ("cafe\u0301", "caf\u00e9"),  # two ways to write one letter
        ("a\u3000b", "a b"),  # a space beyond ASCII
        ("\u0627\u0628", "\u0627\u0628"),  # from right to left
        ("\u0627a\u0628", ""),
        ("pass \U0001f511", "pass \U0001f511"),  # younger than Unicode 3.2
        ("a\u0085", ""),  # a control character beyond ASCII
        ("\ue000", ""),  # private use
        ("", ""),
        ("a\tb", ""),
    ],
)
def test_prepared(text: str, prepared: str) -> None:
    assert prepare(text) == prepared


@given(st.text())
def test_prepared_once_is_prepared(text: str) -> None:
    assert prepare(prepare(text)) == prepare(text)


def test_octets_that_are_no_utf8_are_nobody() -> None:
    assert prepare_bytes(b"\xff") == ""
    assert prepare_bytes("caf\u00e9".encode()) == "caf\u00e9"


def test_length_is_bounded() -> None:
    assert prepare_bytes(b"x" * 512) == "x" * 512
    assert prepare_bytes(b"x" * 513) == ""
    assert prepare_bytes("\u65e5".encode() * 171) == ""
