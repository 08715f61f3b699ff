"""The spool directory: pairs for other programs, complete or not to be seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import RECEIVED, MakeStore, Store, make_envelope, to

from smtpmaild.envelope import BodyType
from smtpmaild.queue_id import is_queue_id
from smtpmaild.sink import delivery, disk
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED

LARGE = b"The quick brown fox jumps over the lazy dog.\r\n" * 10_000
FORGIVING = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    with MakeStore(tmp_path) as make:
        yield make


def pairs(store: Store) -> list[tuple[dict[str, object], bytes]]:
    """(envelope, message) of every pair; fails where half of one is missing."""
    files = store.files()
    found = []
    for name, data in files.items():
        stem, _, suffix = name.rpartition(".")
        assert is_queue_id(stem.rpartition("/")[2])
        if suffix == "json":
            found.append((json.loads(data), files[f"{stem}.eml"]))
    assert len(files) == 2 * len(found)
    return found


def test_the_pair(make_store: MakeStore) -> None:
    store = make_store("spool")
    body = b"Subject: x\r\n\r\nbody\r\n"
    assert store.deliver(body, to=[to("alice", subaddress="tag", address="Alice+tag@example.com")]) is MESSAGE_ACCEPTED
    [(envelope, message)] = pairs(store)
    assert message == b"Return-Path: <a@x.test>\r\nDelivered-To: Alice+tag@example.com\r\n" + RECEIVED + body
    assert is_queue_id(str(envelope.pop("queue_id")))
    assert envelope == {
        "version": 1,
        "session_id": "S1",
        "received_at": "2026-11-22T15:00:41.250000Z",
        "reverse_path": "a@x.test",
        "recipients": [
            {
                "address": "Alice+tag@example.com",
                "rule": "local",
                "domain": "example.com",
                "mailbox": "alice",
                "subaddress": "tag",
                "parameters": {"NOTIFY": "NEVER"},
            }
        ],
        "peer": "192.0.2.1",
        "client_name": "",
        "user": "",
        "hello": "client.example",
        "protocol": "ESMTP",
        "listener": "mx",
        "body": "7BIT",
        "smtputf8": False,
        "size": len(message),
    }


def test_several_recipients_make_one_pair(make_store: MakeStore) -> None:
    store = make_store("spool")
    store.deliver(b"x\r\n", to=[to("alice"), to("bob"), to("carol", "other.example")])
    [(envelope, message)] = pairs(store)
    assert [each["address"] for each in envelope["recipients"]] == [  # type: ignore[attr-defined]
        "alice@example.com",
        "bob@example.com",
        "carol@other.example",
    ]
    assert message == b"Return-Path: <a@x.test>\r\n" + RECEIVED + b"x\r\n"


@pytest.mark.parametrize("body", [b"short\r\n", LARGE])
def test_a_directory_for_each_domain(make_store: MakeStore, body: bytes) -> None:
    store = make_store("spool", path="{domain}")
    store.deliver(body, to=[to("alice"), to("bob"), to("carol", "other.example")])
    (first, message), (second, same) = pairs(store)
    assert [each["mailbox"] for each in first["recipients"]] == ["alice", "bob"]  # type: ignore[attr-defined]
    assert [each["mailbox"] for each in second["recipients"]] == ["carol"]  # type: ignore[attr-defined]
    assert message == same
    inodes = {path.stat().st_ino for path in store.root.rglob("*.eml")}
    assert len(inodes) == 1  # nothing differs: the body is shared


def test_a_recipient_that_routing_does_not_know(make_store: MakeStore) -> None:
    # An embedding program may hand over destinations of its own.
    store = make_store("spool")
    made = store.sink.begin(make_envelope(), [to("alice")], lambda: None)
    made.write(b"x\r\n")
    store.settle(made)
    [(envelope, _)] = pairs(store)
    assert envelope["recipients"] == [
        {
            "address": "alice@example.com",
            "rule": "",
            "domain": "example.com",
            "mailbox": "alice",
            "subaddress": "",
            "parameters": {},
        }
    ]


@FORGIVING
@given(data=st.binary(), cuts=st.lists(st.integers(0)), body=st.sampled_from(BodyType))
@pytest.mark.parametrize("spill_from", [4, 1 << 20])
def test_every_byte_is_kept(
    make_store: MakeStore,
    monkeypatch: pytest.MonkeyPatch,
    spill_from: int,
    data: bytes,
    cuts: list[int],
    body: BodyType,
) -> None:
    monkeypatch.setattr(delivery, "SPILL_FROM", spill_from)
    store = make_store("spool")
    cut = cuts[0] % (len(data) + 1) if cuts else 0
    store.deliver(data[:cut], data[cut:], to=[to("alice"), to("bob")], body=body)
    [(envelope, message)] = pairs(store)
    for path in (store.root / "spool").glob("*.*"):
        path.unlink()
    assert message == b"Return-Path: <a@x.test>\r\n" + RECEIVED + data
    assert envelope["size"] == len(message)
    assert envelope["body"] == body.value


def test_the_envelope_is_seen_last(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store("spool", threads=1)
    steps: list[str] = []
    rename, fsync = disk.rename, disk.fsync

    def recorded_rename(source: str, target: str) -> None:
        steps.append("rename " + target.rpartition(".")[2])
        rename(source, target)

    def recorded_fsync(fd: int) -> None:
        steps.append("sync")
        fsync(fd)

    store.deliver(b"x\r\n", to=[to("alice")])
    monkeypatch.setattr(disk, "rename", recorded_rename)
    monkeypatch.setattr(disk, "fsync", recorded_fsync)
    store.deliver(b"x\r\n", to=[to("alice")])
    assert steps == ["sync", "sync", "rename eml", "sync", "rename json", "sync"]


def test_locate(make_store: MakeStore) -> None:
    assert make_store("spool").sink.locate(to("alice")).endswith("/spool")
