"""What all agents of a process share."""

from __future__ import annotations

from dataclasses import dataclass

from smtpmaild.delivery.next_hop import NextHops
from smtpmaild.facts import Log


@dataclass(frozen=True, slots=True)
class Shared:
    """hostname: how we call ourselves, unless a target says otherwise."""

    hostname: str
    log: Log
    next_hops: NextHops
