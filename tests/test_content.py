"""What policies see of a message."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpmaild.content import HEADER_LIMIT, MEMORY_LIMIT, Content


def content_of(*chunks: bytes, keep_body: bool = False) -> Content:
    content = Content(keep_body=keep_body)
    for chunk in chunks:
        content.write(chunk)
    return content


HEADERS = [
    (b"", b""),
    (b"\r\n", b""),  # a message without header
    (b"\r\nbody: no\r\n\r\n", b""),
    (b"a: 1\r\n\r\nbody\r\n\r\n", b"a: 1\r\n"),  # the first empty line ends it, not the last
    (b"a: 1\r\nb: 2\r\n\r\n", b"a: 1\r\nb: 2\r\n"),
    (b"a: 1\r\n", b"a: 1\r\n"),  # all header
    (b"a: 1", b"a: 1"),  # not even a line end
    (b"a\n\nb\r\n\r\nc", b"a\n\nb\r\n"),  # bare LF ends nothing
    (b"a\r\rb\r\n\r\nc", b"a\r\rb\r\n"),
]


@pytest.mark.parametrize(("message", "header"), HEADERS)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_the_header_ends_at_the_first_empty_line_however_it_is_cut(message: bytes, header: bytes, size: int) -> None:
    content = content_of(*(message[i : i + size] for i in range(0, len(message), size)))
    assert content.header == header
    assert content.size == len(message)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"a: 1\r\n", b"\r\n\r\n"]), max_size=12))
def test_cuts_make_no_difference(chunks: Sequence[bytes]) -> None:
    message = b"".join(chunks)
    assert content_of(*chunks).header == content_of(message).header


def test_the_header_is_bounded() -> None:
    content = content_of(b"x" * (HEADER_LIMIT - 1), b"y" * 10, b"z" * 10, b"\r\n\r\n")
    assert content.header == b"x" * (HEADER_LIMIT - 1) + b"y"
    assert content.size == HEADER_LIMIT + 23


def test_a_body_that_nobody_asked_for_is_not_kept() -> None:
    content = content_of(b"a: 1\r\n\r\nbody")
    with pytest.raises(LookupError, match="needs_body"):
        content.open()
    content.close()  # nothing to forget


@pytest.mark.parametrize("size", [10, MEMORY_LIMIT + 10])
def test_a_body_is_kept_and_read_from_its_beginning_each_time(size: int) -> None:
    content = content_of(b"a: 1\r\n\r\n", b"x" * size, keep_body=True)
    assert content.open().read(6) == b"a: 1\r\n"
    assert content.read() == b"a: 1\r\n\r\n" + b"x" * size
    assert content.read() == content.open().read()
    content.close()
    content.close()
    with pytest.raises(LookupError):
        content.read()


FIELDS = [
    (b"From: a\r\nMessage-ID: <a@b>\r\nSubject: Hi\r\n", "<a@b>", "Hi"),
    (b"Subject: added\r\nmessage-id:<a@b>\r\nSubject: the author's\r\n", "<a@b>", "the author's"),
    (b"SUBJECT:\t Hi \r\nX: Message-ID: <no@x>\r\n", "", "Hi"),
    (
        b"From: a\r\nMessage-ID: \r\n <a@b>\r\nSubject: two\r\n lines\r\n\tand more\r\nTo: x\r\n",
        "<a@b>",
        "two lines\tand more",
    ),
    (b"From: a\r\nSubject: the end", "", "the end"),
    (b"", "", ""),
    (b"From: a\r\nMessage-ID: <a@b>\r\nSubject: " + b"x" * 5000 + b"\r\n", "<a@b>", "x" * 255),
    (b"From: a\r\nSubject: y\r\n" + b" z\r\n" * 100 + b"Message-ID: <a@b>\r\n", "<a@b>", ("y" + " z" * 63)),
    (b"From: a\r\nSubject: \xff\xfe\xe2\x82\xac\r\n", "", "\ufffd\ufffd\u20ac"),
    (b"X: " + b"a" * 20000 + b"\r\nMessage-ID: <a@b>\r\nSubject: far down\r\n", "<a@b>", "far down"),
    (b"Subject: too far up\r\nX: " + b"a" * 20000 + b"\r\nMessage-ID: <a@b>\r\n", "<a@b>", ""),
    (
        b"Message-ID: <relay@b>\r\nX: " + b"a" * 9 * 1024 + b"\r\nX: " + b"b" * 9 * 1024 + b"\r\nmessage-id: <a@b>\r\n",
        "<a@b>",
        "",
    ),
]


@pytest.mark.parametrize(("header", "message_id", "subject"), FIELDS)
def test_message_id_and_subject(header: bytes, message_id: str, subject: str) -> None:
    assert content_of(header + b"\r\n\r\nSubject: body\r\n").message_id_and_subject() == (message_id, subject)
