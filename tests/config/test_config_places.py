"""Where things are, by the quick way: as the models say it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from smtpmaild import config
from smtpmaild.config import ConfigError, load
from smtpmaild.config.places import Places, places

ROOT = Path(__file__).resolve().parents[2]
LISTENERS = "listeners: [{name: mx, listen: ['127.0.0.1:25']}]\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "control: {}",
        "history: {}",
        "control: {socket: run/c.sock}\nqueue: {path: /var/queue}",
        "queue: {max_age: 1d}\nuser: '0'\ngroup: '0'",
        "control: {socket: '${SMTPMAILD_TEST_SOCKET}'}",
    ],
)
def test_the_quick_way_finds_what_the_models_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SMTPMAILD_TEST_SOCKET", "/run/c.sock")
    path = tmp_path / "smtp.yaml"
    path.write_text(LISTENERS + text)
    whole = load(path)
    control = whole.control.socket if whole.control else ""
    assert places(str(path)) == Places(
        control, whole.queue.path, whole.user or "", whole.group or "", whole.history is not None
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "cannot read the file: No such file or directory"),
        (b"\xff", "cannot read the file: it is not UTF-8"),
        (b"control: {", "smtp.yaml:1:"),
    ],
)
def test_file_that_cannot_be_read(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "smtp.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError) as error:
        places(str(path))
    assert message in error.value.render()


def test_sections_of_another_kind_are_none(tmp_path: Path) -> None:
    (tmp_path / "smtp.yaml").write_text("control: yes\nqueue: [x]\nuser: [y]\n")
    assert places(str(tmp_path / "smtp.yaml")) == Places("", str(tmp_path / "var/queue"))


def test_the_quick_way_is_quick() -> None:
    program = "import sys, smtpmaild.config.places; print(sorted({'pydantic', 'dns', 'asyncio'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_package_gives_nothing_else() -> None:
    with pytest.raises(AttributeError):
        config.nothing  # noqa: B018
