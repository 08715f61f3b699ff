"""Maildir: what readers find, byte by byte, and what they never see."""

from __future__ import annotations

import mailbox
import os
import re
import stat
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import RECEIVED, MakeStore, to

from smtpmaild.envelope import BodyType
from smtpmaild.sink import delivery, disk, maildir
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED

HEAD = b"Return-Path: <a@x.test>\nDelivered-To: alice@example.com\n" + RECEIVED.replace(b"\r\n", b"\n")
LARGE = b"The quick brown fox jumps over the lazy dog.\r\n" * 10_000
NAME = re.compile(r"(\d+)\.M(\d{6})P(\d+)Q(\d+)\.([^/:]+?),S=(\d+)(?:,W=(\d+))?")
FORGIVING = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    with MakeStore(tmp_path) as make:
        yield make


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_a_message_lands_in_new(make_store: MakeStore) -> None:
    store = make_store()
    assert store.deliver(b"Subject: x\r\n\r\nbody\r\n", to=[to("alice")]) is MESSAGE_ACCEPTED

    [(name, data)] = store.files().items()
    assert data == HEAD + b"Subject: x\n\nbody\n"
    directory, _, file_name = name.rpartition("/")
    assert directory == "example.com/alice/new"
    match = NAME.fullmatch(file_name)
    assert match
    assert int(match[3]) == os.getpid()
    assert int(match[6]) == len(data)
    assert int(match[7]) == len(data.replace(b"\n", b"\r\n"))
    for part in ("", "/tmp", "/new", "/cur"):
        assert stat.S_IMODE((store.root / f"example.com/alice{part}").stat().st_mode) == 0o700
    assert stat.S_IMODE((store.root / name).stat().st_mode) == 0o600
    assert store.log.facts == []
    assert store.writer.held == 0


def test_python_reads_it(make_store: MakeStore) -> None:
    store = make_store()
    for number in range(3):
        store.deliver(b"Subject: %d\r\n\r\nbody\r\n" % number, to=[to("alice")])
    box = mailbox.Maildir(store.root / "example.com/alice", create=False)
    assert sorted(message["Subject"] for message in box) == ["0", "1", "2"]
    assert {message["Return-Path"] for message in box} == {"<a@x.test>"}


@FORGIVING
@given(
    body=st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\0", b"\xff.", b""])), cuts=st.lists(st.integers(0))
)
@pytest.mark.parametrize("spill_from", [4, 1 << 20])
def test_line_ends_become_lf_and_nothing_else_changes(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, spill_from: int, body: list[bytes], cuts: list[int]
) -> None:
    monkeypatch.setattr(delivery, "SPILL_FROM", spill_from)
    store = make_store()
    data = b"".join(body)
    store.deliver(*split(data, cuts), to=[to("alice")])
    [(name, stored)] = store.files().items()
    (store.root / name).unlink()
    assert stored == HEAD + data.replace(b"\r\n", b"\n")
    match = NAME.fullmatch(name.rpartition("/")[2])
    assert match
    assert int(match[6]) == len(stored)
    is_clean = b"\r" not in stored and data.count(b"\n") == data.count(b"\r\n")
    assert match[7] == (str(len(stored.replace(b"\n", b"\r\n"))) if is_clean else None)


@FORGIVING
@given(data=st.binary(), cuts=st.lists(st.integers(0)))
@pytest.mark.parametrize("spill_from", [4, 1 << 20])
def test_binary_messages_keep_every_byte(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, spill_from: int, data: bytes, cuts: list[int]
) -> None:
    monkeypatch.setattr(delivery, "SPILL_FROM", spill_from)
    store = make_store()
    store.deliver(*split(data, cuts), to=[to("alice")], body=BodyType.BINARY_MIME)
    [(name, stored)] = store.files().items()
    (store.root / name).unlink()
    assert stored == HEAD.replace(b"\n", b"\r\n") + data
    assert name.endswith(f",S={len(stored)}")


def test_large_messages_spill_and_arrive_whole(make_store: MakeStore) -> None:
    store = make_store()
    delivery = store.begin(to("alice"))
    store.write(delivery, LARGE)
    store.run_until(lambda: store.files())  # in tmp/ before the end of data
    assert store.visible() == {}
    assert store.settle(delivery) == [MESSAGE_ACCEPTED]
    assert list(store.visible().values()) == [HEAD + LARGE.replace(b"\r\n", b"\n")]
    assert len(store.files()) == 1
    assert store.writer.held == 0


@pytest.mark.parametrize("body", [b"short\r\n", LARGE])
def test_several_mailboxes_share_a_file_where_it_is_the_same(make_store: MakeStore, body: bytes) -> None:
    store = make_store(delivered_to=False)
    store.deliver(body, to=[to("alice"), to("bob"), to("carol")])
    paths = [store.root / name for name in store.visible()]
    assert [path.parent.parent.name for path in paths] == ["alice", "bob", "carol"]
    assert len({path.stat().st_ino for path in paths}) == 1
    assert len(store.files()) == 3


@pytest.mark.parametrize("body", [b"short\r\n", LARGE])
def test_several_mailboxes_get_copies_where_delivered_to_differs(make_store: MakeStore, body: bytes) -> None:
    store = make_store()
    store.deliver(body, to=[to("alice"), to("bob")])
    stored = HEAD + body.replace(b"\r\n", b"\n")
    assert list(store.files().values()) == [stored, stored.replace(b"alice@", b"bob@")]
    for name, data in store.files().items():
        assert f",S={len(data)}," in name


