"""`smtpmaild top` in front of somebody: a real terminal, a real daemon, keys, and windows that change."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from glass import Screen, Terminal
from whole_daemon import WholeDaemon

CONFIG = """\
hostname: mx.example.com
listeners: [{name: mx, listen: ["127.0.0.1:0"]}]
local_domains: {local.example: {deliver: mail, mailboxes: [bob]}}
deliver_to: {mail: {type: spool, path: mail}}
history: {path: history.sqlite}
control: {socket: control.sock}
logging: {format: json}
"""
#: So seldom that only what somebody does can be the reason for a new screen.
SELDOM = ("--every", "1h")
LONG = f"{'a' * 60}@{'long.' * 20}example"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeDaemon]:
    with WholeDaemon(tmp_path_factory.mktemp("top"), CONFIG) as daemon:
        daemon.rcpt("nobody@local.example", LONG)
        yield daemon


def command(daemon: WholeDaemon, *more: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "smtpmaild", "top", "-c", str(daemon.path), *more]


def is_drawn(screen: Screen) -> bool:
    return screen.is_alternate and screen.lines[0].startswith("smtpmaild") and "sessions" in screen.text


def drawn_after(frames: int) -> Callable[[Screen], bool]:
    return lambda screen: screen.frames > frames and is_drawn(screen)


def title_of(screen: Screen) -> str:
    return next(iter(screen.lines), "")


def test_a_screen_follows_what_happens(daemon: WholeDaemon) -> None:
    with Terminal(command(daemon, "--every", "200ms")) as terminal:
        screen = terminal.until(is_drawn, "the first screen")
        assert "smtpmaild on mx.example.com" in title_of(screen)
        assert "1 of 1 workers" in title_of(screen)
        assert not screen.has_cursor
        queue_id = daemon.send("bob@local.example")
        terminal.until(lambda screen: "accepted a@sender.example > bob@local.example" in screen.text, queue_id)
        terminal.until(lambda screen: "\nmessages   1  " in screen.text, "a worker has told what it counts")
        assert any(line.startswith("RCPT 550 5.1.1  by local_domains.local.example") for line in screen.lines)
        before = screen.frames
        terminal.until(lambda screen: screen.frames > before + 1, "it goes on")
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.is_restored
        assert screen.before == ""


def test_keys(daemon: WholeDaemon) -> None:
    with Terminal(command(daemon, *SELDOM)) as terminal:
        screen = terminal.until(is_drawn, "the first screen")
        frames = screen.frames
        terminal.press("xyz\r")
        terminal.press(" ")
        terminal.until(lambda screen: screen.frames == frames + 1, "the space bar has it look")
        assert termios.tcgetattr(terminal.tty)[3] & termios.ECHO == 0, "keys are not shown"
        terminal.press("xq")
        assert terminal.end() == 0
        assert screen.frames == frames + 1, "other keys do nothing"
        assert terminal.is_restored


@pytest.mark.parametrize(("end", "status"), [("\x03", 130), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whatever_ends_it_leaves_the_terminal_as_it_was(
    daemon: WholeDaemon, end: str | signal.Signals, status: int
) -> None:
    with Terminal(command(daemon, *SELDOM)) as terminal:
        terminal.until(is_drawn, "the first screen")
        if isinstance(end, str):
            terminal.press(end)
        else:
            os.kill(terminal.process.pid, end)
        assert terminal.end() == status
        assert terminal.is_restored
        assert terminal.screen.before.strip() in ("", "^C"), "no traceback"


def echoes(terminal: Terminal) -> bool:
    return bool(termios.tcgetattr(terminal.tty)[3] & termios.ECHO)


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(daemon: WholeDaemon) -> None:
    # Only what somebody else of the session waits for can be stopped from the keyboard: a shell with job control.
    shell = ["/bin/sh", "-m", "-c", '"$@"; echo "[stopped: $?]"; read line; fg; echo "[ended: $?]"', "sh"]
    with Terminal([*shell, *command(daemon, *SELDOM)]) as terminal:
        screen = terminal.until(is_drawn, "the first screen")
        terminal.press("\x1a")
        terminal.until(lambda screen: "[stopped: 148]" in screen.before, "the shell is there again")
        assert terminal.is_restored
        frames = screen.frames
        terminal.press("\r")
        terminal.until(drawn_after(frames), "it goes on")
        assert not screen.has_cursor
        assert not echoes(terminal)
        terminal.press("q")
        assert terminal.end() == 0
        assert "[ended: 0]" in screen.before
        assert terminal.is_restored


def test_who_was_stopped_without_warning_draws_anew(daemon: WholeDaemon) -> None:
    with Terminal(command(daemon, *SELDOM)) as terminal:
        screen = terminal.until(is_drawn, "the first screen")
        os.kill(terminal.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED | os.WNOWAIT)
        termios.tcsetattr(terminal.tty, termios.TCSANOW, terminal.settings)  # as a shell does
        frames = screen.frames
        os.kill(terminal.process.pid, signal.SIGCONT)
        terminal.until(drawn_after(frames), "it goes on")
        assert not echoes(terminal)
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.is_restored


def test_nobody_who_ignores_ctrl_z_is_stopped_by_it(daemon: WholeDaemon) -> None:
    shell = ["/bin/sh", "-c", 'trap "" TSTP; exec "$@"', "sh"]
    with Terminal([*shell, *command(daemon, *SELDOM)]) as terminal:
        screen = terminal.until(is_drawn, "the first screen")
        frames = screen.frames
        terminal.press("\x1a")
        terminal.press(" ")
        terminal.until(drawn_after(frames), "the space bar has it look")
        terminal.press("q")
        assert terminal.end() == 0
        assert screen.frames == frames + 1


def test_a_window_of_another_size(daemon: WholeDaemon) -> None:
    # A shell that exports its size does not tell when it changes.
    with Terminal(command(daemon, *SELDOM), environment={"COLUMNS": "100", "LINES": "50"}) as terminal:
        screen = terminal.until(is_drawn, "the first screen")
        for width, height in ((120, 40), (40, 12), (200, 60), (20, 6), (80, 24)):
            frames = screen.frames
            terminal.resize(width, height)  # the screen looks after every column and line
            terminal.until(drawn_after(frames), f"{width} columns and {height} lines")
            if width >= 60:
                assert "smtpmaild on mx.example.com" in title_of(screen)
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.is_restored


def test_a_terminal_that_does_not_know_its_size(daemon: WholeDaemon) -> None:
    with Terminal(command(daemon, *SELDOM), 0, 0) as terminal:
        terminal.screen.width, terminal.screen.height = 80, 40
        terminal.until(is_drawn, "the first screen")
        terminal.press("q")
        assert terminal.end() == 0


def test_without_a_keyboard_it_looks_on(daemon: WholeDaemon) -> None:
    shell = ["/bin/sh", "-c", 'exec "$@" < /dev/null', "sh", *command(daemon, "--every", "200ms")]
    with Terminal(shell) as terminal:
        terminal.until(lambda screen: is_drawn(screen) and screen.frames > 3, "some screens")
        os.kill(terminal.process.pid, signal.SIGINT)
        assert terminal.end() == 130
        assert terminal.is_restored


def test_a_dumb_terminal_gets_one_screen(daemon: WholeDaemon) -> None:
    with Terminal(command(daemon), environment={"TERM": "dumb"}) as terminal:
        assert terminal.end() == 0
        assert terminal.screen.before.startswith("smtpmaild on mx.example.com")
        assert terminal.screen.frames == 0


def test_a_daemon_that_goes_and_comes(tmp_path: Path) -> None:
    with WholeDaemon(tmp_path, CONFIG) as daemon:
        daemon.rcpt("bob@local.example")
        watching = Terminal(command(daemon, "--every", "200ms"))
        with watching as terminal:
            terminal.until(is_drawn, "the first screen")
            daemon.process.terminate()
            screen = terminal.until(lambda screen: "no smtpmaild is running here" in screen.text, "it tells")
            assert "smtpmaild on mx.example.com" in title_of(screen), "what was seen last stays"
            daemon.process.wait(20)
            with WholeDaemon(tmp_path, CONFIG):
                terminal.until(lambda screen: "no smtpmaild" not in screen.text, "there it is again")
                terminal.press("q")
                assert terminal.end() == 0


def test_nobody_is_there(tmp_path: Path) -> None:
    (tmp_path / "smtp.yaml").write_text(CONFIG)
    with Terminal([sys.executable, "-m", "smtpmaild", "top", "-c", str(tmp_path / "smtp.yaml")]) as terminal:
        assert terminal.end() == 69
        assert terminal.screen.before.startswith("Error: no smtpmaild is running here")
        assert terminal.screen.frames == 0
