"""How many deliveries go to a destination at a time: it starts small, grows with success, shrinks with failure.

| what happened                      | window                                                                     |
|------------------------------------|----------------------------------------------------------------------------|
| nothing yet                        | START                                                                      |
| success, and never a failure       | one more                                                                   |
| success after failures             | one more for each windowful                                                |
| trouble of the destination         | half, at least one                                                         |
| trouble FATAL times in a row       | it is dead: no delivery until a pause is over, then a single probe         |
| the probe fails                    | dead for twice as long                                                     |
| the probe succeeds                 | START                                                                      |

A destination never takes more than its share of all deliveries, so that a slow one does not fill the house: the limit
of all, divided by the destinations that are at work. What waits for a dead destination stays in the queue untouched.

Pure bookkeeping: the time is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smtpmaild.queue import Room
from smtpmaild.smtp.reply import Reply

START = 2
FATAL = 3
FIRST_PAUSE = 60.0
LONGEST_PAUSE = 300.0
#: Since when somebody is dead who may be tried at once; not 0, for that is alive.
_LONG_AGO = 1.0
#: Destinations remembered, with what was learned of them.
_MOST_PACES = 10_000
#: Enhanced codes (RFC 3463) that are about the way there or the whole host: subjects 3, mail system, and 4, network.
_TROUBLES = ("4.3.", "4.4.")
#: The one reply code that closes the connection (RFC 5321 §3.8).
_CLOSING = 421


def is_trouble(replies: Iterable[Reply]) -> bool:
    """The destination could not be asked, or was not itself: nothing in the replies is about the mail."""
    return all(
        not reply.is_positive
        and not reply.is_permanent
        and (reply.code == _CLOSING or reply.enhanced.startswith(_TROUBLES))
        for reply in replies
    )


@dataclass(slots=True)
class _Pace:
    """What is known of one destination. troubles: in a row.  dead_until: 0 while it lives."""

    window: float = START
    in_flight: int = 0
    has_failed: bool = False
    troubles: int = 0
    dead_until: float = 0.0
    pause: float = 0.0


class Pacing:
    """The destinations of a runner. limit: of all deliveries at a time.  per_destination: of those to one."""

    def __init__(self, limit: int, per_destination: int) -> None:
        self.in_flight = 0
        self._limit = limit
        self._per_destination = per_destination
        self._paces: dict[str, _Pace] = {}
        self._at_work = 0  # destinations with something in flight

    @property
    def free(self) -> int:
        """How many more deliveries may begin."""
        return self._limit - self.in_flight

    def is_dead(self, destination: str) -> bool:
        """Its last deliveries failed before anything was said about the mail."""
        pace = self._paces.get(destination)
        return pace is not None and pace.dead_until > 0

    def destinations(self, most: int) -> dict[str, dict[str, float]]:
        """What is known of them, at most so many: the dead ones first, then those with most in flight.

        in_flight: deliveries.  window: how many there may be.  dead_until: when the next probe is due, in the clock of
        `now`; 0 while it lives.
        """
        known = sorted(self._paces.items(), key=lambda item: (-item[1].dead_until, -item[1].in_flight))
        return {
            name: {"in_flight": pace.in_flight, "window": int(pace.window), "dead_until": pace.dead_until}
            for name, pace in known[:most]
        }

    def revive(self, destination: str) -> None:
        """Somebody knows better: a dead one may be probed at once."""
        pace = self._paces.get(destination)
        if pace is not None and pace.dead_until:
            pace.dead_until = _LONG_AGO

    def room(self, now: float, received_before: float = 0.0) -> Room:
        """For the next claim."""
        share = max(1, self._limit // max(1, self._at_work))
        known = {destination: self._room_of(pace, now, share) for destination, pace in self._paces.items()}
        return Room(known, min(START, share, self._per_destination), received_before)

    def _room_of(self, pace: _Pace, now: float, share: int) -> int:
        if pace.dead_until:
            return int(now >= pace.dead_until and not pace.in_flight)
        return max(0, min(int(pace.window), share, self._per_destination) - pace.in_flight)

    def began(self, destination: str) -> None:
        """A delivery is under way."""
        pace = self._paces.setdefault(destination, _Pace())
        self._at_work += not pace.in_flight
        pace.in_flight += 1
        self.in_flight += 1

    def ended(self, destination: str, now: float, *, is_success: bool | None) -> None:
        """It came to an end. is_success: None where the destination was not asked."""
        pace = self._paces[destination]
        pace.in_flight -= 1
        self.in_flight -= 1
        self._at_work -= not pace.in_flight
        if is_success:
            self._succeeded(pace)
        elif is_success is not None:
            _failed(pace, now)
        is_plain = pace.window == START and not pace.dead_until and not pace.troubles
        if not pace.in_flight and (is_plain or len(self._paces) > _MOST_PACES):
            del self._paces[destination]

    def _succeeded(self, pace: _Pace) -> None:
        pace.troubles = 0
        if pace.dead_until:
            pace.window, pace.dead_until, pace.pause = START, 0.0, 0.0
            return
        step = 1 / pace.window if pace.has_failed else 1
        pace.window = min(pace.window + step, self._per_destination)


def _failed(pace: _Pace, now: float) -> None:
    pace.has_failed = True
    if pace.dead_until:
        if not pace.in_flight:  # else it began before we knew
            _pause(pace, now)
        return
    pace.window = max(1.0, pace.window / 2)
    pace.troubles += 1
    if pace.troubles >= FATAL:
        _pause(pace, now)


def _pause(pace: _Pace, now: float) -> None:
    pace.pause = min(2 * pace.pause or FIRST_PAUSE, LONGEST_PAUSE)
    pace.dead_until = now + pace.pause
