"""README.md: what it tells a newcomer to type works, and prints what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(?:yaml)?\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
(FIRST_MESSAGE,) = [block for block in BLOCKS if "curl" in block]
(CONFIG,) = [block for block in BLOCKS if block.startswith("# smtp.yaml\n")]
(TRANSCRIPT,) = [block for block in BLOCKS if block.startswith("$ smtpmaild check ")]


def shell(line: str, folder: Path) -> str:
    """What a line of the README prints in that folder, standard error included."""
    line = re.sub(r"^smtpmaild ", f"{sys.executable} -m smtpmaild ", line)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        ["sh", "-c", line], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=20, check=False,
    )  # fmt: skip
    return ran.stdout.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_first_message_arrives(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    config = tmp_path / "config" / "smtp.yaml"
    config.write_text(config.read_text().replace("127.0.0.1:2525", "127.0.0.1:0"))
    log = tmp_path / "log"
    with log.open("wb") as written:
        command = [sys.executable, "-m", "smtpmaild", "--allow-root", "--config", "config/smtp.yaml"]
        daemon = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=written)
    try:
        end = time.monotonic() + 20
        while (listening := re.search(r'"address":"127\.0\.0\.1:(\d+)"', log.read_text())) is None:
            assert daemon.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        printed = shell(FIRST_MESSAGE.replace("2525", listening[1]), tmp_path)
    finally:
        daemon.terminate()
        daemon.wait(20)
    (path,) = re.findall(r"^var/mail/example\.com/anybody/new/\S+$", printed, re.MULTILINE)
    assert (tmp_path / path).read_text().endswith("\nSubject: hello\n\nIt works.\n")


SESSION = [(line, output) for line, output in re.findall(r"^\$ (.*)\n((?:[^$].*\n|\n)*)", TRANSCRIPT, re.MULTILINE)]


@pytest.mark.parametrize(("line", "output"), SESSION, ids=[line for line, _ in SESSION])
def test_commands_print_what_is_shown(line: str, output: str, tmp_path: Path) -> None:
    has_typo = "mailboxs" in output
    (tmp_path / "smtp.yaml").write_text(CONFIG.replace("mailboxes", "mailboxs") if has_typo else CONFIG)
    assert shell(line, tmp_path) == output


def test_the_transcript_shows_a_mistake_and_a_trial() -> None:
    assert [line.split()[1] for line, _ in SESSION] == ["check", "try"]


def test_each_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = project["dependencies"] + [one for name in extras.keys() - {"all", "test"} for one in extras[name]]
    needed = [re.split(r"[^\w-]", requirement)[0] for requirement in requirements]
    rows = re.findall(r"^\| (\S+) \| [^|]+ \| [^|]+ \|$", README.partition("## Dependencies")[2], re.MULTILINE)
    assert sorted(set(rows) - {"package"}, key=str.lower) == sorted(needed, key=str.lower)
