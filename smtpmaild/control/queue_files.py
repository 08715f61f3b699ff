"""The verbs of the queue, on its files: what is asked comes as filters, what is answered goes as records for JSON.

Everything blocks. Works beside a running daemon and without one (queue/shards.py); each change is told to the log and
written to changes.log, with who wanted it and why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from smtpmaild.facts import Log
from smtpmaild.queue import Body, Entry, Query, QueuedMessage, QueuedRecipient, State, Usage
from smtpmaild.queue.records import from_record, to_record
from smtpmaild.queue.shards import CHANGE_BY_VERB, Shards, Who
from smtpmaild.smtp.address import Address

#: Which recipients: the fields of a Query by name, `states` by their words; what is left out asks nothing.
Filters = Mapping[str, Any]
Record = dict[str, Any]

#: How much of a message `show` shows.
_MOST_HEADER = 64 * 1024
_COPY_AT_ONCE = 64 * 1024


class NoMessageError(Exception):
    """There is no such message."""


def to_query(filters: Filters) -> Query:
    """Raises ValueError for what is no filter."""
    states = filters.get("states", ())
    try:
        chosen = [State(state) for state in states]
    except ValueError:
        raise ValueError(f"states are {', '.join(state.value for state in State)}") from None
    return Query(
        queue_ids=filters.get("ids", ()),
        sender=filters.get("sender"),
        recipient=filters.get("recipient", ""),
        domain=filters.get("domain", ""),
        states=chosen,
        received_before=filters.get("received_before", 0.0),
        limit=filters.get("limit", 0),
    )


class QueueFiles:
    """The queue in a directory.

    parse, route: of what is put in by hand: a mailbox, and who takes it on.
    """

    def __init__(
        self,
        directory: str,
        log: Log,
        parse: Callable[[str], Address | None] = lambda _: None,
        route: Callable[[Address], str] = lambda _: "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._shards = Shards(directory, log)
        self._log = log
        self._parse = parse
        self._route = route
        self._clock = clock

    def find(self, filters: Filters) -> Iterator[Record]:
        """A record for each message, the oldest first."""
        return (to_record(*entry) for entry in self._shards.find(to_query(filters)))

    def show(self, queue_id: str) -> Record:
        """One message with its header; raises NoMessageError."""
        message, recipients = self._entry(queue_id)
        with message.body.open() as source:
            head = source.read(_MOST_HEADER)
        header = head.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"\n").decode("utf-8", "replace")
        return {**to_record(message, recipients), "header": header}

    def stats(self, filters: Filters) -> list[Record]:
        """What waits for each destination, the deepest first."""
        depths = self._shards.depths(to_query(filters))
        return [
            {
                "destination": name,
                **asdict(depth),
                "states": {state.value: count for state, count in depth.states.items()},
                "next_attempt": depth.next_attempt if depth.next_attempt < math.inf else None,
            }
            for name, depth in sorted(depths.items(), key=lambda item: -item[1].messages)
        ]

    def usage(self) -> Usage:
        """How much there is."""
        return self._shards.usage()

    def count(self, verb: str, filters: Filters) -> int:
        """How many recipients a change would change."""
        query, change = to_query(filters), CHANGE_BY_VERB[verb]
        states = [state for state in change.states if not query.states or state in query.states]
        if not states:  # which would mean: in any state
            return 0
        return sum(len(recipients) for _, recipients in self._shards.find(replace(query, states=states)))

    def change(self, verb: str, filters: Filters, who: Who, why: str) -> list[Record]:
        """Carry out retry, hold, release, drop or bounce; a record for each recipient that was changed."""
        changed = self._shards.change(verb, to_query(filters), why, self._clock(), who)
        records = [_changed(message, one) for message, recipients in changed for one in recipients]
        for record in records:
            self._log.info("queue_changed", verb=verb, **record, user=who.name, why=why)
        return records

    def export(self, queue_id: str) -> Iterator[bytes]:
        """The message in pieces; raises NoMessageError."""
        message, _ = self._entry(queue_id)
        with message.body.open() as source:
            while block := source.read(_COPY_AT_ONCE):
                yield block

    def put(self, record: bytes, body: Body, who: Who, why: str) -> str:
        """Take a message in: its record and its bytes; the queue id. Raises RecordError, OSError."""
        entry = from_record(record, body, self._clock(), self._parse, self._route)
        self._shards.put([entry], why, who)
        message, recipients = entry
        for one in recipients:
            self._log.info("queue_changed", verb="import", **_changed(message, one), user=who.name, why=why)
        return message.queue_id

    def _entry(self, queue_id: str) -> Entry:
        found = next(iter(self._shards.find(Query(queue_ids=[queue_id]))), None)
        if found is None:
            raise NoMessageError(f"there is no message {queue_id} in the queue")
        return found


def _changed(message: QueuedMessage, one: QueuedRecipient) -> Record:
    return {
        "queue_id": message.queue_id,
        "sender": message.reverse_path.text,
        "recipient": one.address.text,
        "was": one.state.value,
    }
