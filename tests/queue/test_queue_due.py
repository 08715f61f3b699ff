"""The index of what is due: who is next, and that nobody is forgotten."""

from __future__ import annotations

import random

import pytest

from smtpmaild.queue import AT_ONCE, Room, priority_of
from smtpmaild.queue.due import DueIndex

NOW = 100.0
PLENTY = Room(other=1000)


def served(due: DueIndex, counts: dict[tuple[str, str], int], now: float, limit: int, room: Room = PLENTY) -> list[str]:
    """Take lanes as a store does: what has more mail is noted again."""
    order = []
    for destination, flow in due.lanes(now, limit, room):
        order.append(f"{destination}/{flow}")
        counts[destination, flow] -= 1
        if counts[destination, flow]:
            due.note(destination, flow, now)
    return order


def test_destinations_take_turns_and_so_do_flows() -> None:
    counts = {("big", "news"): 1000, ("big", "friend"): 1, ("small", "x"): 2}
    due = DueIndex([(destination, flow, 0.5) for destination, flow in counts])

    order = served(due, counts, now=1.0, limit=6)

    assert order == ["big/friend", "small/x", "big/news", "small/x", "big/news", "big/news"]


def test_no_more_than_there_is_room() -> None:
    counts = {("dead", "x"): 10, ("busy", "x"): 10, ("new", "x"): 10}
    due = DueIndex([(destination, flow, 0.5) for destination, flow in counts])

    order = served(due, counts, 1.0, 100, Room({"dead": 0, "busy": 3}, other=2))

    assert sorted(order) == ["busy/x"] * 3 + ["new/x"] * 2
    assert sorted(served(due, counts, 1.0, 4, Room({"new": 0}))) == ["busy/x", "dead/x"]


def test_what_sleeps_wakes_when_it_is_due() -> None:
    due = DueIndex([("a", "x", 10.0)])
    assert list(due.lanes(9.9, 5, PLENTY)) == []
    assert list(due.lanes(10.0, 5, PLENTY)) == [("a", "x")]
    assert list(due.lanes(10.0, 5, PLENTY)) == []
    assert len(due) == 0


def test_earlier_mail_moves_a_lane_forward_and_later_mail_does_not_move_it_back() -> None:
    due = DueIndex([("a", "x", 10.0)])
    due.note("a", "x", 20.0)
    due.note("a", "x", 5.0)
    assert list(due.lanes(5.0, 5, PLENTY)) == [("a", "x")]
    due.note("a", "x", 10.0)
    assert list(due.lanes(9.0, 5, PLENTY)) == []
    assert list(due.lanes(10.0, 5, PLENTY)) == [("a", "x")]


def test_index_does_not_grow_with_the_mail_that_passes() -> None:
    due = DueIndex([("a", "x", 1000.0)])
    for now in range(1, 900):
        due.note("a", "x", float(now))
        assert list(due.lanes(float(now), 1, PLENTY)) == [("a", "x")]
        due.note("a", "x", 1000.0 + now)
        due.note("b", str(now), 5000.0)
        due.note("b", str(now), 4000.0)
    assert len(due._asleep) <= 3 * len(due) + 1001
    assert list(due.lanes(999.0, 1, PLENTY)) == [("a", "x")] or len(due) == 900


def test_nothing_is_forgotten_whatever_the_order() -> None:
    chance = random.Random(4)
    waiting: dict[tuple[str, str], list[float]] = {}
    due = DueIndex()
    taken = put = 0
    for now in range(2000):
        for _ in range(chance.randrange(3)):
            lane = (f"d{chance.randrange(5)}", f"f{chance.randrange(3)}")
            at = now + chance.choice([0, 0, 1, 7, 50])
            waiting.setdefault(lane, []).append(at)
            due.note(*lane, at)
            put += 1
        for lane in due.lanes(now, chance.randrange(4), Room({"d1": chance.randrange(2)}, 2)):
            assert min(waiting[lane]) <= now, "a lane came before its time"
            waiting[lane].remove(min(waiting[lane]))
            taken += 1
            if waiting[lane]:
                due.note(*lane, min(waiting[lane]))
    for lane in due.lanes(3000, 10_000, PLENTY):
        waiting[lane].remove(min(waiting[lane]))
        taken += 1
        if waiting[lane]:
            due.note(*lane, min(waiting[lane]))
    assert taken == put


def taken(index: DueIndex, times: int, limit: int = 1) -> list[str]:
    """The flows that come, one claim after the other, of lanes that always have more."""
    found = []
    for _ in range(times):
        for destination, flow in index.lanes(NOW, limit, Room(other=limit)):
            found.append(flow.partition("\t")[0])
            index.note(destination, flow, NOW)
    return found


def test_urgent_flows_come_first_and_others_are_not_forgotten() -> None:
    index = DueIndex([("y", "plain", NOW), ("y", "idle\t-2", NOW), ("y", "urgent\t5", NOW)])
    found = taken(index, 32)
    assert found[:3] == ["urgent"] * 3
    assert found.count("urgent") == 24
    assert min(found.count("plain"), found.count("idle")) >= 2


def test_urgent_mail_comes_before_that_of_other_destinations() -> None:
    lanes = [(f"d{number}", "plain", NOW) for number in range(50)]
    index = DueIndex([*lanes, ("last", "urgent\t1", NOW), ("later", "more\t9", NOW)])
    assert [flow for _, flow in index.lanes(NOW, 8, Room())][:3] == ["more\t9", "urgent\t1", "plain"]


def test_what_is_not_urgent_gets_its_part_of_small_claims() -> None:
    index = DueIndex([("y", "plain", NOW), ("z", "urgent\t1", NOW)])
    assert taken(index, 8).count("plain") == 2


def test_an_urgent_flow_without_room_waits() -> None:
    index = DueIndex([("y", "plain", NOW), ("z", "urgent\t1", NOW)])
    assert [flow for _, flow in index.lanes(NOW, 4, Room({"z": 0}))] == ["plain"]


def test_what_a_person_asks_for_is_tried_once_where_there_is_no_room() -> None:
    due = DueIndex([("dead", "x", AT_ONCE), ("dead", "y", AT_ONCE), ("other", "x", 0.5)])
    no_room = Room(other=0)
    assert len(list(due.lanes(1.0, 10, no_room))) == 1
    assert list(due.lanes(1.0, 10, no_room)) == []
    assert len(list(due.lanes(1.0, 10, PLENTY))) == 2
    busy = DueIndex([("busy", "x", AT_ONCE), ("busy", "y", AT_ONCE)])
    assert len(list(busy.lanes(1.0, 10, Room({"busy": 2})))) == 2  # no more than there is


@pytest.mark.parametrize(
    ("flow", "priority"), [("alice", 0), ("alice\t-9", -9), ("alice\t3", 3), ("odd\tlogin", 0), ("3", 0), ("\t10", 0)]
)
def test_flow_says_how_urgent_it_is(flow: str, priority: int) -> None:
    assert priority_of(flow) == priority
