"""`smtpmaild top`: the running daemon at a glance, again and again."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import click

from smtpmaild.cli.steering import control_socket, fail, socket_options, troubles

if TYPE_CHECKING:
    from rich.console import Console

    from smtpmaild.top import Screen

EX_UNAVAILABLE = 69
#: What is shown where nobody has a screen.
_WIDTH, _HEIGHT = 80, 40
#: Keys: enough, and look now.
_END, _AT_ONCE = "q", " "
_LAST_EVENTS = 20
#: Seconds that the daemon may say nothing. Nobody hears the keys meanwhile.
_PATIENCE = 5.0


@click.command(epilog="Example: smtpmaild top --config smtp.yaml")
@socket_options
@click.option("--every", default="2s", show_default=True, metavar="TIME", help="How often it looks.")
@click.option("--once", is_flag=True, help="Print it once; so it does where nobody looks, as in a pipe.")
def top(config: str, socket: str | None, every: str, once: bool) -> None:
    """Watch the running daemon.

    Sessions, rates, the slowest destinations, what is refused most. With `history` in the configuration also what
    happened last. `q` or Ctrl-C ends it, the space bar has it look at once.

    Exit status: 0 it was shown, 69 none is running, 75 it does not answer, 77 you may not ask.
    """
    try:
        from rich.console import Console
    except ImportError:
        _without_rich()
    path, file = control_socket(config, socket), _history_of(config)
    seconds = _seconds(every)
    console = Console(highlight=False, emoji=False, markup=False)
    # FORCE_COLOR makes no terminal of a pipe, and on a dumb one nothing can be drawn twice.
    is_screen = sys.stdout.isatty() and not console.is_dumb_terminal
    if once or not is_screen:
        _print_once(console, path, file, console.height if sys.stdout.isatty() else _HEIGHT)
    else:
        _draw(console, path, file, seconds)


def _print_once(console: Console, path: str, history: str, height: int) -> None:
    """Rich takes 80 columns where there is no terminal, or those of COLUMNS."""
    from smtpmaild.top import frame

    with troubles():
        console.print(frame(_look(path, history), console.width, height))


def _draw(console: Console, path: str, history: str, seconds: float) -> None:
    """One screen after the other, until somebody has seen enough."""
    from rich.live import Live

    from smtpmaild.cli.keys import RESIZED, RESUMED, STOPPED, keys_of_terminal
    from smtpmaild.control.client import ControlError
    from smtpmaild.top import frame

    def watch(screen: Screen, live: Live) -> tuple[Screen, str]:
        """What was seen last, and what ended it: a key, or that the process is to be stopped, or was."""
        while True:
            due = time.monotonic() + seconds
            key = RESIZED
            while key == RESIZED:
                # Of the terminal, not of COLUMNS and LINES: those are what it was when the shell began.
                console.size = _size()
                live.update(frame(screen, console.width, console.height), refresh=True)
                key = keys.wait(due, (_END, _AT_ONCE))
            if key in (_END, STOPPED):
                return screen, key
            try:
                screen = _look(path, history)
            except ControlError as error:  # a restart, maybe; what was seen last stays
                screen = replace(screen, trouble=str(error))
            if key == RESUMED:
                return screen, key

    with troubles():
        screen = _look(path, history)
    with keys_of_terminal() as keys:
        key = RESUMED
        while key != _END:
            # A new one each time: whoever stopped us has drawn on the terminal meanwhile.
            with Live(console=console, screen=True, auto_refresh=False) as live:
                screen, key = watch(screen, live)
            if key == STOPPED:
                keys.stop()


def _size() -> tuple[int, int]:
    columns, lines = os.get_terminal_size(sys.stdout.fileno())
    return columns or _WIDTH, lines or _HEIGHT  # a serial line does not know


def _look(path: str, history: str) -> Screen:
    """How it is now. Raises ControlError."""
    from smtpmaild.control.client import answer, ask
    from smtpmaild.top import Screen

    status = answer(path, "status", seconds=_PATIENCE)
    return Screen(status, [*ask(path, "destinations", seconds=_PATIENCE)], _recent(history))


def _recent(path: str) -> list[tuple[float, str, str]] | None:
    """What happened last, in words; None where nothing is recorded."""
    from smtpmaild.history.events import ATTEMPTS, MESSAGES
    from smtpmaild.history.reading import Reading
    from smtpmaild.history.story import short_of

    if not path:
        return None
    try:
        with Reading(path) as reading:
            found = reading.latest(_LAST_EVENTS, MESSAGES | ATTEMPTS)
    except OSError:  # not yet there, or not for us: top is of use without it
        return None
    lines = [short_of(event) for event in sorted(found, key=lambda event: -event.at)]
    return [(line.at, line.tone, line.text) for line in lines]


def _history_of(config: str) -> str:
    """The file of the history; "" where there is none, or the configuration is being edited."""
    from smtpmaild.config import ConfigError, load

    if not config:
        return ""
    try:
        section = load(config).history
    except ConfigError:
        return ""
    return section.path if section is not None else ""


def _seconds(every: str) -> float:
    from smtpmaild.config.units import parse_duration

    try:
        return max(0.2, parse_duration(every))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _without_rich() -> NoReturn:
    fail(EX_UNAVAILABLE, "top needs rich: pip install 'smtpmaild[cli]'; `smtpmaild status` does without")
