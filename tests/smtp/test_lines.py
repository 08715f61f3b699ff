"""The receive buffer: where lines end, how long they may be, and how little of them is kept."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.smtp.lines import BadLine, LineBuffer

LIMIT = 12
TOO_LONG, BARE = BadLine.TOO_LONG, BadLine.BARE_LINE_FEED


def all_lines(buffer: LineBuffer) -> Iterator[bytes | BadLine]:
    while (line := buffer.next_line()) is not None:
        yield line


def lines_of(chunks: Iterable[bytes], *, allow_bare_lf: bool = False, limit: int = LIMIT) -> list[bytes | BadLine]:
    buffer = LineBuffer(limit, allow_bare_lf=allow_bare_lf)
    found: list[bytes | BadLine] = []
    for chunk in chunks:
        buffer.feed(chunk)
        found += all_lines(buffer)
    return found


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"NOOP", []),
        (b"NOOP\r", []),
        (b"NOOP\r\n", [b"NOOP"]),
        (b"A\r\nB\r\nC", [b"A", b"B"]),
        (b"\r\n\r\n", [b"", b""]),
        # a CR alone ends nothing and belongs to the line
        (b"A\rB\r\n", [b"A\rB"]),
        (b"A\r\r\n", [b"A\r"]),
        # a LF alone ends the line, which is refused
        (b"A\nB\r\n", [BARE, b"B"]),
        (b"\n", [BARE]),
        # the longest line, CRLF included, and one octet more
        (b"x" * 10 + b"\r\n", [b"x" * 10]),
        (b"x" * 11 + b"\r\nA\r\n", [TOO_LONG, b"A"]),
        # still without an end: refused at once, the rest of it skipped
        (b"x" * 12, []),
        (b"x" * 13, [TOO_LONG]),
        (b"x" * 100 + b"\r\nA\r\n", [TOO_LONG, b"A"]),
        # too long comes before badly ended
        (b"x" * 100 + b"\nA\r\n", [TOO_LONG, b"A"]),
    ],
)
def test_lines(data: bytes, lines: list[bytes | BadLine]) -> None:
    assert lines_of([data]) == lines
    assert lines_of(bytes([octet]) for octet in data) == lines


def test_lenient_lines() -> None:
    assert lines_of([b"A\nB\r\n\nC\rD\n"], allow_bare_lf=True) == [b"A", b"B", b"", b"C\rD"]


def reference(data: bytes, *, allow_bare_lf: bool) -> list[bytes | BadLine]:
    lines: list[bytes | BadLine] = []
    *whole, rest = data.split(b"\n")
    for line in whole:
        if len(line) + 1 > LIMIT:
            lines.append(TOO_LONG)
        elif line.endswith(b"\r"):
            lines.append(line[:-1])
        else:
            lines.append(line if allow_bare_lf else BARE)
    return [*lines, TOO_LONG] if len(rest) > LIMIT else lines


chunks_of_lines = st.lists(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b".", b"\x00", b"x" * 7]), max_size=8).map(b"".join),
    max_size=6,
)


@given(chunks_of_lines, st.booleans())
@settings(deadline=None, max_examples=200)
def test_any_chunks_make_the_lines_of_the_reference(chunks: list[bytes], allow_bare_lf: bool) -> None:
    assert lines_of(chunks, allow_bare_lf=allow_bare_lf) == reference(b"".join(chunks), allow_bare_lf=allow_bare_lf)


@given(chunks_of_lines, st.lists(st.one_of(st.just(0), st.integers(1, 9)), max_size=12))
@settings(deadline=None, max_examples=200)
def test_lines_and_bodies_in_turn_lose_nothing(chunks: list[bytes], steps: list[int]) -> None:
    """0 reads a line, a number takes that many octets; a list of bytes is the reference."""
    buffer = LineBuffer(1000, allow_bare_lf=True)
    left = b""
    for number, step in enumerate([*steps, 0, 1, 0, 2]):
        if number < len(chunks):
            buffer.feed(chunks[number])
            left += chunks[number]
        assert len(buffer) == len(left)
        if step:
            assert buffer.take(step) == left[:step]
            left = left[step:]
        elif b"\n" in left:
            line, _, left = left.partition(b"\n")
            assert buffer.next_line() == line.removesuffix(b"\r")
        else:
            assert buffer.next_line() is None
    assert buffer.take_all() == left
    assert len(buffer) == 0


def test_give_back() -> None:
    buffer = LineBuffer(LIMIT, allow_bare_lf=False)
    buffer.feed(b"body\r\n.\r\nNOOP\r\n")
    assert buffer.take_all() == b"body\r\n.\r\nNOOP\r\n"
    buffer.give_back(b"NOOP\r\n")
    assert buffer.next_line() == b"NOOP"


def test_clear() -> None:
    buffer = LineBuffer(LIMIT, allow_bare_lf=False)
    buffer.feed(b"A\r\nB\r\n")
    buffer.clear()
    assert list(all_lines(buffer)) == []
    assert len(buffer) == 0


def held(buffer: LineBuffer) -> int:
    """Octets that the buffer keeps alive, whether they count as unread or not."""
    return max(sys.getsizeof(value) for value in gc.get_referents(buffer) if isinstance(value, bytes))


def test_endless_line_is_not_kept() -> None:
    buffer = LineBuffer(565, allow_bare_lf=False)
    chunk = b"x" * 65536
    found: list[bytes | BadLine] = []
    for _ in range(3200):  # 200 MiB
        buffer.feed(chunk)
        found += all_lines(buffer)
        assert held(buffer) < 1000
    buffer.feed(b"\r\nNOOP\r\n")
    assert [*found, *all_lines(buffer)] == [TOO_LONG, b"NOOP"]


def test_line_that_comes_byte_by_byte_is_kept_up_to_the_limit() -> None:
    buffer = LineBuffer(565, allow_bare_lf=False)
    for _ in range(2000):
        buffer.feed(b"x")
        list(all_lines(buffer))
        assert held(buffer) < 700


def test_lines_that_were_read_are_let_go() -> None:
    """A session that idles after a large group must not keep it in memory."""
    buffer = LineBuffer(565, allow_bare_lf=False)
    for rest in (b"", b"NO"):
        buffer.feed(b"NOOP\r\n" * 10_000 + rest)
        assert len(list(all_lines(buffer))) == 10_000
        assert held(buffer) < 100
        buffer.clear()
