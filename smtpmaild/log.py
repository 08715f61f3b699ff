"""The log: structlog, set up once, and for JSON what does the same in one step.

Written by a thread of its own, so that a slow reader never stops the mail. One line per fact on standard error,
`console` for people, `json` or `logfmt` for machines. Whatever came from the network is escaped: a line of the log is
one line, and nothing in it moves a terminal's cursor.
"""

from __future__ import annotations

import json
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import structlog
from pydantic_core import to_json

from smtpmaild.facts import Log

#: Characters that wait for the writer. More come only while standard error is blocked; new lines are then counted, not
#: kept. Not a number of lines: a peer can make one of 300 KB, by naming recipients.
_WAITING = 16 * 1024 * 1024
#: How long the writer collects before it writes: one write for a few hundred lines under load, 20 ms late at most.
_COLLECT_SECONDS = 0.02
#: How long a line may take that is written without a thread.
_PATIENCE_SECONDS = 1.0

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
FORMATS = ("auto", "console", "json", "logfmt")


class LogStream:
    """Lines on their way to a file descriptor: written at once until start(), by a thread between start() and stop().

    A worker process calls start() after its fork: threads do not survive one.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        # No lock: the left ones are counted by those who log, nearly always one thread, the right ones by the writer's.
        self._taken, self._written = 0, 0
        self._dropped, self._told = 0, 0
        self._tell_dropped: Callable[[int], object] = int  # until set_up
        self._there_is_work = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def is_terminal(self) -> bool:
        """People are reading."""
        return os.isatty(self._descriptor)

    def when_dropped(self, tell: Callable[[int], object]) -> None:
        """Let the thread call `tell` with the number of lines that were dropped, once it can write again."""
        self._tell_dropped = tell

    def write(self, line: str) -> None:
        """Take a line without its line feed. Never blocks while the thread runs, else for a moment; never raises."""
        if self._thread is None:
            self._write_soon(line)
            return
        if self._taken - self._written > _WAITING:
            self._dropped += 1
            return
        self._taken += len(line)
        self._lines.append(line)
        if not self._there_is_work.is_set():
            self._there_is_work.set()

    def write_now(self, line: str) -> None:
        """Write a line, however long that takes."""
        data = memoryview((line + "\n").encode("utf-8", "backslashreplace"))
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody who shares the open file has set it so
                self._has_room(None)
            except OSError:
                return  # nobody can read it; the mail is more important than the log

    def _write_soon(self, line: str) -> None:
        # A supervisor has no thread, and must not hang on its log where nobody reads.
        if self._has_room(_PATIENCE_SECONDS):
            self.write_now(line)
            self._tell_of_dropped()
        else:
            self._dropped += 1

    def _has_room(self, seconds: float | None) -> bool:
        ready = select.poll()
        ready.register(self._descriptor, select.POLLOUT)
        return bool(ready.poll(None if seconds is None else seconds * 1000))

    def _tell_of_dropped(self) -> None:
        dropped = self._dropped - self._told
        if dropped:
            self._told += dropped
            self._tell_dropped(dropped)

    def start(self) -> None:
        """Let a thread write from now on."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Write what waits and end the thread; give up after `timeout` seconds if nobody reads.

        Lines that come after it are written at once, or, where nobody reads, not at all.
        """
        thread = self._thread
        if thread is not None:
            self._stopping = True
            self._there_is_work.set()
            thread.join(timeout)
            if not thread.is_alive():
                self._thread = None

    def _run(self) -> None:
        while True:
            self._there_is_work.wait()
            if not self._stopping:
                time.sleep(_COLLECT_SECONDS)
            self._there_is_work.clear()
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self.write_now("\n".join(lines))
                self._written += sum(map(len, lines))
            self._tell_of_dropped()
            if self._stopping and not self._lines:
                return


class _Printer:
    """What structlog calls with a rendered line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = write


