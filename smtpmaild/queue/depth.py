"""What waits for one destination, in numbers; those of several files of a queue are added up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from smtpmaild.queue import State


@dataclass(slots=True)
class Depth:
    """What waits for one destination.

    oldest: when it was received.  next_attempt: the earliest of what waits for one, inf for none.  attempted_at, last:
    when was tried last, and what was said.  last_to: about which recipient.  Times are seconds since the epoch.
    """

    messages: int = 0
    size: int = 0
    states: dict[State, int] = field(default_factory=dict)
    oldest: float = math.inf
    next_attempt: float = math.inf
    attempted_at: float = 0.0
    last: str = ""
    last_to: str = ""

    def add(self, other: Depth) -> None:
        """What waits in another file."""
        self.messages += other.messages
        self.size += other.size
        for state, count in other.states.items():
            self.states[state] = self.states.get(state, 0) + count
        self.oldest = min(self.oldest, other.oldest)
        self.next_attempt = min(self.next_attempt, other.next_attempt)
        if other.attempted_at >= self.attempted_at and other.last:
            self.attempted_at, self.last, self.last_to = other.attempted_at, other.last, other.last_to
