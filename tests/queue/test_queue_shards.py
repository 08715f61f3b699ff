"""All files at once: finding in order, changes with who and why, while others are at work."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from queueing import LATER, NOW, all_of, entry
from receiving import RecordingLog

from smtpmaild.queue import Entry, Query, Room, State
from smtpmaild.queue.shards import BOUNCED_BY_HAND, CHANGES, Shards, Who
from smtpmaild.queue.sqlite import SqliteQueue
from smtpmaild.queue.sqlite_changes import RETURNED

PLENTY = Room(other=1000)


@pytest.fixture
def queues(tmp_path: Path) -> Iterator[list[SqliteQueue]]:
    queues = [SqliteQueue(str(tmp_path), RecordingLog(), number, 2) for number in range(2)]
    for number, queue in enumerate(queues):
        queue.open()
        queue.put([entry(at=NOW + 2 * step + number, queue_id=f"{number}{step}") for step in range(3)])
    yield queues
    for queue in queues:
        queue.close()


@pytest.fixture
def shards(queues: list[SqliteQueue], tmp_path: Path) -> Shards:
    return Shards(str(tmp_path), RecordingLog())


def ids(entries: object) -> list[str]:
    assert isinstance(entries, Iterator | list)
    return [message.queue_id for message, _ in entries]


def states(shards: Shards) -> dict[str, str]:
    return {message.queue_id: one.state.value for message, (one,) in shards.find(Query())}


def test_oldest_first_whoever_has_it(shards: Shards) -> None:
    assert ids(shards.find(Query())) == ["00", "10", "01", "11", "02", "12"]
    assert ids(shards.find(Query(limit=3))) == ["00", "10", "01"]
    assert ids(shards.find(Query(queue_ids=["11", "02"]))) == ["11", "02"]


def test_there_may_be_no_queue_yet(tmp_path: Path) -> None:
    shards = Shards(str(tmp_path / "none"), RecordingLog())
    assert list(shards.find(Query())) == []
    assert shards.change("hold", Query(), "", NOW) == []
    assert shards.depths(Query()) == {}


def test_each_change_is_for_its_states_and_written_down(
    shards: Shards, queues: list[SqliteQueue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    assert len(queues[0].claim(NOW, NOW + 600, 1, PLENTY)) == 1

    held = shards.change("hold", Query(queue_ids=["00", "01", "10"]), "a virus", NOW)
    assert ids(held) == ["01", "10"], "what is in delivery is left alone"
    assert states(shards)["01"] == "held"
    assert shards.change("retry", Query(queue_ids=["01"]), "", NOW) == []
    assert shards.change("release", Query(states=[State.DEFERRED]), "", NOW) == []
    assert ids(shards.change("release", Query(queue_ids=["01"]), "", NOW)) == ["01"]
    assert ids(shards.change("drop", Query(queue_ids=["10"]), "", NOW)) == ["10"]
    assert "10" not in states(shards)
    lines = [json.loads(line) for line in (tmp_path / CHANGES).read_text().splitlines()]
    assert [(line["verb"], line["queue_id"], line["was"], line["why"]) for line in lines] == [
        ("hold", "01", "queued", "a virus"),
        ("hold", "10", "queued", "a virus"),
        ("release", "01", "held", ""),
        ("drop", "10", "held", ""),
    ]
    assert {line["user"] for line in lines} == {"alice"}


def test_retry_is_now(shards: Shards, queues: list[SqliteQueue]) -> None:
    (claim,) = queues[1].claim(NOW + 1, NOW + 600, 1, PLENTY)
    queues[1].settle([all_of(claim, State.DEFERRED, LATER, NOW + 10_000)])
    assert queues[1].claim(NOW + 1, NOW + 600, 9, PLENTY) == []
    shards.change("retry", Query(queue_ids=["10"]), "", NOW)
    assert ids([(one.message, ()) for one in queues[1].claim(NOW + 1, NOW + 600, 9, PLENTY)]) == ["10"]


def test_retry_probes_a_destination_that_counts_as_dead(shards: Shards, queues: list[SqliteQueue]) -> None:
    dead = Room(other=0)
    assert queues[1].claim(NOW + 100, NOW + 600, 9, dead) == []
    shards.change("retry", Query(), "", NOW)
    (claim,) = queues[1].claim(NOW + 100, NOW + 600, 9, dead)
    queues[1].settle([all_of(claim, State.DEFERRED, LATER, NOW + 10_000)])
    assert queues[1].claim(NOW + 100, NOW + 600, 9, dead) == []  # one probe; the others wait for what it tells


def test_what_is_returned_does_not_wait_for_its_destination(shards: Shards, queues: list[SqliteQueue]) -> None:
    shards.change("bounce", Query(queue_ids=["00"]), "", NOW)
    (claim,) = queues[0].claim(NOW + 100, NOW + 600, 9, Room({"mx:y.example": 0}))
    assert claim.destination == RETURNED
    assert str(claim.recipients[0].last) == f"554 5.7.0 {BOUNCED_BY_HAND}"
    queues[0].settle([all_of(claim, State.BOUNCED, None)])
    assert "00" not in states(shards)


def test_put_goes_to_the_first_worker(shards: Shards, queues: list[SqliteQueue]) -> None:
    new: Entry = entry(queue_id="N")
    shards.put([new], "moved")
    assert queues[0].claim(NOW, NOW + 600, 99, PLENTY)
    assert "N" in ids(shards.find(Query()))


def test_depths_are_by_destination(shards: Shards, queues: list[SqliteQueue]) -> None:
    queues[0].put([entry("b@y.example", "c@y.example", "d@z.example", at=NOW - 5)])
    (first, *_) = queues[0].claim(NOW - 5, NOW + 600, 1, PLENTY)
    queues[0].settle([all_of(first, State.DEFERRED, LATER, NOW)])
    depths = shards.depths(Query())
    assert set(depths) == {"mx:y.example", "mx:z.example"}
    assert depths["mx:y.example"].messages == 7
    assert depths["mx:y.example"].oldest == NOW - 5
    assert sum(depths["mx:y.example"].states.values()) == 8
    assert {(depth.last, depth.last_to) for depth in depths.values()} == {("", ""), (str(LATER), "b@y.example")}


def test_who_asks_without_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert Who.of_this_process().name
    monkeypatch.setattr(os, "getuid", lambda: 999_999)
    assert Who.of_this_process().name == "999999"
