"""The benchmark runs, every table of it, on loads so small that their numbers mean nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent.parent / "bench" / "run.py"


def run(folder: Path, *options: str) -> str:
    words = [sys.executable, str(RUN), f"--work={folder}", "--rounds=1", "--seconds=0.05", *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LOST" not in done.stdout
    return done.stdout


def test_throughput_of_stores(tmp_path: Path) -> None:
    table = run(tmp_path, "--servers=smtpmaild;smtpmaild, discard", "--scenarios=connections,kept")
    assert table.count("smtpmaild, discard") == 2
    assert table.count("x 1.00") == 2


def test_memory_of_idle_sessions(tmp_path: Path) -> None:
    table = run(tmp_path, "--servers=smtpmaild, one worker", "--scenarios=idle", "--idle=40")
    assert "40 idle sessions" in table
    assert "ms" in table


def test_replies_beside_passwords() -> None:
    words = [sys.executable, str(RUN.with_name("auth.py")), "--seconds=0.2", "--attackers=3"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # an attacker who hears anything but 535 ends the benchmark
    assert done.stdout.count("passwords refused a second") == 2


@pytest.mark.debian
def test_peer_takes_part(needs_program: Callable[[str], str], tmp_path: Path) -> None:
    needs_program("smtp-sink")
    assert "left out" not in run(tmp_path, "--servers=smtp-sink", "--scenarios=kept")


def test_load_without_smtp_source(tmp_path: Path) -> None:
    """The generator that takes its place is as good a client."""
    script = f"import sys; sys.path.insert(0, {str(RUN.parent)!r}); "
    script += "import load, run; load.SMTP_SOURCE = None; run.main()"
    options = [f"--work={tmp_path}", "--rounds=1", "--seconds=0.05", "--servers=smtpmaild", "--scenarios=kept"]
    done = subprocess.run([sys.executable, "-c", script, *options], capture_output=True, text=True, check=True)
    assert "smtp-source is missing" in done.stdout
    assert "LOST" not in done.stdout


def test_cost_of_tls(tmp_path: Path) -> None:
    """A short run of each scenario: they end, and say what they found."""
    words = ["--rounds", "1", "--seconds", "0.3", "--idle", "3", "--megabytes", "1", "--work", str(tmp_path)]
    command = [sys.executable, str(RUN.with_name("tls.py")), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    for found in (
        r"plain \S+/s, TLS \S+/s: \d+%",
        r"TLS: \S+ ms CPU for each MB",
        r"\S+ KiB each",
        r"\d+ handshakes/s   ",
    ):
        assert re.search(found, done.stdout), done.stdout
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(os.environ.get("SMTPMAILD_SOAK") != "1", reason="left to `make soak`: it starts ten servers")
@pytest.mark.soak
@pytest.mark.debian
def test_mail_that_travels_on(needs_program: Callable[[str], str], tmp_path: Path) -> None:
    needs_program("smtp-source")
    words = [sys.executable, str(RUN.with_name("queue_through.py")), "--messages=100", "--rounds=1"]
    words += [f"--work={tmp_path / 'work'}", "--scenarios=acceptance,through-put,neighbours"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("us CPU each") + done.stdout.count("left out") == 9
    assert done.stdout.count("us CPU each") >= 7
