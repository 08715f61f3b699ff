"""Text from programs -> messages: line ends, header, recipients."""

from __future__ import annotations

import email
import email.policy
import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpmaild.idn import to_ascii
from smtpmaild.sendmail.message import Author, Message, MessageError, with_crlf

ME = Author("alice", "Alice A.", "x.example", to_ascii)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\r\nb", b"a\r\nb\r\n"),
        (b"1%\r2%\r\n\r\r\n", b"1%\r\n2%\r\n\r\n\r\n"),
        (b"a\n.\nb\n", b"a\r\n"),
        (b"a\r\n.\r\nb", b"a\r\n"),
        (b".\nb", b""),
        (b"a\n..\n.b\n .\n", b"a\r\n..\r\n.b\r\n .\r\n"),
        (b"", b""),
    ],
)
def test_lines(text: bytes, expected: bytes) -> None:
    assert with_crlf(text, ends_at_dot=True) == expected


def test_dot_that_ends_nothing() -> None:
    assert with_crlf(b"a\n.\nb\n", ends_at_dot=False) == b"a\r\n.\r\nb\r\n"


@given(st.binary(max_size=60))
def test_no_bare_line_end_is_left(text: bytes) -> None:
    lines = with_crlf(text, ends_at_dot=False)
    assert lines.count(b"\r") == lines.count(b"\n") == lines.count(b"\r\n")
    assert with_crlf(lines, ends_at_dot=False) == lines


def completed(text: bytes, sender: str | None = None) -> bytes:
    return Message.of(with_crlf(text, ends_at_dot=True)).completed(ME, ME.sender(sender), lambda: "ID")


def test_whole_header_stays_as_it_is() -> None:
    text = b"Date: x\r\nfrom: y\r\nMessage-Id:<z>\r\nSubject : a\r\n\tb\r\nTo: c\r\n\r\nbody\r\n"
    assert completed(text) == text


def test_what_is_missing_is_added() -> None:
    found = email.message_from_bytes(completed(b"Subject: s\n\nbody\n"), policy=email.policy.default)
    assert found["From"] == '"Alice A." <alice@x.example>'
    assert found["Message-ID"] == "<ID@x.example>"
    assert found["Date"].datetime is not None
    assert found["Subject"] == "s"
    assert found.get_content().replace("\r\n", "\n") == "body\n"


@pytest.mark.parametrize(("sender", "author"), [("b@y.example", "b@y.example"), ("", "alice@x.example")])
def test_author_is_the_sender_if_there_is_one(sender: str, author: str) -> None:
    assert f"<{author}>\r\n".encode() in completed(b"\nbody\n", sender).splitlines(keepends=True)[0]


def test_name_beyond_ascii() -> None:
    author = Author("a", "Ä", "x.example", to_ascii)
    made = Message.of(b"\r\n").completed(author, author.sender(None), lambda: "ID")
    assert made.startswith(b"From: =?utf-8?b?w4Q=?= <a@x.example>\r\n")


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (b"just text\nmore\n", b"just text\r\nmore\r\n"),
        (b"Subject: s\nno field\n\nmore\n", b"no field\r\n\r\nmore\r\n"),
        (b"\nbody\n", b"body\r\n"),
        (b"", b""),
        (b"Subject: s\n", b""),
        (b"From alice Mon Jan 1\nSubject: s\n\nbody\n", b"body\r\n"),
        (b" folded what?\n", b" folded what?\r\n"),
    ],
)
def test_where_the_header_ends(text: bytes, body: bytes) -> None:
    assert completed(text).partition(b"\r\n\r\n")[2] == body


def test_blind_copies_stay_blind() -> None:
    made = completed(b"To: a\nBcc: secret@x.example,\n other@x.example\nCC: b\nResent-bcc: c\n\nbody\n")
    assert b"To: a\r\nCC: b\r\n\r\nbody\r\n" in made
    assert b"secret" not in made and b"other" not in made


@pytest.mark.parametrize(
    ("header", "recipients"),
    [
        (b"To: a\n", ["a"]),
        (b"To: A B <a@x>, b@y (c)\nCc: c,\n d\nbcc: e\nTo: f\n", ["a@x", "b@y", "c", "d", "e", "f"]),
        (b"To: undisclosed-recipients:;\nBcc: team: a@x, b@x;\n", ["a@x", "b@x"]),
        (b"To: a\nResent-To: b\nResent-Bcc: c\n", ["b", "c"]),
        ("To: \"Ä, b\" <ü@x>\n".encode(), ["ü@x"]),
        (b"Subject: a@x\n", []),
    ],
)  # fmt: skip
def test_recipients_of_the_header(header: bytes, recipients: list[str]) -> None:
    assert [*Message.of(with_crlf(header + b"\nTo: nobody\n", ends_at_dot=True)).recipients()] == recipients


def test_addresses_that_cannot_be_read_are_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # As newer Pythons answer where older ones guess.
    monkeypatch.setattr(email.utils, "getaddresses", lambda _: [("", "")])
    with pytest.raises(MessageError, match="cannot read the addresses in 'a@x, <b@y'"):
        [*Message.of(b"To: a@x, <b@y\r\n").recipients()]


@pytest.mark.parametrize(
    ("text", "address"),
    [("b", "b@x.example"), ("<b@y.example>", "b@y.example"), (" b ", "b@x.example"), ("b@Bü.example", "b@Bü.example")],
)
def test_addresses(text: str, address: str) -> None:
    assert ME.address(text).text == address


@pytest.mark.parametrize("text", ["", "a b", "a@", "@b", "a@b c", "a\n@b"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(MessageError, match="is no address"):
        ME.address(text)


def test_senders() -> None:
    assert ME.sender(None).text == "alice@x.example"
    assert ME.sender("").is_null and ME.sender("<>").is_null
    assert ME.sender("b@y.example").text == "b@y.example"
