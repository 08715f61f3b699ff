"""When a message is tried again, when its sender is told that it takes long, and when we give up.

Pure functions of time: the clock and chance are passed in. RFC 5321 §4.5.4.1 wants at least 30 minutes between tries
in general, "however, more sophisticated and variable strategies will be beneficial", and 4-5 days before giving up.
"""

from __future__ import annotations

from dataclasses import dataclass

HOUR = 3600.0
DAY = 24 * HOUR
#: A delay is up to this part of it shorter or longer, so that what failed together does not come back together.
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """All in seconds.

    first: after the first failure; doubled for each further one up to `longest`.  max_age: when we give up.
    warn_after: when the sender is told that it takes long; 0 for never.
    """

    first: float = 300.0
    longest: float = 4 * HOUR
    max_age: float = 5 * DAY
    warn_after: float = 0.0

    def next_attempt(self, now: float, received_at: float, attempts: int, chance: float) -> float:
        """After a failure now. attempts: how many there were before it.  chance: from 0 to 1.

        The last attempt is at the very end: what waits for that has waited for something.
        """
        delay = self.longest
        if attempts < 32:  # beyond, 2.0 ** attempts is no number to multiply with
            delay = min(self.first * 2.0**attempts, self.longest)
        delay *= 1 - JITTER + 2 * JITTER * chance
        return min(now + delay, max(received_at + self.max_age, now + 1))

    def is_over(self, now: float, received_at: float) -> bool:
        """Too old to be tried again."""
        return now >= received_at + self.max_age

    def is_warning_due(self, now: float, received_at: float, attempted_at: float) -> bool:
        """This is the first attempt since it has become late. attempted_at: of the one before, 0 if there was none."""
        late_at = received_at + self.warn_after
        return self.warn_after > 0 and attempted_at < late_at <= now
