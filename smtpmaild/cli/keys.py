"""Keys of a terminal, one at a time and not shown, for a command that draws: waits for one, for a new size, or a while.

What is changed of the terminal and of the signals is put back when the block ends, also by Ctrl-C and by SIGTERM.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Collection, Iterator
from contextlib import contextmanager

#: What `Keys.wait` returns for a window of another size; no key is called so.
RESIZED = "resized"
_SIGTERM_STATUS = 128 + signal.SIGTERM
_AT_ONCE = 1024


class Keys:
    """keyboard: its descriptor, -1 where there is none.  wakeups: readable when the window has changed."""

    def __init__(self, keyboard: int, wakeups: int) -> None:
        self._keyboard = keyboard
        self._wakeups = wakeups

    def wait(self, until: float, wanted: Collection[str]) -> str:
        """The next of these keys, RESIZED, or "" when it is that late. until: of time.monotonic()."""
        while (seconds := until - time.monotonic()) > 0:
            watched = [one for one in (self._keyboard, self._wakeups) if one >= 0]
            ready, _, _ = select.select(watched, [], [], seconds)
            if self._wakeups in ready:
                if signal.SIGWINCH in os.read(self._wakeups, _AT_ONCE):
                    return RESIZED
            elif self._keyboard in ready:
                typed = self._typed()
                for key in typed.decode("ascii", "replace"):
                    if key in wanted:
                        return key
        return ""

    def _typed(self) -> bytes:
        try:
            typed = os.read(self._keyboard, _AT_ONCE)
        except OSError:
            typed = b""
        if not typed:  # it was hung up; SIGHUP may not have ended us
            self._keyboard = -1
        return typed


@contextmanager
def keys_of_terminal() -> Iterator[Keys]:
    """Those of standard input, if it is a terminal. For the main thread."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {
        signal.SIGWINCH: signal.signal(signal.SIGWINCH, _noted),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _ended),
    }
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    keyboard = 0 if os.isatty(0) else -1
    try:
        with _one_by_one(keyboard):
            yield Keys(keyboard, reading)
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


@contextmanager
def _one_by_one(keyboard: int) -> Iterator[None]:
    if keyboard < 0:
        yield
        return
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _noted(number: int, frame: object) -> None:
    """set_wakeup_fd has written it down."""


def _ended(number: int, frame: object) -> None:
    """Not the end of the process in the middle of a screen: what was changed is put back on the way out."""
    del number, frame
    sys.exit(_SIGTERM_STATUS)
