"""The drop directory, from both sides: what is durable, what is trusted, and what a kill leaves."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from queueing import address

from smtpmaild.idn import to_ascii
from smtpmaild.sendmail import Letter, drop
from smtpmaild.sendmail.drop import NotTakenError
from smtpmaild.smtp.address import NULL_REVERSE_PATH

LETTER = Letter(address("a@x.example"), (address("b@y.example"), address("ü@y.example")), {"RET": "HDRS"}, {})


@pytest.fixture
def folder(tmp_path: Path) -> str:
    path = str(tmp_path / "spool" / "drop")
    drop.make(path)
    return path


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_directory_is_for_all_to_write_and_one_to_read(folder: str) -> None:
    for path in (folder, f"{folder}/tmp"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o3733
    os.chmod(folder, 0o3730)
    drop.make(folder)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o3730, "what the operator has chosen stays"


def test_directory_where_the_group_bit_is_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chmod = os.chmod

    def strict(path: str, mode: int) -> None:
        if mode & stat.S_ISGID:
            raise PermissionError(1, "Operation not permitted")
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", strict)
    folder = str(tmp_path / "drop")
    drop.make(folder)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o1733
    drop.put(folder, LETTER, b"x")
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path(folder).glob("*.*")} == {0o644}


def test_what_is_put_is_taken(folder: str) -> None:
    name = drop.put(folder, LETTER, b"Subject: x\r\n\r\n\xff\r\n")
    assert files(folder) == [f"{name}.eml", f"{name}.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path(folder).glob("*.*")} == {0o640}
    assert [*drop.names(folder)] == [name]
    taken = drop.take(folder, name, to_ascii)
    with taken.message:
        assert taken.message.read() == b"Subject: x\r\n\r\n\xff\r\n"
    assert (taken.letter, taken.owner) == (LETTER, os.getuid())


def test_null_sender(folder: str) -> None:
    name = drop.put(folder, Letter(NULL_REVERSE_PATH, LETTER.recipients), b"")
    taken = drop.take(folder, name, to_ascii)
    taken.message.close()
    assert taken.letter.reverse_path.is_null


def test_oldest_first(folder: str) -> None:
    names = [drop.put(folder, LETTER, b"") for _ in range(5)]
    assert [*drop.names(folder)] == names


@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename", "sync"])
def test_failure_leaves_nothing(folder: str, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    target = {"write": (drop, "_write"), "sync": (drop, "_sync_names")}.get(step, (os, step))
    monkeypatch.setattr(*target, fail)
    with pytest.raises(OSError, match="No space left"):
        drop.put(folder, LETTER, b"x")
    assert files(folder) == []


def test_directory_that_may_only_be_written_is_synced_with_everything(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    really_open = os.open

    def no_reading(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", no_reading)
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    drop.put(folder, LETTER, b"x")
    assert synced == [True]


# What is trusted


def pair(folder: str, envelope: object = None, **changed: Any) -> str:
    """A pair that somebody has made by hand."""
    record = {"version": 1, "reverse_path": "a@x.example", "recipients": ["b@y.example"], "mail": {}, "rcpt": {}}
    text = envelope if isinstance(envelope, str) else json.dumps(record | changed)
    Path(folder, "n.eml").write_bytes(b"\r\n")
    Path(folder, "n.json").write_text(text)
    return "n"


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 2},
        {"reverse_path": "a b"},
        {"reverse_path": 7},
        {"recipients": []},
        {"recipients": ["b@y.example", "c"]},
        {"recipients": "b@y.example"},
        {"recipients": [None]},
        {"mail": []},
        {"mail": {"RET": 1}},
        {"mail": {"RET": "HDRS\r\nDATA"}},
        {"rcpt": {"NOTIFY=NEVER X": ""}},
        {"envelope": "[" * 100_000},
        {"envelope": "[]"},
        {"envelope": "{"},
    ],
)
def test_envelope_that_is_none(folder: str, changed: dict[str, Any]) -> None:
    name = pair(folder, **changed)
    with pytest.raises(NotTakenError, match="envelope"):
        drop.take(folder, name, to_ascii)


@pytest.mark.parametrize("suffix", ["eml", "json"])
@pytest.mark.parametrize("how", ["symlink", "link", "fifo", "missing"])
def test_file_of_others_is_not_read(folder: str, tmp_path: Path, how: str, suffix: str) -> None:
    name = pair(folder)
    path, secret = f"{folder}/{name}.{suffix}", tmp_path / "secret"
    secret.write_bytes(Path(path).read_bytes())
    os.unlink(path)
    if how == "fifo":
        os.mkfifo(path)
    elif how != "missing":
        getattr(os, how)(secret, path)
    with pytest.raises(NotTakenError, match=f"{name}.{suffix}"):
        drop.take(folder, name, to_ascii)


def test_message_of_one_and_envelope_of_another(folder: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    name = pair(folder)
    os.chown(f"{folder}/{name}.json", 12345, -1)
    with pytest.raises(NotTakenError, match="different owners"):
        drop.take(folder, name, to_ascii)
    os.chown(f"{folder}/{name}.eml", 12345, -1)
    drop.take(folder, name, to_ascii).message.close()


_PUT = """
import os, signal, sys
from smtpmaild.sendmail import Letter, drop
from smtpmaild.smtp.address import parse_mailbox
calls = 0
def killing(function):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call
for name in ("open", "rename", "fsync", "fchmod"):
    setattr(os, name, killing(getattr(os, name)))
a = parse_mailbox("a@x.example")
drop.put(sys.argv[1], Letter(a, (a,)), b"whole")
print("done")
"""


@pytest.mark.parametrize("step", range(1, 11))
def test_kill_between_any_two_steps_leaves_all_or_nothing(folder: str, step: int) -> None:
    done = subprocess.run([sys.executable, "-c", _PUT, folder, str(step)], capture_output=True, timeout=60)
    is_done = done.stdout == b"done\n"
    assert is_done or done.returncode == -9
    names = [*drop.names(folder)]
    for name in names:
        taken = drop.take(folder, name, to_ascii)
        with taken.message:
            assert taken.message.read() == b"whole"
    assert not is_done or len(names) == 1


_PUT_AS_NOBODY = """
import os, sys
from smtpmaild.sendmail import Letter, drop
from smtpmaild.smtp.address import parse_mailbox
a = parse_mailbox("a@x.example")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
name = drop.put(sys.argv[1], Letter(a, (a,)), b"mine")
for forbidden in (lambda: os.listdir(sys.argv[1]), lambda: os.unlink(f"{sys.argv[1]}/{sys.argv[2]}.eml"),
                  lambda: open(f"{sys.argv[1]}/{sys.argv[2]}.eml")):
    try:
        forbidden()
    except PermissionError:
        print("forbidden")
print(name)
"""


@pytest.fixture
def open_folder() -> Iterator[str]:
    """One that is within reach of everybody, which those of pytest are not."""
    with TemporaryDirectory() as root:
        os.chmod(root, 0o711)
        drop.make(f"{root}/drop")
        yield f"{root}/drop"


def test_anybody_can_drop_and_nobody_sees_what_others_dropped(open_folder: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    folder = open_folder
    ours = drop.put(folder, LETTER, b"ours")
    command = [sys.executable, "-c", _PUT_AS_NOBODY, folder, ours]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    *forbidden, name = done.stdout.split()
    assert forbidden == ["forbidden"] * 3, done.stderr
    status = os.stat(f"{folder}/{name}.eml")
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, os.getgid(), 0o640)
    taken = drop.take(folder, name, to_ascii)
    with taken.message:
        assert (taken.message.read(), taken.owner) == (b"mine", 65534)