def set_up(stream: LogStream, level: str, log_format: str, environment: Mapping[str, str]) -> Log:
    """The logger of this process. log_format: one of FORMATS; auto is console on a terminal and JSON elsewhere."""
    if log_format == "auto":
        log_format = "console" if stream.is_terminal else "json"
    colours = stream.is_terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"

    def logger(write: Callable[[str], None]) -> Log:
        if log_format == "json":
            return _JsonLog(write, _LEVELS[level])
        made: Log = structlog.wrap_logger(
            _Printer(write),
            processors=_RENDERERS[log_format](colours),
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        ).bind()  # bound once: the proxy before it costs 0.6 us for each line
        return made

    told_now = logger(stream.write_now)
    stream.when_dropped(lambda lines: told_now.error("log_lines_dropped", lines=lines))
    return logger(stream.write)


def to_stderr(level: str = "info", log_format: str = "auto") -> tuple[LogStream, Log]:
    """The usual log: standard error of this process."""
    stream = LogStream(2)
    return stream, set_up(stream, level, log_format, os.environ)


def escaped(text: str) -> str:
    r"""The text on one line: control characters, and those that turn its direction, as \x1b and \u202e."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


_Processor = Callable[[Any, str, MutableMapping[str, Any]], Any]
# ensure_ascii: everything beyond ASCII leaves as \uXXXX, so no byte of a peer's reaches a terminal as it is.
_encode_anything = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=str).encode


def _encode(value: Any) -> str:
    """As JSON, in ASCII: by pydantic's encoder, three times as fast, where that comes to the same."""
    try:
        return to_json(value, fallback=str).decode("ascii")
    except ValueError:  # beyond ASCII, or no text at all
        return _encode_anything(value)


class _JsonLog:
    """What structlog's logger does with one processor that renders JSON, in one step.

    5.6 us a line instead of 7.3, and 12 with structlog's own four processors: twice a message, where clients come with
    one each.
    """

    def __init__(self, write: Callable[[str], None], least: int) -> None:
        """least: the number of the lowest level that is written."""
        self._write = write
        self._least = least

    def info(self, event: str, /, **facts: object) -> None:
        if self._least <= _LEVELS["info"]:
            self._write(_encode({"time": _now(), "level": "info", "event": event, **facts}))

    def warning(self, event: str, /, **facts: object) -> None:
        self._tell("warning", event, facts)

    def error(self, event: str, /, **facts: object) -> None:
        self._tell("error", event, facts)

    def exception(self, event: str, /, **facts: object) -> None:
        self._tell("error", event, {**facts, "exc_info": True})

    def _tell(self, level: str, event: str, facts: Mapping[str, object]) -> None:
        if self._least <= _LEVELS[level]:
            line = {"time": _now(), "level": level, "event": event, **facts}
            self._write(_encode(structlog.processors.format_exc_info(None, level, line)))


class _Clock:
    """The time as text, RFC 3339 in UTC; of a second the date is made once."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((now - second) * 1e6):06d}Z"


_now = _Clock()


def _stamp(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["time"], event["level"] = _now(), name
    return event


def _escape_values(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            # Of a traceback the lines stay lines; _logfmt puts them on one.
            event[key] = "\n".join(map(escaped, value.split("\n"))) if key == "exception" else escaped(value)
        elif isinstance(value, list | dict | tuple):
            event[key] = _encode(value) if value else ""
        elif not isinstance(value, int | float | None):
            event[key] = escaped(str(value))
    return event


def _leave_out_empty(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: value for key, value in event.items() if value is not None and value != ""}


def _logfmt(colours: bool) -> list[_Processor]:
    order = ("time", "level", "event")
    return [
        _stamp,
        structlog.processors.format_exc_info,
        _escape_values,
        structlog.processors.LogfmtRenderer(key_order=order),
    ]


def _console(colours: bool) -> list[_Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colours,
        timestamp_key="time",
        sort_keys=False,
        pad_event_to=0,  # columns would push every line of ours over the edge of a terminal
        pad_level=False,
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [_stamp, structlog.processors.format_exc_info, _escape_values, _leave_out_empty, renderer]


_RENDERERS: Mapping[str, Callable[[bool], list[_Processor]]] = {
    "logfmt": _logfmt,
    "console": _console,
}
