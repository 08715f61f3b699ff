"""All files of a queue at once, for people: to look, and to change by a word that is written down.

Works while the daemon runs and while it does not. SQLite lets several processes change its files; what a delivery is
at work on is left alone, and a running daemon sees a change within a second. Each change is a line of JSON in
`changes.log` beside the files: who, when, what, why.
"""

from __future__ import annotations

import heapq
import json
import os
import pwd
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from smtpmaild.facts import Log
from smtpmaild.queue import AT_ONCE, Entry, Query, Settlement, State, Usage, files
from smtpmaild.queue.depth import Depth
from smtpmaild.queue.sqlite import SqliteQueue
from smtpmaild.smtp.reply import Reply

CHANGES = "changes.log"
#: What `queue bounce` says where nobody said more.
BOUNCED_BY_HAND = "Returned to sender by the administrator"
_SOON = (State.QUEUED, State.DEFERRED)


@dataclass(frozen=True, slots=True)
class Change:
    """What a person can do to recipients that wait. states: of those it is for.  to: the settlement, at a time."""

    states: Sequence[State]
    to: Callable[[float, str], Settlement]


#: The next claim finds a 5yz among what was said before, bounces the recipient without a try, and tells the sender.
def _bounce(now: float, why: str) -> Settlement:
    reply = Reply(554, "5.7.0", why or BOUNCED_BY_HAND)
    return Settlement(0, State.DEFERRED, reply, at=now, next_attempt=now)


CHANGE_BY_VERB: Mapping[str, Change] = {
    "retry": Change(_SOON, lambda *_: Settlement(0, State.DEFERRED, next_attempt=AT_ONCE)),
    "hold": Change(_SOON, lambda *_: Settlement(0, State.HELD)),
    "release": Change((State.HELD,), lambda *_: Settlement(0, State.DEFERRED, next_attempt=AT_ONCE)),
    "drop": Change((*_SOON, State.HELD), lambda *_: Settlement(0, State.EXPIRED)),
    "bounce": Change((*_SOON, State.HELD), _bounce),
}


@dataclass(frozen=True, slots=True)
class Who:
    """Who wants something. name: of the account.  uid: -1 where there is none, as on the status page."""

    name: str
    uid: int = -1

    @classmethod
    def of_this_process(cls) -> Who:
        """The login behind sudo, else that of this process."""
        return cls(os.environ.get("SUDO_USER") or account_name(os.getuid()), os.getuid())


def account_name(uid: int) -> str:
    """What the machine calls it; the number where it has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class Shards:
    """The queue in a directory, as it is now."""

    def __init__(self, directory: str, log: Log) -> None:
        self._directory = directory
        self._log = log

    def _queues(self) -> list[SqliteQueue]:
        # With a number of its own none of them adopts another.
        return [
            SqliteQueue(self._directory, self._log, number, number + 1) for number, _ in files.shards(self._directory)
        ]

    def find(self, query: Query) -> Iterator[Entry]:
        """Messages with those of their recipients that the query asks for, oldest first."""
        found = heapq.merge(*(queue.find(query) for queue in self._queues()), key=lambda entry: entry[0].received_at)
        for count, entry in enumerate(found, 1):
            yield entry
            if count == query.limit:
                return

    def depths(self, query: Query) -> dict[str, Depth]:
        """By destination."""
        depths: dict[str, Depth] = {}
        for queue in self._queues():
            for name, depth in queue.depths(query).items():
                depths.setdefault(name, Depth()).add(depth)
        return depths

    def usage(self) -> Usage:
        """How much there is in all of them."""
        each = [queue.count() for queue in self._queues()]
        return Usage(sum(one.messages for one in each), sum(one.size for one in each))

    def change(self, verb: str, query: Query, why: str, now: float, who: Who | None = None) -> list[Entry]:
        """Carry out a verb of CHANGE_BY_VERB; what was changed, as it was. Raises OSError."""
        change = CHANGE_BY_VERB[verb]
        states = [state for state in change.states if state in query.states] if query.states else change.states
        if not states:
            return []
        asked = replace(query, states=states)
        changed: list[Entry] = []
        for queue in self._queues():
            queue.open()
            try:
                done = queue.change(asked, change.to(now, why))
            finally:
                queue.close()
            self._write_down(verb, why, done, who)
            changed += done
        return changed

    def put(self, entries: Sequence[Entry], why: str, who: Who | None = None) -> None:
        """Take messages in, into the file of the first worker."""
        queue = SqliteQueue(self._directory, self._log)
        queue.open()
        try:
            queue.put(entries)
        finally:
            queue.close()
        self._write_down("import", why, entries, who)

    def _write_down(self, verb: str, why: str, entries: Iterable[Entry], who: Who | None) -> None:
        who = who or Who.of_this_process()
        what = {"user": who.name, "uid": who.uid, "verb": verb, "why": why}
        at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
        lines = [
            json.dumps(
                {"at": at, **what, "queue_id": message.queue_id, "recipient": one.address.text, "was": one.state.value}
            )
            for message, recipients in entries
            for one in recipients
        ]
        if lines:
            descriptor = os.open(f"{self._directory}/{CHANGES}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(descriptor, "ab") as file:
                file.write("\n".join([*lines, ""]).encode())