def test_an_alias_for_several_mailboxes_is_shared_too(make_store: MakeStore) -> None:
    store = make_store()
    sales = "sales@example.com"
    store.deliver(LARGE, to=[to("alice", address=sales), to("bob", address=sales)])
    paths = [store.root / name for name in store.visible()]
    assert len({path.stat().st_ino for path in paths}) == 1
    assert b"\nDelivered-To: sales@example.com\n" in paths[0].read_bytes()


def test_a_mailbox_reached_twice_gets_one_copy(make_store: MakeStore) -> None:
    store = make_store()
    store.deliver(b"x\r\n", to=[to("alice"), to("alice", address="sales@example.com"), to("bob")])
    assert [name.split("/")[1] for name in store.files()] == ["alice", "bob"]
    assert b"Delivered-To: alice@example.com\n" in next(iter(store.files().values()))


@pytest.mark.parametrize("number", sorted(delivery._CANNOT_LINK))
@pytest.mark.parametrize("body", [b"short\r\n", LARGE])
def test_where_links_are_not_possible_the_copy_is_written(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, number: int, body: bytes
) -> None:
    def no_link(source: str, target: str) -> None:
        raise OSError(number, "injected")

    monkeypatch.setattr(disk, "link", no_link)
    store = make_store(delivered_to=False)
    assert store.deliver(body, to=[to("alice"), to("bob")]) is MESSAGE_ACCEPTED
    alice, bob = (store.root / name for name in store.visible())
    assert alice.stat().st_ino != bob.stat().st_ino
    assert alice.read_bytes() == bob.read_bytes()


def test_without_copy_file_range_large_copies_are_read_and_written(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_copy(*arguments: object) -> int:
        raise OSError(min(delivery._CANNOT_COPY), "injected")

    monkeypatch.setattr(disk, "copy_file_range", no_copy)
    monkeypatch.setattr(delivery, "_COPY_AT_ONCE", 100_000)
    store = make_store()
    store.deliver(LARGE, to=[to("alice"), to("bob")])
    assert list(store.files().values())[1] == HEAD.replace(b"alice", b"bob") + LARGE.replace(b"\r\n", b"\n")


def test_postmaster_without_domain_gets_one_in_delivered_to(make_store: MakeStore) -> None:
    store = make_store()
    store.deliver(b"x\r\n", to=[to("alice", address="postmaster")])
    assert b"Delivered-To: postmaster@example.com\n" in next(iter(store.files().values()))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o777])
def test_modes_are_as_asked_whatever_the_umask(make_store: MakeStore, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = make_store(file_mode="0664", directory_mode="02770")
        store.deliver(b"x\r\n", to=[to("alice")])
        [name] = store.files()
    finally:
        os.umask(before)
    assert stat.S_IMODE((store.root / name).stat().st_mode) == 0o664
    assert stat.S_IMODE((store.root / "example.com/alice/new").stat().st_mode) == 0o2770


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_and_group(make_store: MakeStore) -> None:
    store = make_store(owner="nobody", group=12345)
    store.deliver(b"x\r\n", to=[to("alice")])
    [name] = store.files()
    for path in ("example.com", "example.com/alice", "example.com/alice/new", name):
        status = (store.root / path).stat()
        assert (status.st_uid, status.st_gid) == (65534, 12345)


def test_a_removed_mailbox_is_made_again(make_store: MakeStore) -> None:
    store = make_store()
    store.deliver(b"1\r\n", to=[to("alice")])
    os.rename(store.root / "example.com", store.root / "gone")
    assert store.deliver(b"2\r\n", to=[to("alice")]) is MESSAGE_ACCEPTED
    assert [name.split("/")[0] for name in store.files()] == ["example.com", "gone"]


def test_an_aborted_message_leaves_nothing(make_store: MakeStore) -> None:
    store = make_store()
    small, large = store.begin(to("alice")), store.begin(to("alice"))
    store.write(small, b"x\r\n")
    store.write(large, LARGE)
    small.abort()
    large.abort()
    assert store.writer.held == 0
    store.sink.stop()
    store.run_posted()
    assert store.files() == {}
    assert store.writer.held == 0
    store.sink.start(store.posted.put)


def test_locate_names_the_maildir(make_store: MakeStore) -> None:
    store = make_store()
    assert store.sink.locate(to("alice")) == f"{store.root}/example.com/alice"
    assert list(store.root.iterdir()) == []


def test_old_leftovers_are_swept_and_young_ones_kept(make_store: MakeStore) -> None:
    store = make_store()
    store.deliver(b"x\r\n", to=[to("alice")])
    box = store.root / "example.com/alice"
    old, young = box / "tmp/old", box / "tmp/young"
    for path in (old, young, box / "cur/old", box / "new/old"):
        path.write_bytes(b"")
        os.utime(path, (1, 1))
    os.utime(young)
    store.sink.prepare()
    assert sorted(path.name for path in box.rglob("*") if path.is_file())[-3:] == ["old", "old", "young"]
    assert not old.exists()


def test_host_names_are_made_fit_for_a_file_name(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.uname_result(("", "a/b:c,d", "", "", ""))
    monkeypatch.setattr(os, "uname", lambda: machine)
    assert maildir._host() == "a\\057b\\072c\\054d"


def test_the_root_is_made_by_prepare(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(path="a/b/{mailbox}")
    assert (tmp_path / "a/b").is_dir()
    store.deliver(b"x\r\n", to=[to("alice")])
    assert next(iter(store.files())).startswith("a/b/alice/new/")
