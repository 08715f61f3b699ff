"""The log: one line per fact whatever a peer sent, and never a reason to wait."""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from collections.abc import Iterator
from typing import Any

import pytest

from smtpmaild import log as logging
from smtpmaild.facts import Log
from smtpmaild.log import FORMATS, LogStream, escaped, set_up, to_stderr


class Pipe:
    """A log's other end."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.stream = LogStream(self.writer)

    def close(self) -> None:
        for descriptor in (self.reader, self.writer):
            try:
                os.close(descriptor)
            except OSError:
                pass

    def read(self) -> str:
        """All that was written; closes the writing side."""
        os.close(self.writer)
        data = b""
        while chunk := os.read(self.reader, 1 << 20):
            data += chunk
        return data.decode()

    def fill(self) -> None:
        """Nobody reads: the next write blocks."""
        os.set_blocking(self.writer, False)
        try:
            while True:
                os.write(self.writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(self.writer, True)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def logger(pipe: Pipe, log_format: str = "json", level: str = "info", **environment: str) -> Log:
    return set_up(pipe.stream, level, log_format, environment)


HOSTILE = [
    ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),  # moves the cursor, colours the screen
    ("a\r\nb\nc", r"a\r\nb\nc"),  # a line of its own
    ("\x00\x07\x7f\x9b", r"\x00\x07\x7f\x9b"),  # NUL, bell, delete, the 8-bit CSI
    ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),  # turned from right to left
    ("\u2028\u2029\u200b", r"\u2028\u2029\u200b"),  # line and paragraph separators, nothing at all
    ("\udcff\ud800", r"\udcff\ud800"),  # lone surrogates: bytes that were no UTF-8
    ("\U000e0041", r"\U000e0041"),  # an invisible tag
]


@pytest.mark.parametrize(("text", "harmless"), HOSTILE)
def test_hostile_text_is_escaped(text: str, harmless: str) -> None:
    assert escaped(text) == harmless


@pytest.mark.parametrize("text", ["", "plain", "jürgen@bücher.example", "用户", "with space"])
def test_other_text_is_left_alone(text: str) -> None:
    assert escaped(text) == text


class Strange:
    def __str__(self) -> str:
        return "\x1b[2J\nobject"

    __repr__ = __str__


@pytest.mark.parametrize("log_format", ["console", "json", "logfmt"])
@pytest.mark.parametrize("text", [text for text, _ in HOSTILE])
@pytest.mark.parametrize("wrap", ["text", "list", "mapping", "nested", "tuple"])
def test_nothing_hostile_reaches_the_reader(pipe: Pipe, log_format: str, text: str, wrap: str) -> None:
    values: dict[str, object] = {
        "text": text, "list": [text], "mapping": {text: text}, "nested": [{"argument": [text]}], "tuple": (text,),
    }  # fmt: skip
    logger(pipe, log_format).info("happened", helo=values[wrap], other="kept")
    line = pipe.read()
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert "kept" in line


@pytest.mark.parametrize("log_format", ["console", "json", "logfmt"])
def test_an_object_is_as_harmless_as_text(pipe: Pipe, log_format: str) -> None:
    logger(pipe, log_format).info("happened", cause=Strange(), number=7, nothing=None, yes=True)
    line = pipe.read()
    assert line.count("\n") == 1
    assert "\x1b" not in line


@pytest.mark.parametrize("log_format", ["console", "json", "logfmt"])
def test_a_traceback_is_harmless(pipe: Pipe, log_format: str) -> None:
    try:
        raise ValueError("\x1b[2J\u202e")
    except ValueError:
        logger(pipe, log_format).exception("failed", queue_id="Q1")
    text = pipe.read()
    assert "ValueError" in text
    assert all(line.isprintable() for line in text.splitlines())
    assert (text.count("\n") == 1) is (log_format != "console")  # people want to read it


def test_a_very_long_value_is_one_line(pipe: Pipe) -> None:
    pipe.stream.start()
    logger(pipe).info("happened", helo="x" * 1_000_000)
    data = b""
    while not data.endswith(b"\n"):
        data += os.read(pipe.reader, 1 << 20)
    pipe.stream.stop()
    assert len(json.loads(data)["helo"]) == 1_000_000


def test_json_is_what_machines_read(pipe: Pipe) -> None:
    logger(pipe).info("message_accepted", queue_id="Q1", recipients=["jürgen@bücher.example"], size=7, seconds=0.25)
    line = pipe.read()
    assert line.isascii()
    facts: dict[str, Any] = json.loads(line)
    assert list(facts)[:3] == ["time", "level", "event"]  # a person who reads on sees what it is about first
    assert facts.pop("time").endswith("Z")
    assert facts == {
        "event": "message_accepted", "level": "info", "queue_id": "Q1", "recipients": ["jürgen@bücher.example"],
        "size": 7, "seconds": 0.25,
    }  # fmt: skip


def test_logfmt_begins_with_what_matters_and_quotes(pipe: Pipe) -> None:
    logger(pipe, "logfmt").warning("failed", cause='it "broke"', empty=[], rules=["a b"], by="")
    line = pipe.read()
    time_, rest = line.split(" ", 1)
    assert time_.startswith("time=20")
    assert rest.startswith('level=warning event=failed cause="it \\"broke\\"" ')
    assert "empty= " in rest


def test_console_is_for_people(pipe: Pipe) -> None:
    logger(pipe, "console").info("message_accepted", queue_id="Q1", recipients=["a@b.example"], size=0)
    line = pipe.read()
    assert " [info] message_accepted queue_id=Q1 " in line  # not padded into columns
    assert "size=0" in line
    assert "\x1b" not in line  # a pipe has no colours


def test_console_leaves_out_what_says_nothing(pipe: Pipe) -> None:
    logger(pipe, "console").info("session_closed", refusals=[], reason="", by=None, refused=0, is_last=False)
    assert pipe.read().split("] ")[1] == "session_closed refused=0 is_last=False\n"


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
        ("critical", []),
    ],
)
def test_a_level_leaves_out_what_is_below_it(pipe: Pipe, level: str, events: list[str]) -> None:
    log = logger(pipe, level=level)
    log.info("happened")
    log.warning("happened")
    log.error("happened")
    assert [json.loads(line)["level"] for line in pipe.read().splitlines()] == events


# Formats and colours, on a terminal and elsewhere


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = os.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


COLOURS = [
    ({}, True),
    ({"NO_COLOR": ""}, True),  # https://no-color.org: when present and not an empty string
    ({"NO_COLOR": "1"}, False),
    ({"TERM": "dumb"}, False),
]


@pytest.mark.parametrize(("environment", "is_coloured"), COLOURS)
def test_colours_are_for_terminals_that_want_them(
    terminal: tuple[int, int], environment: dict[str, str], is_coloured: bool
) -> None:
    ours, theirs = terminal
    set_up(LogStream(theirs), "info", "auto", environment).info("happened", helo="x")
    line = os.read(ours, 4096).decode()
    assert ("\x1b[" in line) is is_coloured
    assert "happened" in line


def test_auto_is_json_where_no_person_reads(pipe: Pipe) -> None:
    logger(pipe, "auto").info("happened")
    assert json.loads(pipe.read())["event"] == "happened"


def test_formats_are_those_of_the_config() -> None:
    assert FORMATS == ("auto", "console", "json", "logfmt")


def test_the_usual_log_is_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    stream, log = to_stderr("warning", "json")
    log.info("quiet")
    log.error("loud")
    stream.stop()  # nothing runs, nothing waits
    assert json.loads(capfd.readouterr().err)["event"] == "loud"


# The thread


def test_the_thread_writes_in_order_and_stop_flushes(pipe: Pipe) -> None:
    pipe.stream.start()
    for number in range(1000):
        pipe.stream.write(f"line {number}")
    pipe.stream.stop()
    assert pipe.read().splitlines() == [f"line {number}" for number in range(1000)]


def test_a_line_comes_soon(pipe: Pipe) -> None:
    pipe.stream.start()
    pipe.stream.write("line")
    assert os.read(pipe.reader, 100) == b"line\n"
    pipe.stream.stop()


def test_before_and_after_the_thread_lines_are_written_at_once(pipe: Pipe) -> None:
    pipe.stream.write("before")
    pipe.stream.start()
    pipe.stream.stop()
    pipe.stream.write("after")
    assert os.read(pipe.reader, 100) == b"before\nafter\n"


def test_it_starts_again(pipe: Pipe) -> None:
    for word in ("one", "two"):
        pipe.stream.start()
        pipe.stream.write(word)
        pipe.stream.stop()
    assert pipe.read() == "one\ntwo\n"


def empty(pipe: Pipe) -> str:
    """Read what is there, and what comes of it."""
    os.set_blocking(pipe.reader, False)
    data = b""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            data += os.read(pipe.reader, 1 << 20)
        except BlockingIOError:
            if b"log_lines_dropped" in data:
                return data.decode()
            time.sleep(0.005)
    raise AssertionError("no line about dropped lines")


@pytest.mark.parametrize("log_format", ["console", "json", "logfmt"])
def test_a_reader_that_stops_reading_stops_nothing(
    pipe: Pipe, log_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_WAITING", 10_000)
    log = logger(pipe, log_format)
    pipe.fill()
    pipe.stream.start()
    before = time.monotonic()
    for _ in range(1000):
        log.info("happened", text="x" * 100)
    assert time.monotonic() - before < 1.0
    text = empty(pipe)
    pipe.stream.stop()
    (notice,) = [line for line in text.splitlines() if "log_lines_dropped" in line]
    if log_format == "json":
        assert json.loads(notice)["level"] == "error"
        assert json.loads(notice)["lines"] + text.count('"happened"') == 1000
    assert "lines" in notice


def test_dropped_lines_are_told_once_and_writing_goes_on(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "_WAITING", 1_000)
    log = logger(pipe)
    pipe.fill()
    pipe.stream.start()
    for _ in range(100):
        log.info("happened")
    empty(pipe)
    os.set_blocking(pipe.reader, True)
    log.info("afterwards")
    assert json.loads(os.read(pipe.reader, 10_000))["event"] == "afterwards"
    pipe.stream.stop()


def test_stop_gives_up_where_nobody_reads_and_so_does_what_is_said_after_it(pipe: Pipe) -> None:
    pipe.fill()
    pipe.stream.start()
    pipe.stream.write("line")
    before = time.monotonic()
    pipe.stream.stop(0.1)
    pipe.stream.write("after")
    assert time.monotonic() - before < 1.0
    os.read(pipe.reader, 1 << 20)  # somebody reads again
    pipe.stream.stop()
    assert pipe.read().endswith("line\nafter\n")


def test_without_a_thread_a_reader_that_stops_reading_holds_nobody_up(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_PATIENCE_SECONDS", 0.01)
    log = logger(pipe)
    pipe.fill()
    before = time.monotonic()
    log.info("lost")
    log.info("lost")
    assert time.monotonic() - before < 1.0
    while select.select([pipe.reader], [], [], 0)[0]:
        os.read(pipe.reader, 1 << 16)
    log.info("kept")
    kept, dropped = (json.loads(line) for line in pipe.read().splitlines())
    assert (kept["event"], dropped["event"], dropped["lines"]) == ("kept", "log_lines_dropped", 2)


def test_a_closed_reader_is_no_reason_to_fail(pipe: Pipe) -> None:
    os.close(pipe.reader)
    pipe.stream.write("at once")
    pipe.stream.start()
    pipe.stream.write("by the thread")
    pipe.stream.stop()


def test_a_pipe_that_does_not_block_loses_nothing(pipe: Pipe) -> None:
    """Another process may have set the flag on the file that we share."""
    pipe.fill()
    os.set_blocking(pipe.writer, False)
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) & os.O_NONBLOCK
    pipe.stream.start()
    pipe.stream.write("line")
    time.sleep(0.05)
    while os.read(pipe.reader, 1 << 20)[-5:] != b"line\n":
        pass
    pipe.stream.stop()
