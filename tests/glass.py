"""A terminal of its own for a program: a pseudo-terminal, and what somebody in front of it would see.

It knows what full-screen programs of ours send: text, cursor home, the alternate screen, colours, a cursor that is
shown or not. Anything else, and text beyond the last column or line, is a failure of the test.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

PATIENCE = 30.0
_PART = re.compile(r"\x1b\[(?P<how>[?0-9;]*)(?P<what>[A-Za-z])|(?P<text>[^\x1b\r\n]+)|(?P<move>[\r\n])")


class Screen:
    """What is seen of what was sent."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.is_alternate = False
        self.has_cursor = True
        self.frames = 0  # how often it was begun anew
        self.before = ""  # what was said outside of the alternate screen
        self._lines: dict[int, str] = {}
        self._row = self._column = 0

    @property
    def lines(self) -> list[str]:
        return [self._lines.get(row, "").rstrip() for row in range(self.height)]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def show(self, sent: str) -> str:
        """Draw it; what is left is the beginning of something."""
        place = 0
        while place < len(sent) and (part := _PART.match(sent, place)):
            place = part.end()
            if part["text"] is not None:
                self._write(part["text"])
            elif part["move"] is not None:
                self._move(part["move"])
            else:
                self._control(part["how"], part["what"])
        assert len(sent) - place < 16, f"it is no terminal that knows {sent[place : place + 16]!r}"
        return sent[place:]

    def _write(self, text: str) -> None:
        if not self.is_alternate:
            self.before += text
            return
        assert text.isprintable(), text
        line = self._lines.get(self._row, "").ljust(self._column)
        self._lines[self._row] = line[: self._column] + text + line[self._column + len(text) :]
        self._column += len(text)
        assert self._column <= self.width, f"{text!r} goes beyond column {self.width}"

    def _move(self, how: str) -> None:
        if how == "\r":
            self._column = 0
            return
        if not self.is_alternate:
            self.before += "\n"
            return
        self._row += 1
        assert self._row < self.height, "the screen would scroll"

    def _control(self, how: str, what: str) -> None:
        match how + what:
            case "?1049h":
                self.is_alternate, self._lines = True, {}
            case "?1049l":
                self.is_alternate = False
            case "?25h" | "?25l":
                self.has_cursor = what == "h"
            case "H":
                self._row = self._column = 0
                self.frames += 1
            case _:
                assert what == "m", f"it is no terminal that knows {how}{what}"


class Terminal:
    """A program in front of somebody. Ends with the block."""

    def __init__(
        self, command: Sequence[str], width: int = 80, height: int = 24, environment: Mapping[str, str] = {}
    ) -> None:
        self._ours, self.tty = os.openpty()
        self.screen = Screen(width, height)
        self._sent = b""
        self._left = ""
        self.resize(width, height, tell=False)
        self.settings: list[Any] = termios.tcgetattr(self.tty)
        known = {"TERM": "xterm-256color", **environment}
        self.process = subprocess.Popen(
            command, stdin=self.tty, stdout=self.tty, stderr=self.tty, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env={**os.environ, **known},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self.tty)
        if error is not None:
            print(self.screen.text, self.screen.before, sep="\n--\n")

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def resize(self, width: int, height: int, *, tell: bool = True) -> None:
        """As a window manager does; the kernel sends SIGWINCH. What it looks like then is not known."""
        if tell:
            self.look()
            self.screen.width, self.screen.height, self.screen._lines = width, height, {}
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def look(self, seconds: float = 0.0) -> Screen:
        """What is there now, or comes within this time."""
        while select.select([self._ours], [], [], seconds)[0]:
            self._sent += os.read(self._ours, 65536)
            text = self._sent.decode("utf-8", "ignore")
            self._sent = self._sent[len(text.encode()) :]
            self._left = self.screen.show(self._left + text)
            seconds = 0.0
        return self.screen

    def until(self, is_so: Callable[[Screen], object], what: str) -> Screen:
        end = time.monotonic() + PATIENCE
        while not is_so(self.look(0.05)):
            assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
        return self.screen

    def end(self) -> int:
        """Its exit status, when it has ended by itself; all that it said is on the screen."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            self.look(0.02)
            assert time.monotonic() < end, "it goes on and on"
        self.look()
        return self.process.returncode

    @property
    def is_restored(self) -> bool:
        """As it was before: settings, cursor, screen."""
        return termios.tcgetattr(self.tty) == self.settings and self.screen.has_cursor and not self.screen.is_alternate
