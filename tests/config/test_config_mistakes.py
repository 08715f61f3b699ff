from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.config.mistakes import ConfigError, Mistake, did_you_mean, visible


def mistake(source: str, column: int, length: int = 1, message: str = "wrong") -> Mistake:
    return Mistake("smtp.yaml", 7, column, length, message, source)


def lines(source: str, column: int, length: int = 1) -> list[str]:
    return mistake(source, column, length).render().split("\n")


def test_looks_like_a_compiler() -> None:
    assert lines("  hostname: x y", 13, 3) == [
        "smtp.yaml:7:13: wrong",
        "    7 |   hostname: x y",
        "      |             ^~~",
    ]


def test_without_a_place() -> None:
    assert Mistake("smtp.yaml", 0, 0, 0, "cannot read the file").render() == "smtp.yaml: cannot read the file"


def test_warning_says_so() -> None:
    warning = Mistake("smtp.yaml", 1, 1, 1, "odd", "x", "warning")
    assert not warning.is_error
    assert warning.render().startswith("smtp.yaml:1:1: warning: odd\n")


@pytest.mark.parametrize(
    ("source", "column", "length", "shown", "under"),
    [
        ("\tx", 2, 1, "    x", "    ^"),  # a tab
        ("受信x", 3, 1, "受信x", "    ^"),  # wide characters take two columns
        ("受信x", 1, 2, "受信x", "^~~~"),
        ("e\u0301x", 3, 1, "e\u0301x", " ^"),  # a combining accent takes none
        ("\x1b[2Jx", 5, 1, "\\x1b[2Jx", "       ^"),  # control characters as escapes
        ("\u202ex", 2, 1, "\\u202ex", "      ^"),  # what turns the direction of text too
        ("", 1, 1, "", "^"),
        ("ab", 3, 5, "ab", "  ^"),  # behind the end of the line
    ],
)
def test_caret_stands_under_the_place(source: str, column: int, length: int, shown: str, under: str) -> None:
    _, second, third = lines(source, column, length)
    assert second == f"    7 | {shown}".rstrip()
    assert third == f"      | {under}"


def test_long_line_is_cut_around_the_place() -> None:
    _, shown, under = lines("a" * 500 + "X" + "b" * 500, 501)
    assert len(shown) == len("    7 | ") + 101
    assert shown[8] == shown[-1] == "…"
    assert shown[under.index("^")] == "X"


def test_long_value_is_cut_in_the_message() -> None:
    rendered = mistake("x", 1, message=f"'{'v' * 1000}' is wrong").render()
    assert f"'{'v' * 60}…' is wrong" in rendered


def test_message_is_safe_to_print() -> None:
    assert "\x1b" not in mistake("x", 1, message="'\x1b[2J' is wrong").render()
    assert visible("a\nb\u2028") == "a\\nb\\u2028"


@settings(deadline=None)
@given(st.text(), st.integers(1, 60), st.integers(1, 60), st.text())
def test_whatever_the_line_holds(source: str, column: int, length: int, message: str) -> None:
    rendered = mistake(source.replace("\n", ""), column, length, message).render()
    first, shown, under = rendered.split("\n")
    assert all(unicodedata.category(character) not in {"Cc", "Cf", "Cs"} for character in first + shown + under)
    assert under.strip("| ~") == "^"


def test_all_in_the_order_of_the_file() -> None:
    wrong = [Mistake("f", line, column, 1, f"{line}:{column}", "x" * 9) for line, column in ((3, 1), (1, 9), (1, 2))]
    error = ConfigError(wrong)
    assert [one.message for one in error.mistakes] == ["1:2", "1:9", "3:1"]
    assert str(error) == error.render() == "\n".join(one.render() for one in error.mistakes)


def test_each_mistake_once() -> None:
    """Two at one place are two: a section may lack several keys."""
    error = ConfigError(mistake("x", 1, message=f"missing key {name}") for name in ("'b'", "'a'", "'b'"))
    assert [one.message for one in error.mistakes] == ["missing key 'b'", "missing key 'a'"]


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("mailboxs", "; did you mean 'mailboxes'?"),
        ("MAILBOXES", "; did you mean 'mailboxes'?"),
        ("aliass", "; did you mean 'Aliases'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_did_you_mean(wrong: str, hint: str) -> None:
    assert did_you_mean(wrong, ["mailboxes", "Aliases", "deliver"]) == hint
