"""Command lines: what is a verb, what its argument, what the parameters behind a path."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.smtp.command import after_keyword, decode_line, parse_bdat, parse_parameters, split_command
from smtpmaild.smtp.reply import Reply


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"NOOP x", "NOOP x"),
        (b"", ""),
        (b"RCPT TO:<\xc3\xa9@x>", "RCPT TO:<\u00e9@x>"),
        # no control characters: NUL, tabulator, the CR of "QUIT\r\r\n", escape, DEL
        (b"NOOP \x00", None),
        (b"NOOP\tx", None),
        (b"QUIT\r", None),
        (b"NOOP \x1b[2J", None),
        (b"NOOP \x7f", None),
        # nor C1, which UTF-8 can spell
        (b"NOOP \xc2\x85", None),
        # what merely looks odd is no control character: a no-break space, a right-to-left mark
        (b"NOOP \xc2\xa0\xe2\x80\x8f", "NOOP \u00a0\u200f"),
        # no UTF-8: Latin-1, an overlong slash, half a pair of surrogates
        (b"NOOP \xe9", None),
        (b"NOOP \xc0\xaf", None),
        (b"NOOP \xed\xa0\x80", None),
    ],
)
def test_decode_line(line: bytes, text: str | None) -> None:
    assert decode_line(line) == text


@pytest.mark.parametrize(
    ("text", "verb", "argument"),
    [
        ("QUIT", "QUIT", ""),
        ("quit", "QUIT", ""),
        # RFC 5321 §4.1.1: "SMTP receivers SHOULD tolerate trailing white space before the terminating <CRLF>"
        ("Quit  ", "QUIT", ""),
        ("MAIL  FROM:<>  ", "MAIL", "FROM:<>"),
        ("MAIL FROM:<a@b>  SIZE=1", "MAIL", "FROM:<a@b>  SIZE=1"),
        ("  NOOP", "NOOP", ""),
        ("", "", ""),
        # white space is the blank of ASCII, nothing else
        ("\u00a0QUIT", "\u00a0QUIT", ""),
        ("NOOP x\u2003", "NOOP", "x\u2003"),
        # upper() makes S of U+017F, I of U+0131 and ST of U+FB06: none of them is that letter
        ("R\u017fET", "R\u017fET", ""),
        ("QU\u0131T", "QU\u0131T", ""),
        ("QU\u0131t", "QU\u0131t", ""),
    ],
)
def test_split_command(text: str, verb: str, argument: str) -> None:
    assert split_command(text) == (verb, argument)


@pytest.mark.parametrize(
    ("argument", "rest"),
    [
        ("FROM:<a@b>", "<a@b>"),
        ("from:<a@b>", "<a@b>"),
        # a blank behind the colon is not of the grammar, and common
        ("From:  <a@b>", "<a@b>"),
        ("FROM:", ""),
        # before the colon nobody sends one
        ("FROM :<a@b>", None),
        ("FROM<a@b>", None),
        ("TO:<a@b>", None),
        ("", None),
    ],
)
def test_after_keyword(argument: str, rest: str | None) -> None:
    assert after_keyword(argument, "FROM:") == rest


KNOWN = {
    "SIZE": re.compile("[0-9]{1,20}", re.ASCII),
    "BODY": re.compile("7BIT|8BITMIME", re.IGNORECASE | re.ASCII),
    "SMTPUTF8": re.compile(""),
}


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        (" SIZE=1", {"SIZE": "1"}),
        ("  size=1   Body=7bit ", {"SIZE": "1", "BODY": "7bit"}),
        (" SMTPUTF8", {"SMTPUTF8": ""}),
        (" SIZE=99999999999999999999", {"SIZE": "99999999999999999999"}),
    ],
)
def test_parameters(text: str, parameters: dict[str, str]) -> None:
    assert parse_parameters(text, KNOWN) == parameters


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SIZE=1", 501),  # <a@b>SIZE=1
        (" SIZE=", 501),  # esmtp-value = 1*(...)
        (" SIZE", 501),  # a value is missing
        (" =1", 501),
        (" SIZE=1=2", 501),  # "=" is in no value
        (" SIZE=-1", 501),
        (" SIZE=+1", 501),
        (" SIZE=1_0", 501),  # int() would take it
        (" SIZE=0x10", 501),
        (" SIZE=\u00b2", 501),  # isdigit() would take it
        (" SIZE=\u0661", 501),  # so would int() and \d
        (" SIZE=" + "1" * 21, 501),  # size-value ::= 1*20DIGIT
        (" SIZE=1 size=1", 501),  # twice
        (" BODY=7BIT,8BITMIME", 501),
        (" BODY=8B\u0131TMIME", 501),  # U+0131 is an i to a careless comparison
        (" SMTPUTF8=1", 501),  # takes no value
        (" -SIZE=1", 501),  # a keyword begins with a letter or digit
        (" S\u00cfZE=1", 501),
        (" SIZE=1\u2003SMTPUTF8", 501),  # an em space separates nothing
        (" AUTH=<>", 555),  # unknown
        (" X", 555),
        (" X-1=y", 555),
    ],
)
def test_bad_parameters(text: str, code: int) -> None:
    refusal = parse_parameters(text, KNOWN)
    assert isinstance(refusal, Reply)
    assert (refusal.code, refusal.enhanced) == (code, "5.5.4")


@pytest.mark.parametrize(
    ("argument", "parsed"),
    [
        ("0", (0, False)),
        ("86 LAST", (86, True)),
        ("0 last", (0, True)),
        ("010", (10, False)),
        ("99999999999999999999", (99999999999999999999, False)),
        ("", None),
        ("LAST", None),
        ("-1", None),
        ("+1", None),
        ("1 ", None),
        ("1,5", None),
        ("1LAST", None),
        ("1 LAST LAST", None),
        ("1 FIRST", None),
        ("0x10", None),
        ("\u0661", None),
        ("\u00b2", None),
        ("1 LA\u017fT", None),
        ("1" * 21, None),
    ],
)
def test_bdat(argument: str, parsed: tuple[int, bool] | None) -> None:
    assert parse_bdat(argument) == parsed


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=200)
def test_no_line_raises(line: bytes) -> None:
    text = decode_line(line)
    if text is not None:
        verb, argument = split_command(text)
        assert " " not in verb
        parse_parameters(f" {argument}", KNOWN)
        parse_bdat(argument)
