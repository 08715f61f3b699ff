"""Replies are safe to send, whatever text they were made from."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.smtp import reply as replies
from smtpmaild.smtp.reply import Reply, printable

CANNED = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}


@pytest.mark.parametrize(
    ("made", "wire"),
    [
        # one line
        (Reply(250, "2.0.0", "Ok"), b"250 2.0.0 Ok\r\n"),
        # RFC 2034 §4: no enhanced code in a 3yz, a greeting, a reply to EHLO
        (Reply(354, "", "Go on"), b"354 Go on\r\n"),
        # several lines, and the enhanced code stands on each of them
        (Reply(550, "5.7.1", "No.\nReally not."), b"550-5.7.1 No.\r\n550 5.7.1 Really not.\r\n"),
        # an empty text is still a reply that ends, or the client would wait for ever
        (Reply(250, "2.0.0", ""), b"250 2.0.0 \r\n"),
        (Reply(250, "", ""), b"250 \r\n"),
        # a line feed separates lines, a carriage return is no more than an unprintable character
        (Reply(250, "", "a\r\nb"), b"250-a?\r\n250 b\r\n"),
        # control characters, DEL, and everything beyond ASCII
        (Reply(550, "5.1.1", "<\x00\t\x1b\x7f\x85\u00e9\u2028\U0001f600>"), b"550 5.1.1 <????????>\r\n"),
    ],
)
def test_wire(made: Reply, wire: bytes) -> None:
    assert made.wire == wire


def test_wire_without_enhanced_code() -> None:
    assert Reply(550, "5.7.1", "a\nb").wire_without_enhanced() == b"550-a\r\n550 b\r\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        # 4 octets of code, 6 of enhanced code, 2 of CRLF: 500 are left
        ("x" * 500, ["x" * 500]),
        # one more makes two lines
        ("x" * 501, ["x" * 500, "x"]),
        # folded at the last blank that fits, which then goes
        ("x" * 300 + " " + "y" * 300, ["x" * 300, "y" * 300]),
        # a blank at the very beginning is no place to fold
        (" " + "x" * 500, [" " + "x" * 499, "x"]),
        # nothing but blanks
        (" " * 501, ["", " "]),
        # folding does not reach over a line end
        ("x" * 500 + "\n" + "y", ["x" * 500, "y"]),
    ],
)
def test_long_text_is_folded(text: str, lines: list[str]) -> None:
    wire = Reply(550, "5.1.1", text).wire.decode()
    assert [line[10:] for line in wire.splitlines()] == lines


@given(st.text(st.characters(), max_size=60).map(lambda text: text * 20), st.sampled_from(["", "5.123.123"]))
@settings(deadline=None, max_examples=150)
def test_any_text_makes_a_well_formed_reply(text: str, enhanced: str) -> None:
    wire = Reply(550, enhanced, text).wire
    lines = wire.split(b"\r\n")
    assert lines.pop() == b""
    prefix = enhanced.encode() + b" " if enhanced else b""
    for line in lines[:-1]:
        assert re.fullmatch(rb"550-" + re.escape(prefix) + rb"[\x20-\x7e]*", line)
    assert re.fullmatch(rb"550 " + re.escape(prefix) + rb"[\x20-\x7e]*", lines[-1])
    assert max(map(len, lines)) <= 510


@pytest.mark.parametrize(
    ("code", "enhanced"),
    [
        (199, ""),  # 1yz is no final reply
        (600, ""),  # there is no 6yz
        (250, "5.0.0"),  # the classes disagree
        (354, "3.0.0"),  # RFC 3463 has no class 3
        (550, "5.1"),  # two parts
        (550, "5.1.1 x"),  # something behind it
        (550, "5.1.\u0661"),  # a digit, but no ASCII
        (550, "5.1.1000"),  # four digits
    ],
)
def test_reply_that_cannot_be_sent(code: int, enhanced: str) -> None:
    with pytest.raises(ValueError, match="reply code"):
        Reply(code, enhanced, "text")


@pytest.mark.parametrize(
    ("code", "is_positive", "is_permanent"),
    [(220, True, False), (354, True, False), (451, False, False), (550, False, True)],
)
def test_class(code: int, is_positive: bool, is_permanent: bool) -> None:
    made = Reply(code, "", "text")
    assert (made.is_positive, made.is_permanent) == (is_positive, is_permanent)


@pytest.mark.parametrize("name", CANNED)
def test_canned_reply_has_its_enhanced_code(name: str) -> None:
    canned = CANNED[name]
    # RFC 2034 §4: none in a 3yz, none in what answers HELO and EHLO
    assert bool(canned.enhanced) != (300 <= canned.code < 400 or name == "HELLO_SYNTAX")
    assert canned.wire == canned.wire.split(b"\r\n")[0] + b"\r\n", "one line"


def test_str_is_one_line() -> None:
    assert str(Reply(550, "5.7.1", "a\nb")) == "550 5.7.1 a / b"
    assert str(Reply(354, "", "")) == "354"


def test_replies_are_compared_by_what_they_say() -> None:
    assert Reply(250, "2.0.0", "Ok") == replies.NOOP_OK
    assert Reply(250, "2.1.0", "Ok") != replies.NOOP_OK


@pytest.mark.parametrize(
    ("text", "expected"), [("", ""), ("plain ~", "plain ~"), ("a\nb", "a?b"), ("\u00a0\ud800", "??")]
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
