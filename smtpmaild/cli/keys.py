"""Keys of a terminal, one at a time and not shown, for a command that draws: waits for one, for a new size, or a while.

What is changed of the terminal and of the signals is put back when the block ends, also by Ctrl-C and by SIGTERM, and
while the process is stopped by Ctrl-Z: who draws is told, puts its screen away, and calls Keys.stop.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

#: What `Keys.wait` returns for a window of another size, for Ctrl-Z, and when the process goes on after a stop. No key
#: is called so.
RESIZED, STOPPED, RESUMED = "resized", "stopped", "resumed"
_NOTED: Mapping[int, str] = {signal.SIGWINCH: RESIZED, signal.SIGTSTP: STOPPED, signal.SIGCONT: RESUMED}
_SIGTERM_STATUS = 128 + signal.SIGTERM
_AT_ONCE = 1024


class Keys:
    """keyboard: its descriptor, -1 where there is none.  wakeups: readable when a signal has come, by its number."""

    def __init__(self, keyboard: int, wakeups: int) -> None:
        self._terminal = self._keyboard = keyboard
        self._settings = termios.tcgetattr(keyboard) if keyboard >= 0 else []
        self._wakeups = wakeups

    def take(self) -> None:
        """Have keys come one at a time, and not be shown."""
        if self._terminal >= 0:
            _patiently(lambda: tty.setcbreak(self._terminal, termios.TCSADRAIN))

    def give_back(self) -> None:
        """The terminal as it was."""
        if self._terminal >= 0:
            _patiently(lambda: termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._settings))

    def stop(self) -> None:
        """What Ctrl-Z does where nobody minds; returns when the process goes on, with the terminal taken again."""
        self.give_back()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.take()

    def wait(self, until: float, wanted: Collection[str]) -> str:
        """The next of these keys, what was noted (RESIZED, STOPPED, RESUMED), or "" when it is that late. until: of
        time.monotonic()."""
        while (seconds := until - time.monotonic()) > 0:
            watched = [one for one in (self._keyboard, self._wakeups) if one >= 0]
            ready, _, _ = select.select(watched, [], [], seconds)
            if self._wakeups in ready:
                noted = [_NOTED[number] for number in os.read(self._wakeups, _AT_ONCE) if number in _NOTED]
                if RESUMED in noted:  # whoever stopped us had the terminal otherwise
                    self.take()
                if noted:  # the last stop or end of one counts; each of them has all drawn again, in its new size
                    return next((word for word in reversed(noted) if word != RESIZED), RESIZED)
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
    handlers = {**dict.fromkeys(_NOTED, _noted), signal.SIGTERM: _ended}
    if signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN:  # a shell without job control: nobody would let us go on
        del handlers[signal.SIGTSTP]
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        keys = Keys(0 if os.isatty(0) else -1, reading)
        try:
            keys.take()
            yield keys
        finally:
            keys.give_back()
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _patiently(change: Callable[[], object]) -> None:
    """In the background it is stopped until somebody has it in the foreground: then it is interrupted, and not done."""
    while True:
        try:
            change()
            return
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                raise


def _noted(number: int, frame: object) -> None:
    """set_wakeup_fd has written it down."""


def _ended(number: int, frame: object) -> None:
    """Not the end of the process in the middle of a screen: what was changed is put back on the way out."""
    del number, frame
    sys.exit(_SIGTERM_STATUS)
