"""What changes rows: settlements with and without a lease, reports beside them, a person's word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from queueing import LATER, NO, NOW, all_of, entry
from sqlite_queues import LEASE, PLENTY, make, states

from smtpmaild.queue import Query, Settlement, State, Usage
from smtpmaild.queue.sqlite import SqliteQueue


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    queue = make(tmp_path)
    yield queue
    queue.close()


def test_message_is_gone_with_its_last_recipient(queue: SqliteQueue) -> None:
    queue.put([entry("b@y.example", "c@z.example")])
    one, other = queue.claim(NOW, LEASE, 10, PLENTY)

    queue.settle([all_of(one, State.DELIVERED)])
    assert set(states(queue).values()) == {State.DELIVERED, State.IN_DELIVERY}
    queue.settle([all_of(other, State.BOUNCED, NO)])

    assert list(queue.find(Query())) == []
    assert queue.usage() == Usage(0, 0)


def test_lease_is_renewed_by_settling_as_in_delivery(queue: SqliteQueue) -> None:
    queue.put([entry()])
    (claim,) = queue.claim(NOW, LEASE, 10, PLENTY)
    queue.settle([(claim, [Settlement(0, State.IN_DELIVERY, next_attempt=LEASE + 600)])])

    assert queue.claim(LEASE + 1, LEASE + 700, 10, PLENTY) == []
    queue.settle([all_of(replace(claim, lease_until=LEASE + 600), State.DEFERRED, LATER)])
    assert states(queue) == {"b@y.example": State.DEFERRED}


def test_who_lost_the_lease_cannot_defer_but_an_end_counts(queue: SqliteQueue) -> None:
    queue.put([entry()])
    (late,) = queue.claim(NOW, LEASE, 10, PLENTY)
    (current,) = queue.claim(LEASE, LEASE + 600, 10, PLENTY)

    queue.settle([all_of(late, State.DEFERRED, LATER)])
    assert states(queue) == {"b@y.example": State.IN_DELIVERY}
    queue.settle([all_of(late, State.DELIVERED)])
    queue.settle([all_of(current, State.DEFERRED, LATER)])
    assert states(queue) == {}


def test_reports_are_put_with_the_settlement_or_not_at_all(queue: SqliteQueue) -> None:
    queue.put([entry(queue_id="A"), entry("c@z.example", queue_id="C", state=State.HELD)])
    (claim,) = queue.claim(NOW, LEASE, 10, PLENTY)
    report = entry("a@x.example", sender="", queue_id="B")
    taken = entry(queue_id="C")  # a row of that id is there

    with pytest.raises(OSError, match="UNIQUE"):
        queue.settle([all_of(claim, State.BOUNCED, NO)], [report, taken])
    assert states(queue) == {"b@y.example": State.IN_DELIVERY, "c@z.example": State.HELD}

    queue.settle([all_of(claim, State.BOUNCED, NO)], [report])
    assert states(queue) == {"a@x.example": State.QUEUED, "c@z.example": State.HELD}
    (of_report,) = queue.claim(NOW, LEASE, 10, PLENTY)
    assert of_report.message.reverse_path.is_null


def test_a_persons_word_leaves_alone_what_is_in_delivery(queue: SqliteQueue) -> None:
    queue.put([entry("b@y.example", at=NOW), entry("c@z.example", at=NOW + 100)])
    (claim,) = queue.claim(NOW, LEASE, 10, PLENTY)

    changed = queue.change(Query(), Settlement(0, State.HELD))
    assert [one.address.text for _, recipients in changed for one in recipients] == ["c@z.example"]
    assert queue.claim(NOW + 200, LEASE, 10, PLENTY) == []
    queue.change(Query(states=[State.HELD]), Settlement(0, State.DEFERRED, next_attempt=NOW))
    (released,) = queue.claim(NOW + 200, LEASE, 10, PLENTY)
    assert released.recipients[0].attempts == 0
    queue.settle([all_of(claim, State.DEFERRED, LATER), all_of(released, State.DEFERRED, LATER)])
    dropped = queue.change(Query(domain="Z.example"), Settlement(0, State.EXPIRED))
    assert len(dropped) == 1
    assert states(queue) == {"b@y.example": State.DEFERRED}
    assert queue.usage().messages == 1
