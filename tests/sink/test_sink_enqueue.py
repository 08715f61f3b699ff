"""The queue as a store: what gets into it from an envelope, large bodies, and trouble."""

from __future__ import annotations

import errno
import os
import queue as queues
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from queueing import MemoryQueue
from stores import RecordingLog, make_envelope

from smtpmaild.envelope import Destination, Recipient, Route, Rule
from smtpmaild.queue import Query, QueuedRecipient, QueueStore
from smtpmaild.queue.body import SMALL, BytesBody, FileBody
from smtpmaild.queue.sqlite import SqliteQueue
from smtpmaild.queue.thread import QUEUE_FULL, Limits, QueueThread
from smtpmaild.sink import Outcome, disk
from smtpmaild.sink.enqueue import EnqueueSink, queue_entry
from smtpmaild.sink.writer import NO_MEMORY, NO_SPACE, STORE_FAILED, Writer
from smtpmaild.smtp.address import Address, parse_mailbox
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, RECIPIENT_OK


def address(text: str) -> Address:
    found = parse_mailbox(text)
    assert found is not None
    return found


def relayed(recipient: str, to: str = "", route: str = "relay:mx") -> Destination:
    target = address(to or recipient)
    return Destination("queue", target.domain, target.local_part, "", address(recipient), route)


class Store:
    """A started sink over a real queue; `deliver` plays the receiver and the loop."""

    def __init__(self, path: Path, messages: int = 0, queue: QueueStore | None = None) -> None:
        self.log = RecordingLog()
        self.queue = queue or SqliteQueue(str(path), self.log)
        self.thread = QueueThread(self.queue, Limits(str(path), messages=messages), self.log)
        self.writer = Writer(self.log)
        self.sink = EnqueueSink(str(path), self.thread, self.writer, self.log)
        self.posted: queues.SimpleQueue[Callable[[], object]] = queues.SimpleQueue()
        self.sink.prepare()
        self.sink.start(self.posted.put)
        self.drained = 0

    def deliver(
        self, *destinations: Destination, body: bytes = b"x", chunk: int = 65536, abort: bool = False
    ) -> Outcome:
        delivery = self.sink.begin(make_envelope(destinations), destinations, self._drained)
        for start in range(0, len(body), chunk):
            if not delivery.write(body[start : start + chunk]):
                before = self.drained
                while self.drained == before:
                    self.hear()
        if abort:
            delivery.abort()
            return MESSAGE_ACCEPTED
        outcomes: list[Outcome] = []
        delivery.commit(outcomes.append)
        while not outcomes:
            self.hear()
        return outcomes[0]

    def _drained(self) -> None:
        self.drained += 1

    def hear(self) -> None:
        self.posted.get(timeout=10)()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.sink.stop()


def test_envelope_is_queued_with_all_that_will_be_asked_of_it(store: Store) -> None:
    assert store.deliver(relayed("b@y.example"), body=b"Received: x\r\n\r\nHello\r\n") == MESSAGE_ACCEPTED

    ((message, (recipient,)),) = store.queue.find(Query())
    assert message.reverse_path.text == "a@x.test"
    assert (message.listener, message.peer, message.user) == ("mx", "192.0.2.1:4711", "")
    assert (recipient.address, recipient.route) == (address("b@y.example"), "relay:mx")
    assert recipient.parameters == {"NOTIFY": "NEVER"}
    assert recipient.next_attempt == message.received_at
    with message.body.open() as source:
        assert source.read() == b"Received: x\r\n\r\nHello\r\n"
    assert store.writer.held == 0


def entry_of(notify: str, places: int, release_at: float = 0.0) -> QueuedRecipient:
    destinations = tuple(relayed("all@x.test", to=f"b{number}@y.example") for number in range(places))
    envelope = make_envelope(destinations)
    envelope.release_at = release_at
    route = Route(Rule("r"), RECIPIENT_OK, destinations)
    envelope.recipients = [Recipient(address("all@x.test"), route, {"NOTIFY": notify, "ORCPT": "rfc822;all"})]
    _, recipients = queue_entry(envelope, destinations, BytesBody(b"x"))
    assert {one.next_attempt for one in recipients} == {recipients[0].next_attempt}
    return recipients[-1]


@pytest.mark.parametrize(
    ("notify", "places", "onward"),
    [
        ("SUCCESS,FAILURE", 1, "SUCCESS,FAILURE"),
        ("success,FAILURE", 2, "FAILURE"),
        ("SUCCESS", 2, "NEVER"),
        ("DELAY", 2, "DELAY"),
    ],
)
def test_of_success_behind_an_expanded_address_nobody_is_told(notify: str, places: int, onward: str) -> None:
    assert entry_of(notify, places).parameters == {"NOTIFY": onward, "ORCPT": "rfc822;all"}


def test_mail_that_is_held_back_is_due_when_it_is_released() -> None:
    assert entry_of("NEVER", 2, release_at=2e9).next_attempt == 2e9


