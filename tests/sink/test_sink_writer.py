"""Group commit: batches, back-pressure, and what every kind of failure leaves behind: a 4yz and nothing else."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import PATHS, Faults, MakeStore, Store, to

from smtpmaild.sink import Delivery, delivery, disk, writer
from smtpmaild.sink.writer import NO_MEMORY, NO_SPACE, OVER_QUOTA, STORE_FAILED
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply

SMALL = b"Subject: x\r\n\r\nshort\r\n"
LARGE = b"The quick brown fox jumps over the lazy dog.\r\n" * 10_000


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    with MakeStore(tmp_path) as make:
        yield make


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def count(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """The system calls made from here on, those in `names` only."""
    calls: list[str] = []

    def counting(name: str) -> None:
        original = getattr(disk, name)

        def call(*arguments: object) -> object:
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(disk, name, call)

    for name in names:
        counting(name)
    return calls


def begin_many(store: Store, number: int) -> list[Delivery]:
    begun = [store.begin(to("alice")) for _ in range(number)]
    for each in begun:
        store.write(each, SMALL)
    return begun


def test_few_are_synced_one_by_one_many_together(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(threads=1)
    store.deliver(SMALL, to=[to("alice")])
    calls = count(monkeypatch, "create", "fsync", "syncfs", "rename")
    posts = store.posts

    few = writer.SYNCFS_FROM - 1
    store.settle(*begin_many(store, few))
    assert calls == ["create"] * few + ["fsync"] * few + ["rename"] * few + ["fsync"]
    assert store.posts - posts == 1

    calls.clear()
    store.settle(*begin_many(store, 20))
    assert calls == ["create"] * 20 + ["syncfs"] + ["rename"] * 20 + ["fsync"]
    assert store.posts - posts == 2


def test_without_syncfs_each_file_is_synced(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "HAS_SYNCFS", False)
    store = make_store(threads=1)
    calls = count(monkeypatch, "syncfs")
    assert store.settle(*begin_many(store, 20)) == [MESSAGE_ACCEPTED] * 20
    assert calls == []


def test_many_directories_are_synced_together(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(threads=1)
    boxes = [to(f"user{number}") for number in range(20)]
    for box in boxes:
        store.deliver(SMALL, to=[box])
    calls = count(monkeypatch, "fsync", "syncfs")
    begun = [store.begin(box) for box in boxes]
    store.settle(*begun)
    assert calls == ["syncfs", "syncfs"]


def test_on_a_slow_disk_commits_overlap(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(threads=2)
    monkeypatch.setattr(writer, "SLOW", 0.0)
    store.deliver(SMALL, to=[to("alice")])  # takes its time, and is remembered for it
    begun = threading.Event()
    both = threading.Barrier(2)  # passes only when two commits are under way
    rename = disk.rename

    def meet(source: str, target: str) -> None:
        begun.set()
        both.wait(5)
        rename(source, target)

    monkeypatch.setattr(disk, "rename", meet)
    first, second = begin_many(store, 2)
    replies: list[object] = []
    first.commit(replies.append)
    assert begun.wait(5)
    second.commit(replies.append)
    store.run_until(lambda: len(replies) == 2)
    assert replies == [MESSAGE_ACCEPTED] * 2


def test_on_a_fast_disk_one_thread_gathers(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(threads=2)
    monkeypatch.setattr(writer, "SLOW", 60.0)
    threads: set[int] = set()
    rename = disk.rename

    def recorded(source: str, target: str) -> None:
        threads.add(threading.get_ident())
        rename(source, target)

    monkeypatch.setattr(disk, "rename", recorded)
    for _ in range(10):
        store.settle(*begin_many(store, 2))
    assert len(threads) == 1


# Failures. Each case fails one system call, at its first occurrence, then its second, until the message goes through.

CASES: dict[str, tuple[str, list[str], bytes, dict[str, Any]]] = {
    # name: (kind, mailboxes, body, options)
    "one mailbox": ("maildir", ["alice"], SMALL, {}),
    "two mailboxes": ("maildir", ["alice", "bob"], SMALL, {}),
    "two mailboxes, linked": ("maildir", ["alice", "bob"], SMALL, {"delivered_to": False}),
    "large, two mailboxes": ("maildir", ["alice", "bob"], LARGE, {}),
    "large, linked": ("maildir", ["alice", "bob"], LARGE, {"delivered_to": False}),
    "spool": ("spool", ["alice", "bob"], SMALL, {}),
    "spool, large": ("spool", ["alice"], LARGE, {}),
}
CALLS = ["mkdir", "create", "write", "copy_file_range", "link", "fsync", "rename"]
REPLIES = {
    errno.ENOSPC: NO_SPACE,
    errno.EDQUOT: OVER_QUOTA,
    errno.EIO: STORE_FAILED,
    errno.EACCES: STORE_FAILED,
    errno.EROFS: STORE_FAILED,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", CASES)
def test_a_failing_call_is_4yz_and_leaves_nothing(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, case: str, call: str
) -> None:
    kind, mailboxes, body, options = CASES[case]
    destinations = [to(mailbox) for mailbox in mailboxes]
    number = errno.EIO
    for occurrence in range(100):
        with monkeypatch.context() as patch:
            faults = Faults(patch)
            store = make_store(kind, path=f"{occurrence}/{PATHS[kind]}", threads=1, **options)
            faults(call, number, after=occurrence)
            reply = store.deliver(body, to=destinations)
        if not faults.hits:
            break
        here = {name for name in store.files() if name.startswith(f"{occurrence}/")}
        assert reply is STORE_FAILED
        assert here == set(), f"{call} number {occurrence}"
        [(event, facts)] = store.log.facts
        assert event == "store_failed"
        assert facts["error"] == "EIO"
        assert facts["cause"] == "injected"
        assert str(facts["path"]).startswith(str(store.root))
        assert facts["messages"] == 1
        assert store.writer.held == 0
        # The next message goes through: nothing was left locked, open or remembered wrongly.
        assert store.deliver(body, to=destinations) is MESSAGE_ACCEPTED
    assert reply is MESSAGE_ACCEPTED
    if call in ("create", "write", "fsync", "rename"):
        assert occurrence > 0


@pytest.mark.parametrize("number", REPLIES)
def test_the_reply_says_whether_room_is_missing(make_store: MakeStore, faults: Faults, number: int) -> None:
    store = make_store()
    faults("write", number)
    assert store.deliver(SMALL, to=[to("alice")]) is REPLIES[number]


@pytest.mark.parametrize("call", ["syncfs", "fsync"])
def test_a_failed_sync_is_final_for_its_batch(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = make_store(threads=1)
    store.deliver(SMALL, to=[to("alice")])
    stored = store.files()
    Faults(monkeypatch)(call, errno.EIO)
    calls = count(monkeypatch, call)
    assert store.settle(*begin_many(store, 5)) == [STORE_FAILED] * 5
    assert store.files() == stored
    assert calls == [call]
    [(_, facts)] = store.log.facts
    assert facts["messages"] == 5


def test_a_failed_write_fails_its_message_alone(make_store: MakeStore, faults: Faults) -> None:
    store = make_store(threads=1)
    faults("write", errno.ENOSPC, after=2)
    replies = store.settle(*begin_many(store, 5))
    assert sorted(reply.code for reply in replies) == [250, 250, 250, 250, 452]
    assert len(store.visible()) == len(store.files()) == 4


def test_what_cannot_be_undone_stays_in_tmp(make_store: MakeStore, faults: Faults) -> None:
    store = make_store(threads=1)
    faults("rename", errno.EIO)
    faults("unlink", errno.EIO)
    assert store.deliver(SMALL, to=[to("alice")]) is STORE_FAILED
    assert store.visible() == {}
    assert len(store.files()) == 1


@pytest.mark.parametrize("call", ["create", "write"])
def test_a_failure_while_a_large_message_arrives_is_told_at_its_end(
    make_store: MakeStore, faults: Faults, call: str
) -> None:
    store = make_store(threads=1)
    faults(call, errno.ENOSPC, after=1 if call == "write" else 0)
    delivery = store.begin(to("alice"))
    store.write(delivery, LARGE[:300_000])
    store.run_until(lambda: store.writer.held < 200_000)
    held = store.writer.held
    for _ in range(10):
        assert delivery.write(LARGE)  # dropped, and never "wait"
    assert store.writer.held == held
    assert store.files() == {}
    assert store.settle(delivery) == [NO_SPACE]
    assert store.writer.held == 0


def test_a_full_store_is_avoided_for_a_moment(make_store: MakeStore, faults: Faults) -> None:
    store = make_store()
    assert store.sink.unhealthy() is None
    faults("write", errno.ENOSPC)
    store.deliver(SMALL, to=[to("alice")])
    assert store.sink.unhealthy() is NO_SPACE
    store.clock.now += writer.PAUSE - 0.01
    assert store.sink.unhealthy() is NO_SPACE
    store.clock.now += 0.02
    assert store.sink.unhealthy() is None


def test_a_full_quota_is_not_a_full_store(make_store: MakeStore, faults: Faults) -> None:
    store = make_store()
    faults("write", errno.EDQUOT)
    store.deliver(SMALL, to=[to("alice")])
    assert store.sink.unhealthy() is None


def test_too_much_in_memory_sheds_load(make_store: MakeStore) -> None:
    store = make_store(memory=10_000)
    delivery = store.begin(to("alice"))
    assert store.sink.unhealthy() is None
    delivery.write(b"x" * 10_001)
    assert store.sink.unhealthy() is NO_MEMORY
    delivery.abort()
    assert store.sink.unhealthy() is None


def test_messages_go_to_disk_early_while_memory_is_short(make_store: MakeStore) -> None:
    store = make_store(memory=200_000)
    first, second = store.begin(to("alice")), store.begin(to("bob"))
    first.write(b"x" * 60_000)
    assert store.files() == {}
    second.write(b"x" * 60_000)
    store.run_until(lambda: store.writer.held == 60_000)
    assert [name.split("/")[1] for name in store.files()] == ["bob"]
    assert store.settle(first, second) == [MESSAGE_ACCEPTED] * 2


# Back-pressure.


def test_a_fast_sender_waits_for_a_slow_disk(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(threads=1)
    go = threading.Event()
    write = disk.write

    def slow(fd: int, data: bytes) -> None:
        go.wait(10)
        write(fd, data)

    monkeypatch.setattr(disk, "write", slow)
    large = store.begin(to("alice"))
    chunk = b"x" * 64 * 1024
    taken = 0
    while large.write(chunk):
        taken += 1
    assert taken * len(chunk) <= delivery.HIGH_WATER + delivery.SPILL_FROM
    store.run_posted()
    assert store.drained == 0
    go.set()
    store.run_until(lambda: store.drained)
    assert store.writer.held <= delivery.LOW_WATER
    assert store.settle(large) == [MESSAGE_ACCEPTED]
    [(_, data)] = store.visible().items()
    assert data.count(b"x" * 1024) >= (taken + 1) * 64
    assert store.drained == 1


def test_abort_while_a_block_is_being_written(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(threads=2)
    writing, go = threading.Event(), threading.Event()
    write = disk.write

    def slow(fd: int, data: bytes) -> None:
        writing.set()
        go.wait(10)
        write(fd, data)

    monkeypatch.setattr(disk, "write", slow)
    delivery = store.begin(to("alice"))
    delivery.write(LARGE)
    delivery.write(LARGE)
    assert writing.wait(5)
    delivery.abort()
    go.set()
    store.sink.stop()
    store.run_posted()
    assert store.files() == {}
    assert store.drained == 0
    assert store.writer.held == 0
    store.sink.start(store.posted.put)


def resident(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) * 1024


def test_a_200_mb_message_stays_out_of_memory(make_store: MakeStore) -> None:
    store = make_store()
    chunk = b"x" * 998 + b"\r\n"
    chunk *= 256
    delivery = store.begin(to("alice"))
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): reset the peak of the resident set
    before = resident("VmRSS")
    for _ in range(200 * 1000 * 1000 // len(chunk)):
        if not delivery.write(chunk):
            drained = store.drained
            store.run_until(lambda drained=drained: store.drained > drained)  # type: ignore[misc]
    assert store.settle(delivery) == [MESSAGE_ACCEPTED]
    assert resident("VmHWM") - before < 16 * 1024 * 1024
    [path] = (store.root / "example.com/alice/new").iterdir()
    assert path.stat().st_size > 199_000_000
    path.unlink()


# Threads and the loop.


def test_stop_finishes_what_was_committed(make_store: MakeStore) -> None:
    before = {*threading.enumerate()}
    store = make_store()
    replies: list[object] = []
    large = store.begin(to("alice"))
    large.write(LARGE)
    large.commit(replies.append)
    for each in begin_many(store, 30):
        each.commit(replies.append)
    store.sink.stop()
    store.run_posted()
    assert replies == [MESSAGE_ACCEPTED] * 31
    assert {*threading.enumerate()} <= before  # other tests may have left some
    store.sink.start(store.posted.put)


def test_sinks_share_a_writer_until_the_last_has_stopped(make_store: MakeStore) -> None:
    store = make_store()
    store.sink.start(store.posted.put)
    store.sink.stop()
    assert store.deliver(SMALL, to=[to("alice")]) is MESSAGE_ACCEPTED


def test_a_closed_loop_does_not_stop_the_writer(make_store: MakeStore) -> None:
    store = make_store()

    def closed(function: object) -> None:
        raise RuntimeError("Event loop is closed")

    store.sink.stop()
    store.sink.start(closed)
    [delivery] = begin_many(store, 1)
    delivery.commit(print)
    store.sink.stop()
    assert len(store.visible()) == 1
    store.sink.start(store.posted.put)


def test_a_mistake_of_ours_fails_the_batch_and_not_the_thread(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(threads=1)

    def wrong(*arguments: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(disk, "rename", wrong)
        assert store.settle(*begin_many(store, 5)) == [STORE_FAILED] * 5
    assert store.files() == {}
    assert [event for event, _ in store.log.facts] == ["writer_failed"]
    assert store.deliver(SMALL, to=[to("alice")]) is MESSAGE_ACCEPTED


def test_a_mistake_in_a_block_fails_the_message(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(threads=1)

    def wrong(*arguments: object) -> None:
        raise ZeroDivisionError

    large = store.begin(to("alice"))
    with monkeypatch.context() as patch:
        patch.setattr(disk, "write", wrong)
        large.write(LARGE)
        store.run_until(lambda: store.writer.held == 0)
    assert store.settle(large) == [STORE_FAILED]
    assert store.files() == {}


def test_a_mistake_outside_of_commits_does_not_end_the_thread(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(threads=1)

    def wrong(*arguments: object) -> None:
        raise ZeroDivisionError

    large = store.begin(to("alice"))
    large.write(LARGE)
    store.run_until(lambda: store.writer.held == 0)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "unlink", wrong)
        large.abort()
        deadline = time.monotonic() + 5
        while not store.log.facts and time.monotonic() < deadline:
            time.sleep(0.001)
    assert [event for event, _ in store.log.facts] == ["writer_failed"]
    assert store.deliver(SMALL, to=[to("alice")]) is MESSAGE_ACCEPTED


def test_one_failing_answer_does_not_keep_the_others_from_theirs(make_store: MakeStore) -> None:
    store = make_store(threads=1)
    replies: list[object] = []

    def fail(outcome: object) -> None:
        raise ZeroDivisionError

    first, second = begin_many(store, 2)
    first.commit(fail)
    second.commit(replies.append)
    store.run_until(lambda: replies)
    assert [event for event, _ in store.log.facts] == ["answer_failed"]


def test_short_writes_are_completed(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    store = make_store()
    store.deliver(SMALL, to=[to("alice")])
    monkeypatch.undo()
    [data] = store.files().values()
    assert data.endswith(b"Subject: x\n\nshort\n")


def test_syncfs_reports_errors() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.syncfs(-1)


@pytest.mark.parametrize(
    ("release", "has"), [("5.7.19", False), ("5.8.0-1-amd64", True), ("6.18", True), ("odd", False)]
)
def test_syncfs_is_used_where_it_tells_of_errors(monkeypatch: pytest.MonkeyPatch, release: str, has: bool) -> None:
    class Machine:
        pass

    Machine.release = release  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "uname", Machine)
    assert disk._has_syncfs() is has


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("body", [SMALL, LARGE])
@pytest.mark.parametrize("kind", ["maildir", "spool"])
def test_a_really_full_disk(tmp_path: Path, kind: str, body: bytes) -> None:
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"cannot mount: {mount.stderr.decode().strip()}")
    try:
        with MakeStore(tmp_path) as make_store:
            store = make_store(kind)
            replies: list[Reply] = []
            while not replies or replies[-1] is MESSAGE_ACCEPTED:
                replies.append(store.deliver(body * 10 if body is SMALL else body, to=[to("alice")]))
            assert replies[-1] is NO_SPACE
            assert store.sink.unhealthy() is NO_SPACE
            assert store.files() == store.visible()
            complete = [data for data in store.files().values() if data.rstrip().endswith((b"short", b"dog."))]
            assert len(complete) == len(replies) - 1
            [(event, facts)] = store.log.facts
            assert (event, facts["error"]) == ("store_failed", "ENOSPC")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
