"""`smtpmaild top`: one screen in a pipe; on a terminal see test_cli_top_live.py."""

from __future__ import annotations

import builtins
import socket
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from remembering import NOW, append, attempt, id_of, message, settings_in
from running import Runner
from test_top import SUMMARY, destination

from smtpmaild.history.store import Store

CONFIG = """\
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"]}
local_domains:
  example.com: {deliver: mail}
deliver_to:
  mail: {type: discard}
control: {socket: control.sock}
"""


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A daemon answers."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr("smtpmaild.control.client.answer", lambda *_, **__: SUMMARY)
    monkeypatch.setattr("smtpmaild.control.client.ask", lambda *_, **__: iter([destination("mx:x.example", 7, 9.0)]))
    return Runner(capfd, monkeypatch)


def config(tmp_path: Path, more: str = "") -> str:
    path = tmp_path / "smtp.yaml"
    path.write_text(CONFIG + more)
    return str(path)


def test_a_pipe_gets_one_screen(run: Runner, tmp_path: Path) -> None:
    store = Store(settings_in(tmp_path), print)
    told = [message(id_of(1)), message(id_of(2), at=NOW + 5, name="message_refused", reply="550 spam")]
    told[1][2]["recipients"].append("x@y.example")
    trace = told[1][3]
    append(
        store,
        [told[0], (*told[1][:3], ([*trace[0], *trace[0]], *trace[1:])), attempt(id_of(1), "deferred", reply="451")],
    )
    store.close()
    ran = run("top", "-c", config(tmp_path, "history: {}\n"))
    assert ran.status == 0
    assert ran.out.startswith("smtpmaild on mx.example.com")
    assert "mx:x.example" in ran.out
    assert [line.rstrip()[10:] for line in ran.out.splitlines()[-3:]] == [
        "refused alice@sender.example > bob@local.example and 1 more: 550 spam",
        "deferred alice@sender.example > carol@remote.example: 451",
        "accepted alice@sender.example > bob@local.example",
    ]


@pytest.mark.parametrize("more", ["", "history: {}\n", "nonsense: true\n"])
def test_without_a_history(run: Runner, tmp_path: Path, more: str) -> None:
    ran = run("top", "-c", config(tmp_path, more))
    assert ran.status == 0
    assert "LAST" not in ran.out


def test_with_a_socket_alone(run: Runner) -> None:
    assert "mx:x.example" in run("top", "--socket", "/run/x.sock", "--once").out


def test_colours_in_a_pipe_are_no_terminal(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    ran = run("top", "--socket", "/run/x.sock")
    assert ran.status == 0
    assert "\x1b[1m" in ran.out and "\x1b[?1049h" not in ran.out


def test_nobody_answers(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = Runner(capfd, monkeypatch)("top", "-c", config(tmp_path))
    assert ran.status == 69


def test_daemon_that_hangs(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(import_module("smtpmaild.cli.top"), "_PATIENCE", 0.1)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "control.sock"))
        listening.listen()
        ran = Runner(capfd, monkeypatch)("top", "-c", config(tmp_path))
    assert ran.status == 75
    assert "says nothing" in ran.err


def test_wrong_time(run: Runner, tmp_path: Path) -> None:
    assert run("top", "-c", config(tmp_path), "--every", "often").status == 64


@pytest.fixture
def _no_rich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = builtins.__import__

    def missing(name: str, *more: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    yield


@pytest.mark.usefixtures("_no_rich")
def test_without_rich(run: Runner, tmp_path: Path) -> None:
    ran = run("top", "-c", config(tmp_path))
    assert ran.status == 69
    assert "pip install 'smtpmaild[cli]'" in ran.err
