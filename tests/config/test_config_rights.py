"""Whose rights the checks ask with; only root can show it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpmaild.config import load_text
from smtpmaild.config.rights import rights_of

NOBODY, NOGROUP = 65534, 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask for others")


def me() -> tuple[int, int, list[int]]:
    return os.geteuid(), os.getegid(), os.getgroups()


@as_root
@pytest.mark.parametrize("user", ["nobody", "65534"])
@pytest.mark.parametrize(("group", "gid"), [(None, NOGROUP), ("daemon", 1), ("1", 1)])
def test_root_asks_for_another(user: str, group: str | None, gid: int) -> None:
    before = me()
    with rights_of(user, group):
        assert me() == (NOBODY, gid, [gid])
    assert me() == before


@as_root
def test_rights_come_back_whatever_happens() -> None:
    before = me()
    with pytest.raises(ZeroDivisionError), rights_of("nobody", None):
        raise ZeroDivisionError
    assert me() == before


@pytest.mark.parametrize(("user", "group"), [(None, None), ("no-such-user", None), ("nobody", "no-such-group")])
def test_what_is_not_there_changes_nothing(user: str | None, group: str | None) -> None:
    before = me()
    with rights_of(user, group):
        assert me() == before


def test_who_is_not_root_asks_as_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    before = me()
    with rights_of("nobody", None):
        assert me() == before


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own, which nobody else may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@as_root
def test_check_judges_as_who_will_serve(folder: Path) -> None:
    ours, theirs = folder / "ours", folder / "theirs"
    for path in (ours, theirs):
        path.mkdir(mode=0o700)
    os.chown(theirs, NOBODY, NOGROUP)
    text = (
        "listeners: [{name: mx, listen: ['127.0.0.1:25']}]\n"
        "local_domains: {a.example: {deliver: ours}, b.example: {deliver: theirs}}\n"
        f"deliver_to:\n  ours: {{type: spool, path: {ours}}}\n  theirs: {{type: spool, path: {theirs}}}\n"
    )
    assert load_text(text, "smtp.yaml", {}).warnings == ()
    (warning,) = load_text(text + "user: nobody\n", "smtp.yaml", {}).warnings
    assert (warning.line, warning.message) == (4, f"{ours}: Permission denied")
