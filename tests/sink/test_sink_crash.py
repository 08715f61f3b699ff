"""A kill between any two steps: no reader ever sees a part of a message, and the next start cleans up.

A child process delivers a message and dies just before its n-th system call on the store, for every n until it gets
through. The parent then reads what is there.
"""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import RECEIVED, MakeStore, to

from smtpmaild.sink import disk
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED

STEPS = ("mkdir", "create", "write", "copy_file_range", "link", "fsync", "syncfs", "rename", "close", "unlink")
DELIVERED, REFUSED, BROKEN = 0, 1, 70
KILLED = -signal.SIGKILL
SMALL = b"Subject: x\r\n\r\nshort\r\n"
LARGE = b"The quick brown fox jumps over the lazy dog.\r\n" * 10_000


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    with MakeStore(tmp_path) as make:
        yield make


def die_before(step: int) -> None:
    left = [step]

    def deadly(name: str) -> None:
        original = getattr(disk, name)

        def call(*arguments: object) -> object:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return original(*arguments)

        setattr(disk, name, call)

    for name in STEPS:
        deadly(name)


def deliver_and_die(root: Path, kind: str, body: bytes, messages: int, step: int) -> int:
    """The exit status of the child."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        die_before(step)
        store = MakeStore(root)(kind, threads=1)
        begun = [store.begin(to("alice"), to("bob")) for _ in range(messages)]
        for each in begun:
            store.write(each, body)
        os._exit(DELIVERED if store.settle(*begun) == [MESSAGE_ACCEPTED] * messages else REFUSED)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(BROKEN)


@pytest.mark.parametrize(("body", "messages"), [(SMALL, 1), (SMALL, 4), (LARGE, 1)])
@pytest.mark.parametrize("kind", ["maildir", "spool"])
def test_kill_between_any_two_steps(
    make_store: MakeStore, tmp_path: Path, kind: str, body: bytes, messages: int
) -> None:
    store = make_store(kind)
    line_end = b"\n" if kind == "maildir" else b"\r\n"
    whole = (RECEIVED + body).replace(b"\r\n", line_end)
    statuses: list[int] = []
    while DELIVERED not in statuses:
        known = store.visible()
        status = deliver_and_die(tmp_path, kind, body, messages, len(statuses))
        statuses.append(status)
        assert status in (DELIVERED, KILLED)
        files = store.visible()
        for name, data in files.items():
            if name.endswith(".json"):
                assert json.loads(data)["size"] == len(files[name.removesuffix(".json") + ".eml"])
            else:
                assert data.endswith(whole), f"partial after step {len(statuses)}"
        # A later start: what was in tmp/ goes, what was visible stays.
        for path in (*tmp_path.rglob("tmp/*"), *(tmp_path / name for name in files)):
            os.utime(path, (1, 1))
        store.sink.prepare()
        assert store.files() == files
    assert len(statuses) > 10
    assert len(store.visible().keys() - known.keys()) == 2 * messages