def test_alias_leads_elsewhere_and_who_is_reached_twice_gets_it_once(store: Store) -> None:
    store.deliver(
        relayed("B@y.example"),
        relayed("all@x.test", to='"odd one"@z.example', route="relay:smarthost"),
        relayed("all@x.test", to="B@y.example"),
    )
    ((_, recipients),) = store.queue.find(Query())
    assert [(one.address.text, one.route) for one in recipients] == [
        ("B@y.example", "relay:mx"),
        ('"odd one"@z.example', "relay:smarthost"),
    ]


@pytest.mark.parametrize(
    ("named", "to", "accepted_as"),
    [
        ("b@y.example", "b@y.example", ""),
        ("all@x.test", "b@y.example", "all@x.test"),
        ("B@y.example", "b@y.example", "B@y.example"),
    ],
)
def test_the_address_that_was_accepted_is_kept(store: Store, named: str, to: str, accepted_as: str) -> None:
    store.deliver(relayed(named, to=to))
    ((_, (recipient,)),) = store.queue.find(Query())
    assert (recipient.address.text, recipient.accepted_as) == (to, accepted_as)


@pytest.mark.parametrize(
    ("named", "mailbox", "subaddress", "to"),
    [
        ("alice@here.example", "alice", "", "alice@here.example"),
        ("alice+lists@here.example", "alice", "lists", "alice+lists@here.example"),
        ("sales+lists@here.example", "alice", "lists", "alice@here.example"),
        ("Alice@here.example", "alice", "", "alice@here.example"),
    ],
)
def test_subaddress_stays_where_no_alias_led_elsewhere(
    store: Store, named: str, mailbox: str, subaddress: str, to: str
) -> None:
    store.deliver(Destination("queue", "here.example", mailbox, subaddress, address(named), "relay:lmtp"))
    ((_, (recipient,)),) = store.queue.find(Query())
    assert recipient.address.text == to


@pytest.mark.parametrize("size", [SMALL, SMALL + 1, 300_000, 5_000_000])
def test_any_size_comes_through(store: Store, tmp_path: Path, size: int) -> None:
    body = os.urandom(size)
    assert store.deliver(relayed("b@y.example"), body=body) == MESSAGE_ACCEPTED

    ((message, _),) = store.queue.find(Query())
    assert message.body.size == size
    assert isinstance(message.body, FileBody) == (size > SMALL)
    with message.body.open() as source:
        assert source.read() == body
    assert list((tmp_path / "bodies" / "tmp").iterdir()) == []
    assert store.writer.held == 0


@pytest.mark.parametrize("size", [10, 100_000, 2_000_000])
def test_abort_leaves_nothing(store: Store, tmp_path: Path, size: int) -> None:
    store.deliver(relayed("b@y.example"), body=b"x" * size, abort=True)
    store.sink.stop()
    assert [one for one in (tmp_path / "bodies").rglob("*") if one.is_file()] == []
    assert store.writer.held == 0
    store.sink.start(store.posted.put)
    assert list(store.queue.find(Query())) == []


@pytest.mark.parametrize(("number", "reply"), [(errno.ENOSPC, NO_SPACE), (errno.EIO, STORE_FAILED)])
@pytest.mark.parametrize("size", [10, 100_000])
def test_queue_in_trouble_keeps_nothing(tmp_path: Path, number: int, reply: object, size: int) -> None:
    store = Store(tmp_path, queue=MemoryQueue(fails=OSError(number, "trouble")))
    assert store.deliver(relayed("b@y.example"), body=b"x" * size) == reply
    assert store.sink.unhealthy() == (NO_SPACE if reply == NO_SPACE else None)
    store.sink.stop()
    assert [one for one in (tmp_path / "bodies").rglob("*") if one.is_file()] == []


def test_disk_in_trouble_gets_no_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "trouble")

    monkeypatch.setattr(disk, "fsync", fail)
    assert store.deliver(relayed("b@y.example"), body=b"x" * 100_000) == STORE_FAILED
    monkeypatch.undo()
    assert list(store.queue.find(Query())) == []


def test_full_queue_and_full_memory_are_unhealthy(tmp_path: Path) -> None:
    store = Store(tmp_path, messages=1)
    assert store.sink.unhealthy() is None
    store.writer.held = 1 << 40
    assert store.sink.unhealthy() == NO_MEMORY
    store.deliver(relayed("b@y.example"))
    store.thread._look()
    assert store.sink.unhealthy() == QUEUE_FULL
    store.sink.stop()


def test_where_it_goes_is_its_route(store: Store) -> None:
    assert store.sink.locate(relayed("b@y.example")) == "relay:mx"


def test_body_that_is_written_when_the_end_comes_still_gets_its_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    sync = disk.fsync

    def slow(fd: int) -> None:
        time.sleep(0.2)
        sync(fd)

    monkeypatch.setattr(disk, "fsync", slow)
    envelope = replace(make_envelope([relayed("b@y.example")]))
    delivery = store.sink.begin(envelope, [relayed("b@y.example")], store._drained)
    delivery.write(b"x" * 100_000)
    outcomes: list[Outcome] = []
    delivery.commit(outcomes.append)
    ending = threading.Thread(target=store.sink.stop)
    ending.start()
    while not outcomes:
        store.hear()
    ending.join(10)
    assert outcomes == [MESSAGE_ACCEPTED]
    store.sink.start(store.posted.put)
    assert len(list(store.queue.find(Query()))) == 1
