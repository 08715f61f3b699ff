"""What the tests of the queue in SQLite share: one in a directory, and what is to be seen in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from queueing import NOW
from receiving import RecordingLog

from smtpmaild.queue import Body, Entry, Query, QueueStore, Room, State
from smtpmaild.queue.body import BytesBody
from smtpmaild.queue.sqlite import SqliteQueue

PLENTY = Room(other=1000)
LEASE = NOW + 600


def make(path: Path, number: int = 0, workers: int = 1) -> SqliteQueue:
    queue = SqliteQueue(str(path), RecordingLog(), number, workers)
    queue.open()
    return queue


def read(body: Body) -> bytes:
    with body.open() as source:
        return source.read()


def shown(found: Any) -> list[tuple[object, ...]]:
    """Everything of entries but how their bodies are kept."""
    return [
        (replace(message, body=BytesBody(read(message.body))), message.parameters, list(recipients))
        for message, recipients in found
    ]


def states(queue: QueueStore) -> dict[str, State]:
    return {one.address.text: one.state for _, recipients in queue.find(Query()) for one in recipients}


def with_parameters(one: Entry, **parameters: str) -> Entry:
    named = {name.replace("_", "-"): value for name, value in parameters.items()}
    return replace(one[0], parameters=named), one[1]
