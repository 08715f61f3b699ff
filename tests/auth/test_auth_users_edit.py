"""Changes to a users file: the one line, and nothing else, whoever else is at it."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from smtpmaild.auth import users_edit
from smtpmaild.auth.users_edit import BusyError, EditError, NoSuchAccountError, add, remove, set_password

CONTENT = b"# users\r\nalice:old:1000::/home\n\n \nbob:old\r\nd\xff:x\na\xc2\x85b:x\ncarol:{PLAIN}x"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    file.write_bytes(CONTENT)
    file.chmod(0o640)
    return file


def test_add(path: Path) -> None:
    add(str(path), "eve", "HASH")
    assert path.read_bytes() == CONTENT + b"\neve:HASH\n"
    add(str(path), "frank", "HASH")
    assert path.read_bytes().endswith(b"\neve:HASH\nfrank:HASH\n")


def test_set_password_keeps_what_follows_it(path: Path) -> None:
    set_password(str(path), "ALICE", "HASH")
    set_password(str(path), "bob", "HASH")
    set_password(str(path), "carol", "HASH")
    assert path.read_bytes() == (
        b"# users\r\nalice:HASH:1000::/home\n\n \nbob:HASH\r\nd\xff:x\na\xc2\x85b:x\ncarol:HASH"
    )


def test_remove(path: Path) -> None:
    remove(str(path), "bob")
    assert path.read_bytes() == CONTENT.replace(b"bob:old\r\n", b"")


def test_refused(path: Path) -> None:
    with pytest.raises(EditError, match="there is an account 'Alice' already"):
        add(str(path), "Alice", "HASH")
    with pytest.raises(NoSuchAccountError):
        set_password(str(path), "eve", "HASH")
    with pytest.raises(NoSuchAccountError):
        remove(str(path), "# users")
    assert path.read_bytes() == CONTENT
    assert [*path.parent.iterdir()] == [path]


def test_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "users"
    with pytest.raises(FileNotFoundError):
        set_password(str(path), "alice", "HASH")
    with pytest.raises(FileNotFoundError):
        remove(str(path), "alice")
    add(str(path), "alice", "HASH", group=os.getgid())
    assert path.read_text() == "alice:HASH\n"
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o640, os.getgid())


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_owner_and_mode_stay(path: Path) -> None:
    os.chown(path, 1234, 5678)
    path.chmod(0o604)
    set_password(str(path), "alice", "HASH")
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 5678, 0o604)
    new = path.with_name("more")
    add(str(new), "alice", "HASH", group=4321)
    assert (new.stat().st_uid, new.stat().st_gid) == (0, 4321)


def test_link_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    remove(str(link), "bob")
    assert link.is_symlink()
    assert b"bob" not in path.read_bytes()


def test_nothing_is_left_when_it_cannot_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        remove(str(path), "bob")
    assert [*path.parent.iterdir()] == [path]
    assert path.read_bytes() == CONTENT


def test_two_at_once_take_turns(path: Path) -> None:
    threads = [threading.Thread(target=add, args=(str(path), f"user{number}", "HASH")) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_bytes().splitlines()
    assert sorted(line for line in lines if line.startswith(b"user")) == sorted(
        f"user{number}:HASH".encode() for number in range(20)
    )


def test_who_waits_too_long_gives_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_edit, "_PATIENCE_SECONDS", 0.1)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(BusyError):
            add(str(path), "eve", "HASH")
    finally:
        os.close(descriptor)
    add(str(path), "eve", "HASH")
