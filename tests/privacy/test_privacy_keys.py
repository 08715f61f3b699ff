"""The key of the day: shared by all, made once, gone with the day."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtpmaild.privacy.keys import Keys, read

DAY = 20_000


class Clock:
    def __init__(self) -> None:
        self.now = DAY * 86400.0

    def __call__(self) -> float:
        return self.now


def test_processes_agree_and_a_restart_changes_nothing(tmp_path: Path) -> None:
    path, clock = str(tmp_path / "var" / "privacy.key"), Clock()
    first = Keys(path, pytest.fail, clock).today()
    assert first == Keys(path, pytest.fail, clock).today()
    assert first[0] == DAY
    assert len(first[1]) == 32
    assert read(path, DAY) == first[1]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_tomorrow_it_is_another_and_the_old_one_is_gone(tmp_path: Path) -> None:
    path, clock = str(tmp_path / "privacy.key"), Clock()
    keys, others = Keys(path, pytest.fail, clock), Keys(path, pytest.fail, clock)
    _, old = keys.today()
    others.today()
    clock.now += 86400
    day, new = keys.today()
    assert (day, new) == others.today()
    assert new != old
    for file in tmp_path.iterdir():
        assert old.hex() not in file.read_text()
    assert read(path, DAY) is None


def test_the_disk_is_asked_once_a_day(tmp_path: Path) -> None:
    path, clock = str(tmp_path / "privacy.key"), Clock()
    keys = Keys(path, pytest.fail, clock)
    first = keys.today()
    os.unlink(path)
    clock.now += 86399
    assert keys.today() == first


def test_without_the_file_a_process_has_a_key_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    keys = Keys(str(tmp_path / "file" / "privacy.key"), told.append, Clock())
    assert len(keys.today()[1]) == 32
    assert keys.today() == keys.today()
    assert len(told) == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"day": 20000, "key": "zz"}', '{"day": 20000}'])
def test_file_that_is_no_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "privacy.key"
    path.write_text(text)
    told: list[str] = []
    Keys(str(path), told.append, Clock()).today()
    assert len(told) == 1
    with pytest.raises(ValueError):
        read(str(path), DAY)


def test_no_file_no_key(tmp_path: Path) -> None:
    assert read(str(tmp_path / "none"), DAY) is None
