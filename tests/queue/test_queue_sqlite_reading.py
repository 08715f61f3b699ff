"""What people see of a shard: against the reference, by every condition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queueing import NO, NOW, MemoryQueue, address, all_of, entry
from sqlite_queues import LEASE, PLENTY, make, shown

from smtpmaild.queue import Query, State, Usage
from smtpmaild.queue.sqlite import SqliteQueue


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    queue = make(tmp_path)
    yield queue
    queue.close()


def test_what_was_put_is_found_as_it_was(queue: SqliteQueue) -> None:
    entries = [
        entry("b@y.example", "c@y.example"),
        entry('"a b"@z.example', "postmaster@[192.0.2.1]", sender=""),
        entry("b@y.example", sender='"q\\"x"@x.example', user="alice"),
    ]
    utf8 = replace(entries[0][0], queue_id="U", is_utf8=True, reverse_path=address("ä@x.example"))
    tried = replace(entries[0][1][0], last=NO, remote="mx", attempts=3, attempted_at=5.0, accepted_as="all@x.example")
    entries.append((utf8, [tried]))
    queue.put(entries)

    assert shown(queue.find(Query())) == shown(entries)
    assert queue.usage() == Usage(4, sum(message.body.size for message, _ in entries))


def test_body_of_a_message_that_left_is_not_there(queue: SqliteQueue) -> None:
    queue.put([entry()])
    (found,) = queue.find(Query())
    (claim,) = queue.claim(NOW, LEASE, 10, PLENTY)
    queue.settle([all_of(claim, State.DELIVERED)])
    with pytest.raises(FileNotFoundError):
        found[0].body.open()


QUERIES = st.builds(
    Query,
    queue_ids=st.sampled_from([(), ("A",), ("A", "C")]),
    sender=st.sampled_from([None, "", "A@x.example"]),
    recipient=st.sampled_from(["", "B@y.example"]),
    domain=st.sampled_from(["", "Y.example", "z.example"]),
    states=st.sampled_from([(), (State.HELD,), (State.QUEUED, State.DEFERRED)]),
    received_before=st.sampled_from([0.0, NOW + 1]),
    limit=st.sampled_from([0, 1, 2]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=QUERIES)
def test_finds_as_the_reference(tmp_path: Path, query: Query) -> None:
    queue, model = make(tmp_path), MemoryQueue()
    mail = [
        entry("b@y.example", "c@z.example", queue_id="A", at=NOW),
        entry("b@y.example", sender="", queue_id="B", at=NOW + 1, state=State.HELD),
        entry("c@z.example", queue_id="C", at=NOW + 2, state=State.DEFERRED),
    ]
    if not queue.usage().messages:
        queue.put(mail)
    model.put(mail)
    assert shown(queue.find(query)) == shown(model.find(query))
    queue.close()


def test_domains_below_one_and_relays_are_found(tmp_path: Path) -> None:
    queue = make(tmp_path)
    queue.put([entry("a@y.example", "b@sub.y.example", "c@notmy.example", "d@YY.example", "e@y.example.com")])
    queue.put([entry("f@z.example", route="relay:smart"), entry("g@z.example", route="relay:mx/smart")])

    def found(query: Query) -> list[str]:
        return [one.address.local_part for _, each in queue.find(query) for one in each]

    assert found(Query(below="Y.example")) == ["a", "b"]
    assert found(Query(relay="smart")) == ["f", "g"]
    queue.close()
