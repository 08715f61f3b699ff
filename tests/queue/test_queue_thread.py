"""The thread of the queue: groups, answers in the loop, failures that reach who asked."""

from __future__ import annotations

import errno
import queue as queues
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from queueing import NO, NOW, MemoryQueue, all_of, entry
from receiving import RecordingLog

from smtpmaild.queue import Claim, Entry, Room, Settlement, State, Usage, thread
from smtpmaild.queue.thread import NO_ROOM, QUEUE_FULL, Limits, QueueThread
from smtpmaild.smtp.reply import Reply

FULL = OSError(errno.ENOSPC, "full")


class Slow(MemoryQueue):
    """Waits at each settle until the test lets it go on, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.groups: list[tuple[int, int]] = []

    def settle(self, settled: Sequence[tuple[Claim, Sequence[Settlement]]], new: Sequence[Entry] = ()) -> None:
        self.begun.release()
        assert self.go.acquire(timeout=10)
        self.groups.append((len(settled), len(new)))
        super().settle(settled, new)


class House:
    """A thread over a reference queue; `hear()` plays the event loop."""

    def __init__(self, directory: str = "/", **limits: int) -> None:
        self.store = Slow()
        self.log = RecordingLog()
        self.now = 0.0
        self.posted: queues.SimpleQueue[Callable[[], object]] = queues.SimpleQueue()
        self.thread = QueueThread(self.store, Limits(directory, **limits), self.log, clock=lambda: self.now)
        self.thread.start(self.posted.put)
        self.answers: list[object] = []

    def put(self, one: Entry | None = None) -> None:
        self.thread.put(one or entry(), self.answers.append)

    def hear(self) -> None:
        self.posted.get(timeout=10)()

    def one_commit(self) -> None:
        """Let one transaction through."""
        self.store.go.release()

    def settled(self) -> None:
        self.one_commit()
        self.hear()

    def stop(self) -> None:
        for _ in range(10):
            self.store.go.release()
        self.thread.stop()


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.stop()


def trouble(house: House) -> Reply | None:
    return house.thread.trouble


def claim_all(house: House) -> list[Claim]:
    found: list[Claim] = []
    house.thread.claim(NOW, NOW + 600, 100, Room(other=100), found.extend)
    house.hear()
    return found


def test_what_waits_becomes_one_commit(house: House) -> None:
    house.put()
    assert house.store.begun.acquire(timeout=10)
    for _ in range(5):
        house.put()
    house.settled()
    assert house.answers == [None]
    house.settled()

    assert house.answers == [None] * 6
    assert house.store.groups == [(0, 1), (0, 5)]


def test_who_puts_in_does_not_wait_for_a_claim(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    may_claim = threading.Semaphore(0)

    def claim(*_: object) -> Sequence[Claim]:
        assert may_claim.acquire(timeout=10)
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(house.store, "claim", claim)
    claims: list[Claim] = []
    house.put()
    assert house.store.begun.acquire(timeout=10)
    house.put()
    house.thread.claim(NOW, NOW + 600, 100, Room(other=100), claims.extend)
    house.settled()
    house.settled()
    assert house.answers == [None, None]

    may_claim.release()
    house.put()
    house.settled()
    assert house.answers == [None, None, None]  # what was answered is not answered again
    assert [event for event, _ in house.log.facts] == ["queue_thread_failed"]


def test_settlements_and_puts_share_a_commit_and_reports_go_with_them(house: House) -> None:
    heard: list[str] = []
    house.thread.on_put(lambda: heard.append("put"))
    house.put(entry("b@y.example", "c@z.example"))
    house.settled()
    claims = claim_all(house)
    house.put()
    assert house.store.begun.acquire(timeout=10)
    assert house.store.begun.acquire(timeout=10)
    for claim in claims:
        settled = all_of(claim, State.BOUNCED, NO)
        house.thread.settle(*settled, [entry(sender="")], house.answers.append)
    house.put()
    house.settled()
    house.settled()

    assert house.store.groups[-1] == (2, 3)
    assert house.answers == [None] * 5
    assert len(house.store.held) == 4
    assert heard == ["put"] * 3


def test_failure_is_the_answer_to_each_of_the_group(house: House) -> None:
    house.store.fails = FULL
    house.put()
    house.settled()
    assert house.answers == [FULL]
    assert house.log.only("queue_failed")["verb"] == "put"


def test_settlements_are_tried_again_without_what_takes_room(house: House) -> None:
    house.put(entry(queue_id="A"))
    house.settled()
    (claim,) = claim_all(house)
    house.put()
    assert house.store.begun.acquire(timeout=10)
    assert house.store.begun.acquire(timeout=10)
    puts: list[object] = []
    house.thread.put(entry(), puts.append)
    house.thread.settle(*all_of(claim, State.DELIVERED), [], house.answers.append)
    house.settled()
    house.store.fails = FULL
    house.one_commit()
    house.settled()

    assert puts == [FULL]
    assert house.answers == [None, None, None]
    assert "A" not in house.store.held


def test_claim_that_fails_finds_nothing(house: House) -> None:
    house.store.fails = FULL
    assert claim_all(house) == []
    assert house.log.only("queue_failed")["verb"] == "claim"


def test_mistake_of_ours_acknowledges_nothing_and_the_thread_lives(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(house.store, "settle", broken)
    house.put()
    house.hear()
    assert isinstance(house.answers[0], OSError)
    assert "exc_info" in house.log.only("queue_thread_failed")
    monkeypatch.undo()
    house.put()
    house.settled()
    assert house.answers[1] is None


def test_answer_that_raises_is_not_the_trouble_of_the_next(house: House) -> None:
    house.thread.put(entry(), lambda _: 1 // 0)
    assert house.store.begun.acquire(timeout=10)
    house.put()
    house.settled()
    house.settled()
    assert house.answers == [None]
    assert "exc_info" in house.log.only("queue_answer_failed")


def test_full_queue_takes_nothing_until_there_is_room() -> None:
    house = House(messages=2)
    house.put()
    house.settled()
    assert trouble(house) is None
    house.now = 2.0
    house.put()
    house.settled()
    claims = claim_all(house)
    assert trouble(house) == QUEUE_FULL
    house.now = 4.0
    house.thread.settle(*all_of(claims[0], State.DELIVERED), [], house.answers.append)
    house.settled()
    house.thread.stop_claiming(house.answers.append)
    house.hear()
    assert trouble(house) is None
    assert [house.log.named(name)[0]["messages"] for name in ("queue_takes_no_mail", "queue_takes_mail_again")] == [
        2,
        1,
    ]
    house.stop()


def test_large_queue_is_full_too() -> None:
    house = House(size=10)
    house.put()
    house.one_commit()
    house.hear()
    house.now = 2.0
    claim_all(house)
    claim_all(house)
    assert house.thread.trouble == QUEUE_FULL
    house.stop()


def test_disk_is_left_some_room(tmp_path: Path) -> None:
    house = House(str(tmp_path), free=1 << 60)
    assert house.thread.trouble == NO_ROOM
    house.stop()
    assert House(str(tmp_path), free=1).thread.trouble is None
    assert House(str(tmp_path / "gone"), free=1).thread.trouble == NO_ROOM


def test_stop_finishes_what_was_handed_over() -> None:
    house = House()
    house.put()
    assert house.store.begun.acquire(timeout=10)
    house.put()
    house.stop()
    house.hear()
    house.hear()
    assert house.answers == [None, None]
    assert len(house.store.held) == 2


def test_thread_lives_until_its_last_user_stops_it(house: House) -> None:
    house.thread.start(house.posted.put)
    house.thread.stop()
    house.put()
    house.settled()
    assert house.answers == [None]


def test_loop_that_is_closed_hears_nothing() -> None:
    house = House()

    def closed(_: object) -> None:
        raise RuntimeError("Event loop is closed")

    house.thread._post = closed
    house.put()
    house.stop()
    assert len(house.store.held) == 1


def test_thread_that_was_not_started_says_so() -> None:
    thread = QueueThread(MemoryQueue(), Limits("/"), RecordingLog())
    with pytest.raises(RuntimeError, match="not started"):
        thread._post(lambda: None)


def test_reports_are_made_in_the_thread_and_taken_in(house: House) -> None:
    made: list[str] = []

    def make() -> Sequence[Entry]:
        made.append(threading.current_thread().name)
        return [entry("a@x.example", sender="")]

    house.thread.tell(make, house.answers.append)
    house.settled()
    assert (made, house.answers, len(house.store.held)) == (["queue"], [None], 1)
    house.thread.tell(list, house.answers.append)
    house.hear()
    assert house.answers == [None, None]


def test_reports_that_the_disk_refuses_are_tried_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "LOOK_SECONDS", 0.01)
    house.store.fails = FULL
    house.thread.tell(lambda: [entry("a@x.example", sender="")], house.answers.append)
    house.settled()
    assert house.answers == [FULL]
    house.one_commit()  # nobody asked for anything meanwhile
    while not house.store.held:
        time.sleep(0.005)
    assert house.log.only("report_failed")["cause"] == "[Errno 28] full"


def test_report_that_is_a_mistake_of_ours_is_logged_once(house: House) -> None:
    def make() -> Sequence[Entry]:
        raise RuntimeError("broken")

    house.thread.tell(make, house.answers.append)
    house.hear()
    assert house.answers == [None]
    assert str(house.log.only("report_failed")["exc_info"]) == "broken"


def test_others_that_cannot_be_counted_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: MemoryQueue) -> Usage:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(MemoryQueue, "whole_usage", broken)
    house = House(messages=1)
    assert trouble(house) is None
    house.put()
    house.settled()
    house.now = 2.0
    claim_all(house)
    claim_all(house)
    assert trouble(house) == QUEUE_FULL
    house.stop()
