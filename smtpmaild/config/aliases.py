"""Where local names lead, as the checks see it: aliases, catch-alls and postmasters of all local domains.

The order of look-up is that of the section's description (domains.py). Routing compiles the same names once more for
speed; here every step is followed one by one, so that a mistake can be named with the key that makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from smtpmaild.config.domains import LocalDomain
from smtpmaild.config.mistakes import did_you_mean

POSTMASTER = "postmaster"


@dataclass(frozen=True, slots=True)
class Name:
    """An alias: its local part, and its domain as the config names it."""

    domain: str
    local_part: str

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}"


class End(Enum):
    """Where a target ends that is no alias."""

    MAILBOX = "a mailbox"
    CATCH_ALL = "nobody but the catch-all takes it"
    NOWHERE = "nobody takes it"
    NOT_LOCAL = "its domain is not local"


class LocalNames:
    """All local domains at once."""

    def __init__(self, domains: Mapping[str, LocalDomain]) -> None:
        self._domains = domains

    def domain_of(self, name: str) -> str | None:
        """The local domain, as the config names it, that a domain belongs to: itself, else the nearest wildcard."""
        if name in self._domains:
            return name
        labels = name.removeprefix("*.").split(".")
        wildcards = ("*." + ".".join(labels[start:]) for start in range(1, len(labels)))
        return next((wildcard for wildcard in wildcards if wildcard in self._domains), None)

    def follow(self, target: str, domain: str, alias: str | None = None) -> Name | End:
        """One step from a target in a domain; alias: the local part of the alias it belongs to."""
        local_part, _, named = target.rpartition("@")
        local_part = local_part or target
        home = self.domain_of(named) if "@" in target else domain
        if home is None:
            return End.NOT_LOCAL
        if local_part == alias and home == domain:
            return End.MAILBOX if self._has_mailbox(home, local_part) else End.NOWHERE
        return self._look_up(home, local_part)

    def _has_mailbox(self, domain: str, local_part: str) -> bool:
        mailboxes = self._domains[domain].mailboxes
        return mailboxes is None or local_part in mailboxes or local_part == POSTMASTER

    def _look_up(self, home: str, local_part: str) -> Name | End:
        domain = self._domains[home]
        base = local_part.partition(domain.subaddress)[0] if domain.subaddress else ""
        for name in (local_part, base) if base else (local_part,):
            if name in domain.aliases:
                return Name(home, name)
            if self._has_mailbox(home, name):
                return End.MAILBOX
        return End.CATCH_ALL if domain.catch_all is not None else End.NOWHERE

    def circle(self, start: Name) -> list[Name]:
        """The way from an alias back to itself; empty if there is none."""
        ways = {start: [start]}
        waiting = [start]
        while waiting:
            here = waiting.pop()
            for following in self._following(here):
                if following == start:
                    return [*ways[here], start]
                if following not in ways:
                    ways[following] = [*ways[here], following]
                    waiting.append(following)
        return []

    def _following(self, alias: Name) -> Iterator[Name]:
        for target in self._domains[alias.domain].aliases[alias.local_part]:
            following = self.follow(target, alias.domain, alias.local_part)
            if isinstance(following, Name):
                yield following

    def nearest(self, target: str, domain: str) -> str:
        """The hint for a target that leads nowhere."""
        local_part, at, named = target.rpartition("@")
        home = self.domain_of(named) if at else domain
        if home is None:
            return did_you_mean(target, (f"{local_part}@{name}" for name in self._domains))
        names = (*(self._domains[home].mailboxes or ()), *self._domains[home].aliases)
        return did_you_mean(target, (f"{name}@{named}" if at else name for name in names))
