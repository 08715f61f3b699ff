"""Whose turn it is: so many handshakes at a time, one begun in each turn of the loop, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from smtpmaild.server.handshakes import Handshakes


class Turns:
    """A loop that turns when it is told to, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], object], asyncio.Handle]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[[], object]) -> asyncio.Handle:
        handle = asyncio.Handle(function, (), cast("Any", self))
        self.due.append((self.now + delay, function, handle))
        return handle

    def call_soon(self, function: Callable[[], object]) -> asyncio.Handle:
        return self.call_later(0.0, function)

    def get_debug(self) -> bool:
        return False

    def turn(self) -> None:
        due = [one for one in self.due if one[0] <= self.now]
        self.due = [one for one in self.due if one[0] > self.now]
        for _, function, handle in due:
            if not handle.cancelled():
                function()


class House:
    def __init__(self, limit: int) -> None:
        self.loop = Turns()
        self.handshakes = Handshakes(cast("asyncio.AbstractEventLoop", self.loop), limit)
        self.begun: list[str] = []

    def client(self, name: str) -> Client:
        client = Client(name, self.begun)
        self.handshakes.join(client)
        return client

    def turn(self, count: int = 1) -> list[str]:
        for _ in range(count):
            self.loop.turn()
        return self.begun


class Client:
    def __init__(self, name: str, begun: list[str]) -> None:
        self.name = name
        self._begun = begun

    def proceed(self) -> None:
        self._begun.append(self.name)


def test_one_begins_in_each_turn() -> None:
    house = House(limit=16)
    for name in "abc":
        house.client(name)
    assert house.begun == []  # not even the first: it is called from amidst a read
    assert house.turn() == ["a"]
    assert house.turn() == ["a", "b"]
    assert house.turn() == ["a", "b", "c"]
    assert house.loop.due == []


def test_further_ones_wait_until_one_is_finished() -> None:
    house = House(limit=2)
    clients = [house.client(name) for name in "abcd"]
    assert house.turn(5) == ["a", "b"]
    house.handshakes.leave(clients[1])
    assert house.turn(5) == ["a", "b", "c"]
    house.handshakes.leave(clients[0])
    house.handshakes.leave(clients[2])
    assert house.turn(5) == ["a", "b", "c", "d"]


def test_silent_ones_keep_nobody_out_for_long() -> None:
    house = House(limit=2)
    for name in "abcde":
        house.client(name)
    assert house.turn(5) == ["a", "b"]
    house.loop.now = 0.99
    assert house.turn(5) == ["a", "b"]
    house.loop.now = 1.0
    assert house.turn(5) == ["a", "b", "c", "d"]
    house.loop.now = 2.5
    assert house.turn(5) == ["a", "b", "c", "d", "e"]


def test_who_leaves_while_waiting_is_not_begun() -> None:
    house = House(limit=1)
    clients = [house.client(name) for name in "abc"]
    house.turn(3)
    house.handshakes.leave(clients[1])
    house.handshakes.leave(clients[1])
    house.handshakes.leave(clients[0])
    assert house.turn(3) == ["a", "c"]


def test_all_leave() -> None:
    house = House(limit=1)
    clients = [house.client(name) for name in "ab"]
    for client in clients:
        house.handshakes.leave(client)
    assert house.turn(3) == []
    house.client("c")
    assert house.turn() == ["c"]


def test_answers_go_before_beginnings() -> None:
    house = House(limit=2)
    clients = [house.client(name) for name in "abc"]
    assert house.turn(3) == ["a", "b"]
    house.handshakes.join(clients[1])
    house.handshakes.join(clients[0])
    assert house.turn() == ["a", "b", "b"]  # one in a turn, here too
    house.handshakes.leave(clients[1])
    assert house.turn() == ["a", "b", "b", "a"]
    assert house.turn() == ["a", "b", "b", "a", "c"]


def test_who_no_longer_counts_waits_again() -> None:
    house = House(limit=1)
    clients = [house.client(name) for name in "ab"]
    house.turn(3)
    house.loop.now = 1.0
    assert house.turn() == ["a", "b"]
    house.handshakes.join(clients[0])
    assert house.turn(3) == ["a", "b"]
    house.handshakes.leave(clients[1])
    assert house.turn() == ["a", "b", "a"]


def test_who_leaves_is_not_answered() -> None:
    house = House(limit=1)
    client = house.client("a")
    house.turn()
    house.handshakes.join(client)
    house.handshakes.leave(client)
    assert house.turn(3) == ["a"]
    assert house.loop.due == []
