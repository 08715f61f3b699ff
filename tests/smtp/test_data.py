r"""The body readers against slow ones that go by line and by byte, over every mixture of CR, LF, dot and NUL."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.smtp.data import BodyChecker, DotDecoder, DotEncoder


def decode(chunks: Iterable[bytes]) -> tuple[bytes, bytes | None]:
    """(message so far, input behind the end of data or None)."""
    decoder = DotDecoder()
    message, rest = b"", None
    for chunk in chunks:
        if rest is not None:
            rest += chunk
            continue
        decoded, rest = decoder.feed(chunk)
        message += decoded
    return message, rest


def byte_by_byte(data: bytes) -> list[bytes]:
    return [bytes([octet]) for octet in data]


@pytest.mark.parametrize(
    ("data", "message", "rest"),
    [
        # the empty message: the line before the first ended in CRLF
        (b".\r\n", b"", b""),
        (b"\r\n.\r\n", b"\r\n", b""),
        (b"a\r\n.\r\nQUIT\r\n", b"a\r\n", b"QUIT\r\n"),
        # RFC 5321 §4.5.2: the first dot of a line goes, wherever the line stands
        (b"..\r\n.\r\n", b".\r\n", b""),
        (b"...\r\n.\r\n", b"..\r\n", b""),
        (b".a\r\n.\r\n", b"a\r\n", b""),
        (b"a\r\n..\r\n..\r\n.\r\n", b"a\r\n.\r\n.\r\n", b""),
        (b"a.\r\n.b.\r\n.\r\n", b"a.\r\nb.\r\n", b""),
        # only the first end counts
        (b".\r\n.\r\n", b"", b".\r\n"),
        # a dot and a blank is a line with a dot too many
        (b". \r\n.\r\n", b" \r\n", b""),
    ],
)
def test_end_of_data(data: bytes, message: bytes, rest: bytes) -> None:
    assert decode([data]) == (message, rest)
    assert decode(byte_by_byte(data)) == (message, rest)


@pytest.mark.parametrize(
    "smuggled",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\n.\r",
        b"\r.\n",
        b"\r\n\x00.\r\n",
        b"\r\n.\x00\r\n",
        b"\r\n.\r\x00\n",
        b"\r\x00\n.\r\n",
        b"\r\n.\r\r\n",
        b"\n\n.\n\n",
        b"\r\r\n\n.\r\r\n",
        b"\r\n .\r\n",
        b"\r\n. \r\n",
        b"\r\n..\r\n",
        b"\x85.\x85",
        b"\x0c\n.\x0b\n",
    ],
)
def test_nothing_else_ends_data(smuggled: bytes) -> None:
    data = b"first" + smuggled + b"MAIL FROM:<evil@x>\r\n"
    for chunks in ([data], byte_by_byte(data), byte_by_byte(data + b".\r\nQUIT\r\n")):
        message, rest = decode(chunks)
        assert rest in (None, b"QUIT\r\n")
        assert b"MAIL FROM:<evil@x>" in message


def reference_decode(data: bytes) -> tuple[bytes, bytes | None]:
    """Line by line, where a line is what CRLF ends."""
    message = b""
    *lines, unfinished = data.split(b"\r\n")
    for number, line in enumerate(lines):
        if line == b".":
            return message, b"\r\n".join([*lines[number + 1 :], unfinished])
        message += line.removeprefix(b".") + b"\r\n"
    return message + unfinished.removeprefix(b"."), None


octets = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\x00", b"\r\n", b"\r\n.", b"\r\n.\r\n"]), max_size=6)
bodies = st.lists(octets.map(b"".join), max_size=6)


@given(bodies)
@settings(deadline=None, max_examples=400)
def test_decoder_is_the_reference(chunks: list[bytes]) -> None:
    message, rest = decode(chunks)
    expected, expected_rest = reference_decode(b"".join(chunks))
    assert rest == expected_rest
    if rest is not None:
        assert message == expected
    else:
        # What may yet become the end of data is held back; the end shows what it was.
        held_back = len(expected) - len(message)
        assert expected.startswith(message)
        assert 0 <= held_back <= 4
        assert decode([*chunks, b"!\r\n.\r\n"])[0] == reference_decode(b"".join(chunks) + b"!\r\n.\r\n")[0]


def test_decoder_holds_back_four_octets_at_most() -> None:
    decoder = DotDecoder()
    for chunk in byte_by_byte(b"\r\n.\r\r\n.\r\r\n.." * 200):
        decoder.feed(chunk)
        assert max(len(value) for value in gc.get_referents(decoder) if isinstance(value, bytes)) <= 4


LONGEST = 10


def check(chunks: Sequence[bytes], *, longest: int = LONGEST, is_binary: bool = False) -> tuple[int, bool, bool]:
    checker = BodyChecker(longest, is_binary=is_binary)
    for chunk in filter(None, chunks):
        checker.feed(chunk)
    checker.finish()
    return checker.size, checker.has_bare_newline, checker.has_long_line


@pytest.mark.parametrize(
    ("body", "is_bare", "is_long"),
    [
        (b"", False, False),
        (b"\r\n", False, False),
        (b"a\r\n\r\nb\r\n", False, False),
        (b"a", False, False),
        # a CR or LF that stands alone, wherever it stands
        (b"\n", True, False),
        (b"\r", True, False),
        (b"a\nb\r\n", True, False),
        (b"a\rb\r\n", True, False),
        (b"a\r\r\n", True, False),
        (b"a\r\n\n", True, False),
        (b"a\n\r", True, False),
        (b"a\r\n\r", True, False),
        # the longest line, and one octet more
        (b"x" * 10 + b"\r\n", False, False),
        (b"x" * 11 + b"\r\n", False, True),
        (b"a\r\n" + b"x" * 11 + b"\r\na\r\n", False, True),
        # BDAT may end within a line
        (b"a\r\n" + b"x" * 10, False, False),
        (b"a\r\n" + b"x" * 11, False, True),
        (b"x" * 100, False, True),
    ],
)
def test_checker(body: bytes, is_bare: bool, is_long: bool) -> None:
    for chunks in ([body], byte_by_byte(body)):
        assert check(chunks) == (len(body), is_bare, is_long)


def test_checker_without_longest_line() -> None:
    assert check([b"x" * 5000], longest=0) == (5000, False, False)


def test_binary_body_has_no_lines() -> None:
    assert check([b"\r", b"\n\n" + b"x" * 5000 + b"\r"], is_binary=True) == (5004, False, False)


def reference_check(body: bytes) -> tuple[int, bool, bool]:
    is_bare = False
    for index, octet in enumerate(body):
        if octet == 13 and body[index + 1 : index + 2] != b"\n":
            is_bare = True
        if octet == 10 and (index == 0 or body[index - 1] != 13):
            is_bare = True
    # Where bare line feeds are kept, a line is what LF ends, and the room for its CR is free.
    *lines, unfinished = body.split(b"\n")
    is_long = any(len(line) > LONGEST + 1 for line in lines) or len(unfinished) > LONGEST
    return len(body), is_bare, is_long


@given(bodies, st.integers(0, 3))
@settings(deadline=None, max_examples=400)
def test_checker_is_the_reference(chunks: list[bytes], stretch: int) -> None:
    chunks = [chunk.replace(b"a", b"a" * (1 + 4 * stretch)) for chunk in chunks]
    assert check(chunks) == reference_check(b"".join(chunks))


class Counted(bytes):
    """Bytes that count how often they are searched."""

    searches = 0

    def rfind(self, *arguments: object) -> int:
        Counted.searches += 1
        return super().rfind(*arguments)  # type: ignore[arg-type]

    def find(self, *arguments: object) -> int:
        Counted.searches += 1
        return super().find(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("line", [b"\r\n", b"a\r\n", b"x" * 998 + b"\r\n", b"x" * 600 + b"\r\n"])
def test_short_lines_cost_no_more_than_long_ones(line: bytes) -> None:
    """Lines are measured from one longest line to the next, not one by one."""
    checker = BodyChecker(998)
    Counted.searches = 0
    body = Counted((line * (100_000 // len(line) + 1))[:100_000])
    checker.feed(body)
    assert not checker.has_long_line
    assert Counted.searches <= 2 * 100_000 // 1000 + 2


EVEN = (b"x" * 76 + b"\r\n") * 400  # large, with lines of one length, as base64 has them


@pytest.mark.parametrize(
    ("chunks", "is_long"),
    [
        ([EVEN, EVEN], False),
        ([EVEN[20:], EVEN[:-10]], False),
        ([b"x" * 970, EVEN[48:], EVEN], False),  # 970 and 28: the longest line there may be
        ([b"x" * 971, EVEN[48:], EVEN], True),
        ([EVEN, b"x" * 998 + b"\r\n"], False),
        ([EVEN, b"x" * 999 + b"\r\n"], True),
        ([EVEN + b"x" * 900, b"x" * 98 + b"\r\n"], False),
        ([EVEN + b"x" * 900, b"x" * 99 + b"\r\n"], True),
        ([(b"x" * 999 + b"\r\n") * 20], True),
        ([EVEN[:780] + b"x" * 1000 + EVEN], True),
        ([EVEN.replace(b"\r\n", b"xx", 200)], True),
        ([b"x" * 20_000], True),
        ([b"\n" + b"x" * 20_000], True),
    ],
)
def test_lines_of_one_length(chunks: list[bytes], is_long: bool) -> None:
    assert check(chunks, longest=998)[2] is is_long


def test_endless_line_is_measured_once() -> None:
    checker = BodyChecker(998)
    Counted.searches = 0
    for _ in range(1000):
        checker.feed(Counted(b"x" * 1000))
    assert checker.has_long_line
    assert Counted.searches <= 2


def encode(chunks: Iterable[bytes]) -> bytes:
    encoder = DotEncoder()
    return b"".join(map(encoder.feed, chunks)) + encoder.finish()


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        (b"", b".\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        # the last line lacks its end
        (b"a", b"a\r\n.\r\n"),
        (b".a\r\n.\r\n..", b"..a\r\n..\r\n...\r\n.\r\n"),
        # bare line ends become real ones, and what stands behind them is stuffed
        (b"\n.\n", b"\r\n..\r\n.\r\n"),
        (b"\r.\r", b"\r\n..\r\n.\r\n"),
        (b"a\r\r\n.\n", b"a\r\n\r\n..\r\n.\r\n"),
    ],
)
def test_encoded(message: bytes, sent: bytes) -> None:
    assert encode([message]) == sent
    assert encode(byte_by_byte(message)) == sent


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a"])), st.data())
def test_encoded_message_has_one_end(parts: list[bytes], data: st.DataObject) -> None:
    chunks = [b"".join(parts[:at]) for at in (data.draw(st.integers(0, len(parts))),)] if parts else []
    chunks.append(b"".join(parts)[len(b"".join(chunks)) :])
    sent = encode(chunks)
    assert sent == encode([b"".join(parts)])
    assert decode([sent])[1] == b""
    # No server finds another end, however it understands line ends.
    assert sent.replace(b"\r\n", b"").count(b"\r") == sent.replace(b"\r\n", b"").count(b"\n") == 0
