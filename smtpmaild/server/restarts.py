"""How long the supervisor waits before it replaces a process that died: hardly at first, longer while others die."""

from __future__ import annotations

#: Between a death and the successor: the first wait, doubled up to the last.
FIRST_DELAY = 0.1
LAST_DELAY = 30.0
#: Who lived so long had no trouble with the start.
GOOD_LIFE = 60.0


def next_delay(before: float, lived: float) -> float:
    """before: how long it was before the one that died, which lived so many seconds."""
    return FIRST_DELAY if lived >= GOOD_LIFE else min(max(2 * before, FIRST_DELAY), LAST_DELAY)
