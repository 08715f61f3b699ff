"""Under LMTP each destination has its own outcome: what one mailbox cannot take, the others get all the same."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import PATHS, RECEIVED, Faults, MakeStore, Store, to

from smtpmaild.envelope import Destination
from smtpmaild.sink import delivery, disk, writer
from smtpmaild.sink.writer import NO_SPACE, OVER_QUOTA, STORE_FAILED
from smtpmaild.smtp.reply import Reply

SMALL = b"Subject: x\r\n\r\nshort\r\n"
LARGE = b"The quick brown fox jumps over the lazy dog.\r\n" * 20_000
STORED = "250 2.0.0 message sent"
FULL, NO_ROOM, FAILED = str(OVER_QUOTA), str(NO_SPACE), str(STORE_FAILED)
MAILBOXES = [to("alice"), to("bob"), to("carol")]
DOMAINS = [to("a", "one.example"), to("b", "two.example"), to("c", "one.example")]


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    with MakeStore(tmp_path) as make:
        yield make


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def fail_writes(monkeypatch: pytest.MonkeyPatch, full: Callable[[str], bool], *, room: int = 0) -> None:
    """Directories over quota: of what is written into them `room` bytes fit."""
    written: dict[str, int] = {}

    def failing(original: Callable[..., int | None], fd: int, size: int) -> int | None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if full(path):
            written[path] = written.get(path, 0) + size
            if written[path] > room:
                raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return original()

    write, copy = disk.write, disk.copy_file_range
    monkeypatch.setattr(disk, "write", lambda fd, data: failing(lambda: write(fd, data), fd, len(data)))
    monkeypatch.setattr(
        disk,
        "copy_file_range",
        lambda source, target, size, offset: failing(lambda: copy(source, target, size, offset), target, size),
    )


def of(name: str) -> Callable[[str], bool]:
    return lambda path: f"/{name}/" in path


def messages(store: Store, mailbox: str) -> list[bytes]:
    """What readers see of it, without the fields in front."""
    found = [data for name, data in store.visible().items() if f"{mailbox}/" in name and not name.endswith(".json")]
    return [data.partition(RECEIVED.replace(b"\r\n", b"\n"))[2] or data.partition(RECEIVED)[2] for data in found]


# Every call that can fail, at every place

CASES = {
    "maildir": ("maildir", {}, MAILBOXES, SMALL),
    "maildir, large": ("maildir", {}, MAILBOXES, LARGE),
    "maildir, shared": ("maildir", {"delivered_to": False}, MAILBOXES, SMALL),
    "maildir, large and shared": ("maildir", {"delivered_to": False}, MAILBOXES, LARGE),
    "maildir, twice the same": ("maildir", {}, [to("alice"), to("bob"), to("alice")], SMALL),
    "spool of each domain": ("spool", {}, DOMAINS, SMALL),
    "spool of each domain, large": ("spool", {}, DOMAINS, LARGE),
}
CALLS = ["mkdir", "create", "write", "link", "copy_file_range", "rename"]


def home(kind: str, destination: Destination) -> str:
    return destination.domain if kind == "spool" else destination.mailbox


@pytest.mark.parametrize("number", [errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", CASES)
def test_one_fault_is_one_destinations_fault(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, case: str, call: str, number: int
) -> None:
    kind, options, destinations, body = CASES[case]
    path = {"spool": "spool/{domain}"}.get(kind, PATHS[kind])
    stored = body if kind == "spool" else body.replace(b"\r\n", b"\n")
    for occurrence in range(60):
        with monkeypatch.context() as patch:
            faults = Faults(patch)
            store = make_store(kind, path=f"{occurrence}/{path}", threads=1, **options)
            faults(call, number, after=occurrence)
            said = store.deliver_each(body, to=destinations)
        if not faults.hits:
            break
        lost = {home(kind, each) for each, reply in zip(destinations, said, strict=True) if reply != STORED}
        assert set(said) <= {STORED, FULL if number == errno.EDQUOT else FAILED}
        for each, reply in zip(destinations, said, strict=True):
            assert (reply != STORED) == (home(kind, each) in lost), "one directory, one outcome"
            here = messages(store, f"{occurrence}/{path}".format(domain=each.domain, mailbox=each.mailbox))
            assert here == ([] if reply != STORED else [stored]), f"{call} number {occurrence}"
        assert len(lost) <= 1 or call == "mkdir"  # the directory of a domain may be missing for all
        assert not [name for name in store.files() if name.startswith(f"{occurrence}/") and "tmp/" in name]
        assert [event for event, _ in store.log.facts] == (["store_failed"] if lost else [])
        if lost:
            assert store.log.facts[0][1]["error"] == errno.errorcode[number]
    else:
        pytest.fail(f"{call} never stops")


@pytest.mark.parametrize("body", [SMALL, LARGE])
def test_a_failed_sync_is_everybodys(make_store: MakeStore, faults: Faults, body: bytes) -> None:
    store = make_store(threads=1)
    faults("fsync", errno.EIO, times=100, match="")
    faults("syncfs", errno.EIO, times=100)
    assert store.deliver_each(body, to=MAILBOXES) == [FAILED] * 3
    assert store.files() == {}


@pytest.mark.parametrize("step", ["open file system", "sync directory"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT])
def test_a_directory_that_cannot_be_opened_is_its_mailboxs_trouble(
    make_store: MakeStore, faults: Faults, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    """Of a whole batch, SMTP and LMTP, only what goes there fails."""
    store = make_store(threads=1)
    if step == "sync directory":
        monkeypatch.setattr(writer, "SYNCFS_FOLDERS_FROM", 100)
        store.settle(*[store.begin(to("carol")) for _ in range(2)])  # the file system is known now
        (store.root / "example.com" / "carol" / "new").rename(store.root / "before")
        (store.root / "example.com" / "carol" / "new").mkdir()
    faults("open_directory", number, times=100, match="/bob/new")
    begun = [
        store.begin(*whom, is_lmtp=is_lmtp)
        for is_lmtp in (False, True)
        for whom in ([to("bob"), to("alice")], [to("alice")], [to("bob")])
    ]
    for each in begun:
        store.write(each, SMALL)
    said = store.settle_each(*begun)
    outcomes = [[str(reply) for reply in ([one] if isinstance(one, Reply) else one)] for one in said]
    assert outcomes == [[FAILED], [STORED], [FAILED], [FAILED, STORED], [STORED], [FAILED]]
    assert messages(store, "bob") == []
    assert step in {facts["step"] for _, facts in store.log.facts}
    assert not [name for name in store.files() if "tmp/" in name]


@pytest.mark.parametrize("body", [SMALL, LARGE])
def test_under_smtp_one_fault_is_still_the_messages(make_store: MakeStore, faults: Faults, body: bytes) -> None:
    store = make_store(threads=1)
    faults("rename", errno.EACCES, after=1)
    assert store.deliver(body, to=MAILBOXES) is STORE_FAILED
    assert store.files() == {}


# Mailboxes that are over quota


@pytest.mark.parametrize("room", [0, 100, 300_000])
@pytest.mark.parametrize("delivered_to", [True, False])
@pytest.mark.parametrize("full", ["alice", "bob", "carol"])
@pytest.mark.parametrize("body", [SMALL, LARGE])
def test_one_mailbox_over_quota(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, full: str, body: bytes, delivered_to: bool, room: int
) -> None:
    """A large message is on its way into the first directory when that turns out to be full: it moves to the next."""
    if room > len(body):
        pytest.skip("it fits")
    store = make_store(threads=1, delivered_to=delivered_to)
    fail_writes(monkeypatch, of(full), room=room)
    said = store.deliver_each(*(body[start : start + 50_000] for start in range(0, len(body), 50_000)), to=MAILBOXES)
    # A hard link needs no room: only who would have to hold the bytes is refused.
    expected = [each.mailbox for each in MAILBOXES if each.mailbox == full and (delivered_to or full == "alice")]
    assert [each.mailbox for each, reply in zip(MAILBOXES, said, strict=True) if reply == FULL] == expected
    for each, reply in zip(MAILBOXES, said, strict=True):
        assert messages(store, each.mailbox) == ([body.replace(b"\r\n", b"\n")] if reply == STORED else [])
    assert store.sink.unhealthy() is None  # a quota is not a full disk
    assert not [name for name in store.files() if "tmp/" in name]
    assert store.writer.held == 0


def test_all_but_the_last_over_quota(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(threads=1)
    fail_writes(monkeypatch, lambda path: not of("carol")(path), room=300_000)
    assert store.deliver_each(LARGE, to=MAILBOXES) == [FULL, FULL, STORED]
    assert messages(store, "carol") == [LARGE.replace(b"\r\n", b"\n")]
    assert len(store.visible()) == len(store.files()) == 1
    [(event, facts)] = store.log.facts
    assert (event, facts["step"], facts["error"], facts["messages"]) == ("store_failed", "write", "EDQUOT", 2)


def test_all_over_quota(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(threads=1)
    fail_writes(monkeypatch, lambda _: True, room=300_000)
    assert store.deliver_each(LARGE, to=MAILBOXES) == [FULL] * 3
    assert store.files() == {}


def test_different_faults_are_different_replies(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(threads=1)
    fail_writes(monkeypatch, of("alice"))
    with monkeypatch.context() as patch:
        Faults(patch)("create", errno.EACCES, match="/bob/")
        assert store.deliver_each(SMALL, to=MAILBOXES) == [FULL, FAILED, STORED]
    errors = sorted(str(facts["error"]) for _, facts in store.log.facts)
    assert errors == ["EACCES", "EDQUOT"]


def test_a_full_disk_pauses_the_store(make_store: MakeStore, faults: Faults) -> None:
    store = make_store(threads=1)
    faults("create", errno.ENOSPC, match="/bob/")
    assert store.deliver_each(SMALL, to=MAILBOXES) == [STORED, NO_ROOM, STORED]
    assert store.sink.unhealthy() is NO_SPACE


# Without injected faults


def test_a_maildir_that_is_none(make_store: MakeStore) -> None:
    """Somebody put a file where the mailbox was."""
    store = make_store()
    (store.root / "example.com").mkdir()
    (store.root / "example.com" / "bob").write_text("")
    for body in (SMALL, LARGE):
        assert store.deliver_each(body, to=MAILBOXES) == [STORED, FAILED, STORED]
        assert store.deliver_each(body, to=[to("bob"), to("alice")]) == [FAILED, STORED]
    assert len(messages(store, "alice")) == 4
    # What is large is begun, in the first directory that takes it, before it has come to its end.
    assert [facts["step"] for _, facts in store.log.facts] == [*["make folder"] * 3, "write"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("body", [SMALL, LARGE])
def test_a_full_disk_and_one_that_is_read_only(tmp_path: Path, body: bytes) -> None:
    mounted: list[Path] = []
    try:
        for mailbox, options in (("alice", "size=64k"), ("bob", "ro")):
            path = tmp_path / "example.com" / mailbox
            path.mkdir(parents=True)
            mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                pytest.skip("cannot mount")
            mounted.append(path)
        (tmp_path / "example.com" / "alice" / "fill").write_bytes(b"x" * 4096 * (14 if body is SMALL else 10))
        with MakeStore(tmp_path) as make_store:
            store = make_store()
            replies = [store.deliver_each(body, to=MAILBOXES) for _ in range(3)]
            assert replies[-1] == [NO_ROOM, FAILED, STORED]
            assert messages(store, "carol") == [body.replace(b"\r\n", b"\n")] * 3
            (tmp_path / "example.com" / "alice" / "fill").unlink()
            assert len(messages(store, "alice")) == sum(said[0] == STORED for said in replies)
            assert store.sink.unhealthy() is NO_SPACE
            errors = {facts["error"] for _, facts in store.log.facts}
            assert errors == {"ENOSPC", "EROFS"}
            assert not [name for name in store.files() if "tmp/" in name]
    finally:
        for path in mounted:
            subprocess.run(["umount", path], check=True)


def test_an_aborted_message_that_has_lost_a_mailbox_leaves_nothing(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(threads=1)
    fail_writes(monkeypatch, of("alice"), room=300_000)
    begun = store.begin(*MAILBOXES, is_lmtp=True)
    store.write(begun, LARGE)
    begun.abort()
    store.sink.stop()
    store.sink.start(store.posted.put)
    assert store.files() == {}


def test_spill_thresholds_are_below_the_large_message() -> None:
    assert len(LARGE) > delivery.HIGH_WATER  # or the tests above would test less than they say
    assert shutil.disk_usage("/").free > 10 * len(LARGE)
