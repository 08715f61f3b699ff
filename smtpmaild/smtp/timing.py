"""What MAIL says of time and urgency: DELIVERBY (RFC 2852), FUTURERELEASE (RFC 4865), MT-PRIORITY (RFC 6710).

Pure functions of parameters whose syntax the EHLO table has checked, and of a time that is passed in, in seconds since
the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from smtpmaild.smtp.reply import Reply

#: The parameters of MAIL that are read here. Most mail has none of them.
WORDS = frozenset(("BY", "HOLDFOR", "HOLDUNTIL"))

# RFC 2852 §4: "In the case of a by-mode of "R", a zero or negative by-time is a syntax error": 501, 5.5.4.
BY_IS_OVER = Reply(501, "5.5.4", "With R the time of BY must be positive")
# RFC 4865 §4.2: 501 and 5.5.4 for more than one hold-param, and for times that are invalid or too far away.
HELD_TWICE = Reply(501, "5.5.4", "HOLDFOR and HOLDUNTIL exclude each other")
NO_SUCH_TIME = Reply(501, "5.5.4", "HOLDUNTIL is no time")
HOLD_IS_OVER = Reply(501, "5.5.4", "The time of HOLDUNTIL has passed")
HELD_BEYOND_BY = Reply(501, "5.5.4", "The message would be released when the time of BY has passed")


@dataclass(frozen=True, slots=True)
class DeliverBy:
    """BY=seconds;mode. seconds: from when the message came; none or negative: that was before it came.  is_returned:
    then it goes back (R), else its sender is told that it is late (N).  is_traced: who hands it on tells (T)."""

    seconds: int
    is_returned: bool
    is_traced: bool

    def passed_on(self, elapsed: float) -> str:
        """As the next hop is to be told (RFC 2852 §4.1.4): some of the time has gone. It has nine digits at most."""
        seconds = max(self.seconds - int(elapsed), -999_999_999)
        return f"{seconds};{'R' if self.is_returned else 'N'}{'T' if self.is_traced else ''}"


def deliver_by(parameters: Mapping[str, str]) -> DeliverBy | None:
    """None: the message may take its time."""
    value = parameters.get("BY")
    if value is None:
        return None
    seconds, _, mode = value.upper().partition(";")
    return DeliverBy(int(seconds), mode.startswith("R"), mode.endswith("T"))


def release_at(parameters: Mapping[str, str], received_at: float) -> float:
    """When a message that its sender has held back may go; 0.0 for one that has not. ValueError: no such time."""
    if "HOLDFOR" in parameters:
        return received_at + int(parameters["HOLDFOR"])
    until = parameters.get("HOLDUNTIL")
    if until is None:
        return 0.0
    # RFC 3339 §5.6: time-second may be 60, for a leap second; we take it for the second that follows 59.
    before, leap, after = until.upper().partition(":60")
    if not leap or ":" not in before:
        return datetime.fromisoformat(until.upper()).timestamp()
    return datetime.fromisoformat(f"{before}:59{after}").timestamp() + 1


def priority(parameters: Mapping[str, str]) -> int:
    """From -9 to 9; 0 for most."""
    return int(parameters.get("MT-PRIORITY", "0"))


def refusal(parameters: Mapping[str, str], now: float, *, least_by: int, longest_hold: int) -> Reply | None:
    """What is wrong with the times of a MAIL; None for nothing. In seconds, least_by: what DELIVERBY says in EHLO,
    longest_hold: what FUTURERELEASE says."""
    by = deliver_by(parameters)
    if by is not None and by.is_returned:
        if by.seconds <= 0:
            return BY_IS_OVER
        if by.seconds < least_by:
            # RFC 2852 §3: "will be rejected with a permanent failure (55z) reply code"; §4: 555 for what is valid and
            # cannot be honoured here.
            return Reply(555, "5.5.4", f"Nothing can be delivered within {by.seconds} seconds; try {least_by}")
    if "HOLDFOR" in parameters and "HOLDUNTIL" in parameters:
        return HELD_TWICE
    try:
        released = release_at(parameters, now)
    except (ValueError, OverflowError):
        return NO_SUCH_TIME
    if not released:
        return None
    if released < now:
        return HOLD_IS_OVER
    if released > now + longest_hold:
        return Reply(501, "5.5.4", f"No message is held for more than {longest_hold} seconds")
    # RFC 4865 §5.2.2: "the MSA MUST reject the MAIL command if it determines that the future message release time is
    # farther in the future than the deliver-by time", whatever the by-mode; §5.2.1 leaves no room for the same time.
    return HELD_BEYOND_BY if by is not None and now + by.seconds <= released else None


def date_text(seconds: float) -> str:
    """As FUTURERELEASE has it (RFC 3339)."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
