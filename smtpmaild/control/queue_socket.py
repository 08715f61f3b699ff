"""The verbs of the queue through the control socket, for commands: what QueueFiles answers, asked of the daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from smtpmaild.control.client import Record, answer, ask

Filters = Mapping[str, Any]


class QueueSocket:
    """path: of the control socket. Everything raises ControlError."""

    def __init__(self, path: str) -> None:
        self._path = path

    def find(self, filters: Filters) -> Iterator[Record]:
        """See QueueFiles."""
        return self._rows("queue.list", filters)

    def show(self, queue_id: str) -> Record:
        """See QueueFiles."""
        return answer(self._path, "queue.show", {"id": queue_id})

    def stats(self, filters: Filters) -> list[Record]:
        """See QueueFiles."""
        return [*self._rows("queue.stats", filters)]

    def count(self, verb: str, filters: Filters) -> int:
        """See QueueFiles."""
        found: int = answer(self._path, "queue.count", {**filters, "verb": verb})["recipients"]
        return found

    def change(self, verb: str, filters: Filters, why: str) -> list[Record]:
        """See QueueFiles; who asks is what the kernel says."""
        return [*self._rows(f"queue.{verb}", {**filters, "why": why})]

    def export(self, queue_id: str) -> Iterator[bytes]:
        """See QueueFiles."""
        return (row["text"].encode("latin-1") for row in self._rows("queue.export", {"id": queue_id}))

    def put(self, record: bytes, path: str, why: str) -> str:
        """Take a message in: its record, and the file with its bytes; the queue id."""
        with open(path, "rb") as body:
            arguments = {
                "record": record.decode("utf-8", "replace"),
                "why": why,
                "size": os.fstat(body.fileno()).st_size,
            }
            queue_id: str = answer(self._path, "queue.import", arguments, body)["queue_id"]
            return queue_id

    def _rows(self, verb: str, arguments: Mapping[str, Any]) -> Iterator[Record]:
        return ask(self._path, verb, arguments)
