"""What the tests of the desk share: a house with workers that were never forked, and a desk in front of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from queueing import NOW, address, entry
from receiving import RecordingLog

from smtpmaild.control.desk import Desk, Door, Premises, Store
from smtpmaild.control.queue_files import QueueFiles
from smtpmaild.queue import Entry
from smtpmaild.queue.sqlite import SqliteQueue
from smtpmaild.server.house import House, Post, Reload, State, reload_news, state_news
from smtpmaild.server.pulse import Pulse
from smtpmaild.server.sums import Ledger, Sums

Orders = list[Mapping[str, Any]]


def post(worker: int = 1, **changed: Any) -> Post:
    known = {"pid": 100 + worker, "number": worker - 1, "is_ready": True, "is_retiring": False, "started_at": NOW}
    return Post(worker, **{**known, **changed})


class Staged:
    """A house whose supervisor is the test: `obey` says what comes of an order."""

    def __init__(self, obey: Callable[[Staged, Mapping[str, Any]], None] = lambda *_: None) -> None:
        self.orders: Orders = []
        self._obey = obey
        self.house = House(self._send, Sums(Ledger(page_size=10_000)))
        self.state(post(1), post(2))

    def _send(self, order: Mapping[str, Any]) -> None:
        self.orders.append(order)
        self._obey(self, order)

    def state(self, *posts: Post, **changed: Any) -> None:
        known: dict[str, Any] = {"pid": 1, "started_at": NOW, "wanted": 2}
        self.house.hear_news(state_news(State(**{**known, **changed}, posts=posts)))

    def reloaded(self, reload: Reload) -> None:
        self.house.hear_news(reload_news(reload))

    def pulse(self, worker: int, at: float = NOW, **known: Any) -> None:
        self.house.hear_pulse(Pulse(worker, 100 + worker, NOW, at, **known).to_bytes())
        self.house.save()


def queue_in(directory: Path, *entries: Entry) -> QueueFiles:
    """A queue with this mail in it, as nobody serves it."""
    store = SqliteQueue(str(directory), RecordingLog())
    store.open()
    store.put(entries or [entry("b@y.example", queue_id="000000000000000AAA"), entry("c@z.example")])
    store.close()
    return QueueFiles(str(directory), RecordingLog(), address, lambda _: "relay:mx", lambda: NOW + 60)


def desk_for(staged: Staged, queue: QueueFiles | None = None, log: RecordingLog | None = None, **changed: Any) -> Desk:
    stores: Sequence[Store] = changed.pop("stores", ())
    doors = [Door("mx", ["127.0.0.1:25"], "smtp", "none", "none")]
    premises = Premises("mx.example", doors, stores, changed.pop("certificates", lambda: ()))
    return Desk(staged.house, premises, queue, log or RecordingLog(), lambda: NOW + 1)


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]
