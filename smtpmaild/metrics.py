"""Plain counters of one worker process, and no rendering: whoever shows them takes a snapshot.

Everything happens in the event loop's thread, so counting is `metrics.messages_accepted += 1` and nothing more. There
are three kinds, and each can be written as JSON, read back and added to another's. What is written is made of numbers,
lists and mappings only, so that the attendant adds up workers without knowing any of it (server/sums.py):

- a number;
- a `Histogram`: how many values came up to each bound;
- a `Tally`: a number for each of several things that have names. The names come from the configuration and from tables
  of ours, never from clients, and there are never more than `MOST_NAMES` of them.

All that is counted for a message costs 0.5 us (`python bench/counting.py`), of 220 us.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

#: A tally has no more; what comes then is counted as OTHER.
MOST_NAMES = 300
OTHER = "other"

SESSION_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
COMMIT_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DELIVERY_BOUNDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0)


class Histogram:
    """counts: of the values up to each of the bounds and above the one before; the last is for those above all.
    total: the sum of all values."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def snapshot(self) -> object:
        """As JSON has it."""
        return {"counts": [*self.counts], "total": self.total}

    def add(self, written: Any) -> None:
        """Add what another one's snapshot() said. One with other bounds, of another version, is left out."""
        if len(written["counts"]) == len(self.counts):
            self.counts = [mine + its for mine, its in zip(self.counts, written["counts"], strict=True)]
            self.total += written["total"]


class Tally:
    """names: of each thing that was counted, and how often."""

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names: dict[tuple[str, ...], int] = {}

    def count(self, *name: str) -> None:
        """One more of this name; its parts are what a reader tells apart."""
        try:
            self.names[name] += 1
        except KeyError:
            self._add(name, 1)

    def _add(self, name: tuple[str, ...], times: int) -> None:
        names = self.names
        if name not in names and len(names) >= MOST_NAMES:
            name = (OTHER,) * len(name)
        names[name] = names.get(name, 0) + times

    def snapshot(self) -> object:
        """As JSON has it: mappings in mappings, one for each part of the name."""
        whole: dict[str, Any] = {}
        for (*parts, last), number in self.names.items():
            inner = whole
            for part in parts:
                inner = inner.setdefault(part, {})
            inner[last] = number
        return whole

    def add(self, written: Any) -> None:
        """Add what another one's snapshot() said."""
        for name, number in _flat(written, ()):
            self._add(name, number)


def _flat(written: Mapping[str, Any], before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    for part, value in written.items():
        if isinstance(value, int):
            yield (*before, part), value
        else:
            yield from _flat(value, (*before, part))


@dataclass(slots=True)
class Metrics:
    """Counted since the process began; only sessions_open goes down again.

    sessions_refused: turned away at the door, by a limit or a policy.  sessions_timed_out: ended by a timeout.
    proxies_refused: connections without the PROXY header that is due, or from elsewhere; they are no sessions.
    messages_*: by the reply to the end of data: 2yz, 5yz, 4yz.  recipients_*: by the reply to RCPT.
    bytes_received: of messages, without dot-stuffing.  policy_errors: exceptions raised by policies and callbacks.
    tls_handshakes: finished ones; tls_handshakes_failed: all others, those of a client that went away among them.
    authentications_*: by the reply to the last line of AUTH; those that were given up are not counted.
    reports_made: DSNs put into the queue.

    session_seconds: from connect to the end, of each session.  commit_seconds: from the end of a message to its reply,
    where stores were asked.  delivery_seconds: the age of a message when one of its recipients was delivered.

    sessions_by_listener: (listener).  messages_by_listener: (listener, accepted | refused | deferred).
    refusals: what was answered 4yz or 5yz: (verb, code and enhanced code, rule that decided or "").
    monitored: what policies that are only monitored would have said: (policy, first digit of the reply as nyz).
    deliveries: recipients whose attempt ended, by (route, delivered | deferred | bounced | expired).
    """

    sessions_opened: int = 0
    sessions_open: int = 0
    sessions_refused: int = 0
    sessions_timed_out: int = 0
    proxies_refused: int = 0
    messages_accepted: int = 0
    messages_refused: int = 0
    messages_deferred: int = 0
    recipients_accepted: int = 0
    recipients_refused: int = 0
    recipients_deferred: int = 0
    bytes_received: int = 0
    policy_errors: int = 0
    tls_handshakes: int = 0
    tls_handshakes_failed: int = 0
    authentications_accepted: int = 0
    authentications_refused: int = 0
    reports_made: int = 0
    session_seconds: Histogram = field(default_factory=lambda: Histogram(SESSION_BOUNDS))
    commit_seconds: Histogram = field(default_factory=lambda: Histogram(COMMIT_BOUNDS))
    delivery_seconds: Histogram = field(default_factory=lambda: Histogram(DELIVERY_BOUNDS))
    sessions_by_listener: Tally = field(default_factory=Tally)
    messages_by_listener: Tally = field(default_factory=Tally)
    refusals: Tally = field(default_factory=Tally)
    monitored: Tally = field(default_factory=Tally)
    deliveries: Tally = field(default_factory=Tally)

    def snapshot(self) -> dict[str, Any]:
        """All of it by name, as it is now; nothing but what JSON has."""
        return {name: _written(getattr(self, name)) for name in _NAMES}

    def counters(self) -> dict[str, Any]:
        """Those that never go down: what they come to in several workers, ended ones included, is their sum."""
        counters = self.snapshot()
        del counters["sessions_open"]
        return counters

    def add(self, snapshot: Mapping[str, Any]) -> None:
        """Add another one's. What only one of the two versions knows is left out."""
        for name in _NAMES:
            if name in snapshot:
                mine = getattr(self, name)
                if isinstance(mine, int):
                    setattr(self, name, mine + snapshot[name])
                else:
                    mine.add(snapshot[name])


_NAMES = tuple(one.name for one in fields(Metrics))


def _written(value: int | Histogram | Tally) -> object:
    return value if isinstance(value, int) else value.snapshot()
