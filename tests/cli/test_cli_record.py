"""`smtpmaild record`: where the files go, and the ways it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Runner

from smtpmaild.control.client import ControlError


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capfd, monkeypatch)


def answering(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, str]], end: Callable[[], None] = lambda: None
) -> list[Any]:
    asked: list[Any] = []

    def answer(path: str, verb: str, wish: dict[str, Any]) -> Any:
        asked.append((path, verb, wish))
        yield from rows
        end()

    monkeypatch.setattr("smtpmaild.control.client.ask", answer)
    return asked


ROWS = [{"name": "", "text": ""}, {"name": "A1.smtp", "text": "S: 220 *\n"}, {"name": "../B2.smtp", "text": "x"}]


def test_files_are_written_where_they_are_wanted(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, ROWS)
    to = tmp_path / "to"
    ran = run("record", "--socket", "/s", "--client", "192.0.2.1", "--for", "2m", "--to", str(to), "--bodies")
    assert (ran.status, ran.err) == (0, f"2 sessions in {to}\n")
    assert ran.out.splitlines() == [f"{to}/A1.smtp", f"{to}/B2.smtp"]
    assert (to / "A1.smtp").read_text() == "S: 220 *\n"
    assert (to / "A1.smtp").stat().st_mode & 0o777 == 0o600
    wish = {"client": "192.0.2.1", "listener": "", "rule": "", "seconds": 120.0, "most": 1000, "bodies": True}
    assert asked == [("/s", "record", wish)]
    ran = run("record", "--socket", "/s", "--rule", "x", "--to", str(to), "--json")
    assert json.loads(ran.out.splitlines()[0]) == {"file": f"{to}/A1.smtp"}


def test_ends_of_a_recording(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def cut_off() -> None:
        raise ControlError("who answers ended before it had answered", 75)

    usual = ["record", "--socket", "/s", "--rule", "x", "--to", str(tmp_path)]
    answering(monkeypatch, ROWS[:2], interrupt)
    assert run(*usual).err == f"1 session in {tmp_path}\n"
    answering(monkeypatch, ROWS[:2], cut_off)
    ran = run(*usual)
    assert (ran.status, ran.err) == (75, "Error: who answers ended before it had answered\n")
    answering(monkeypatch, ROWS)
    assert run(*usual[:-1], "/dev/null/x").status == 73
    assert run(*usual, "--for", "soon").status == 64
    assert run("record", "--socket", "/s", "--to", str(tmp_path)).status == 64
