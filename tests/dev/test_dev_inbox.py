from __future__ import annotations

import threading

from smtpmaild.dev.caught import Caught
from smtpmaild.dev.inbox import Bounds, Change, Inbox


def caught(number: int, octets: int = 10) -> Caught:
    return Caught(id=f"M{number}", sender="a@b.example", recipients=("c@d.example",), raw=b"x" * octets)


def ids(inbox: Inbox) -> list[str]:
    return [message.id for message in inbox.messages]


def test_oldest_makes_room_when_there_are_too_many() -> None:
    inbox = Inbox(Bounds(messages=2))
    for number in range(4):
        inbox.add(caught(number))
    assert ids(inbox) == ["M2", "M3"]
    assert inbox.dropped == 2


def test_oldest_make_room_for_a_large_one() -> None:
    inbox = Inbox(Bounds(octets=100))
    for number in range(5):
        inbox.add(caught(number, 20))
    inbox.add(caught(5, 50))
    assert ids(inbox) == ["M3", "M4", "M5"][-3:]
    assert sum(len(message.raw) for message in inbox.messages) <= 100


def test_what_is_deleted_gives_its_room_back() -> None:
    inbox = Inbox(Bounds(octets=40))
    inbox.add(caught(1, 20))
    inbox.add(caught(2, 20))
    assert inbox.delete("M1")
    assert not inbox.delete("M1")
    assert inbox.get("M1") is None
    inbox.add(caught(3, 20))
    assert ids(inbox) == ["M2", "M3"]
    inbox.clear()
    inbox.add(caught(4, 40))
    assert ids(inbox) == ["M4"]


def test_listeners_hear_each_change() -> None:
    inbox = Inbox(Bounds(messages=1))
    changes: list[Change] = []
    stop = inbox.listen(changes.append)
    inbox.add(caught(1))
    inbox.add(caught(2))
    inbox.delete("M2")
    inbox.clear()
    stop()
    inbox.add(caught(3))
    assert [(kind, message and message.id) for kind, message in changes] == [
        ("caught", "M1"),
        ("deleted", "M1"),
        ("caught", "M2"),
        ("deleted", "M2"),
        ("deleted", None),
    ]


def test_who_waits_is_woken_by_another_thread() -> None:
    inbox = Inbox()
    thread = threading.Thread(target=inbox.add, args=(caught(1),))
    waiting = threading.Timer(0.01, thread.start)
    waiting.start()
    assert inbox.wait(lambda messages: len(messages) == 1, 5)
    waiting.join()
    thread.join()


def test_who_waits_in_vain_is_told() -> None:
    assert not Inbox().wait(bool, 0.01)
