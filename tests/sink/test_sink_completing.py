"""Missing fields: which are added, where, and that not a byte of the message changes however it is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from receiving import Store

from smtpmaild import trace
from smtpmaild.envelope import Destination, Envelope, Peer
from smtpmaild.sink import Outcome
from smtpmaild.sink.completing import HEADER_LIMIT, CompletingSink
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply

ENVELOPE = Envelope("Q1", "S1", "submission", "mx.example.com", Peer("192.0.2.1"), "c", "ESMTPSA", 1795359641.9)
RECEIVED = b"Received: by mx.example.com\r\n"
DATE, MESSAGE_ID = trace.date(ENVELOPE), trace.message_id(ENVELOPE)


def delivered(chunks: Sequence[bytes]) -> bytes:
    """What the store has of a message that comes in these pieces."""
    store = Store()
    delivery = CompletingSink(store).begin(ENVELOPE, (), lambda: None)
    outcomes: list[Outcome] = []
    for chunk in (RECEIVED, *chunks):
        delivery.write(chunk)
    delivery.commit(outcomes.append)
    assert outcomes == [MESSAGE_ACCEPTED]
    return b"".join(store.parcel.chunks)


@pytest.mark.parametrize(
    ("message", "added"),
    [
        (b"Subject: x\r\n\r\ntext\r\n", DATE + MESSAGE_ID),
        (b"Date: x\r\nMessage-ID: <x@y>\r\n\r\ntext\r\n", b""),
        (b"Subject: x\r\nDATE : x\r\n\r\ntext\r\n", MESSAGE_ID),
        (b"message-id:<x@y>\r\n\r\ntext\r\n", DATE),
        # In a folded line, in another field's name and in the body it is no such field.
        (b"Subject: x\r\n Date: y\r\nResent-Date: x\r\n\r\nDate: z\r\n", DATE + MESSAGE_ID),
        # No header at all, no body, nothing.
        (b"\r\nDate: z\r\n", DATE + MESSAGE_ID),
        (b"Subject: x\r\n", DATE + MESSAGE_ID),
        (b"Date: x\r\n", MESSAGE_ID),
        (b"", DATE + MESSAGE_ID),
    ],
)
def test_what_is_missing_is_added_behind_received(message: bytes, added: bytes) -> None:
    assert delivered([message]) == RECEIVED + added + message
    assert delivered([message[at : at + 1] for at in range(len(message))]) == RECEIVED + added + message


PIECES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"Date:", b"x", b" ", b"\r\n\r\n"]), max_size=12)


@given(PIECES)
@example([b"\r", b"\n", b"Date:"])
def test_where_it_is_cut_makes_no_difference(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert delivered(pieces) == delivered([whole])
    assert delivered(pieces).endswith(whole)


@pytest.mark.parametrize(("size", "added"), [(HEADER_LIMIT - 4, DATE + MESSAGE_ID), (HEADER_LIMIT - 3, b"")])
def test_nothing_is_added_to_a_header_too_long_to_see(size: int, added: bytes) -> None:
    message = b"X: ".ljust(size, b"x") + b"\r\n\r\ntext\r\n"
    assert delivered([message]) == RECEIVED + added + message
    assert delivered([message[at : at + 1000] for at in range(0, len(message), 1000)]) == RECEIVED + added + message


def test_what_was_kept_is_bounded() -> None:
    store = Store()
    delivery = CompletingSink(store).begin(ENVELOPE, (), lambda: None)
    delivery.write(RECEIVED)
    for _ in range(HEADER_LIMIT // 1024):
        assert len(store.parcel.chunks) == 1
        delivery.write(b"x" * 1024)
    assert [len(chunk) for chunk in store.parcel.chunks[1:]] == [HEADER_LIMIT]
    delivery.write(b"more")
    assert store.parcel.chunks[-1] == b"more"


def test_a_break_is_passed_on() -> None:
    delivery = CompletingSink(Store(breaks_after=[2])).begin(ENVELOPE, (), lambda: None)
    assert delivery.write(RECEIVED)
    assert delivery.write(b"Subject: x\r\n")
    assert not delivery.write(b"\r\n")
    assert delivery.write(b"text")


def test_an_abort_is_passed_on() -> None:
    store = Store()
    delivery = CompletingSink(store).begin(ENVELOPE, (), lambda: None)
    delivery.write(RECEIVED)
    delivery.write(b"Subject: x\r\n")
    delivery.abort()
    assert store.parcel.is_aborted


def post(work: Callable[[], object]) -> object:
    return work()


def test_it_is_the_store_in_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = Reply(452, "4.3.1", "Full")
    store = Store(trouble=trouble)
    called: list[object] = []
    monkeypatch.setattr(store, "prepare", lambda: called.append("prepare"))
    monkeypatch.setattr(store, "start", called.append)
    monkeypatch.setattr(store, "stop", lambda: called.append("stop"))
    sink = CompletingSink(store)
    sink.prepare()
    sink.start(post)
    sink.stop()
    assert called == ["prepare", post, "stop"]
    assert sink.unhealthy() is trouble
    there = Destination("mail", "example.com", "alice", "", Address("alice", "example.com", "alice@example.com"))
    assert sink.locate(there) == "/var/mail/mail/alice"
