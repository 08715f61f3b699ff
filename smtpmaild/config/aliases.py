"""Where local names lead, as the checks see it: aliases, catch-alls and postmasters of all local domains.

The order of look-up is that of the section's description (domains.py). Routing compiles the same names once more for
speed; here every step is followed one by one, so that a mistake can be named with the key that makes it. A test holds
the two together.
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
    """An alias: its local part, and its domain as the config names it. local_part "": the catch-all of the domain."""

    domain: str
    local_part: str

    @property
    def is_catch_all(self) -> bool:
        return not self.local_part

    def __str__(self) -> str:
        return f"catch-all of {self.domain}" if self.is_catch_all else f"{self.local_part}@{self.domain}"


class End(Enum):
    """Where a target ends that leads to no other name."""

    MAILBOX = "a mailbox"
    NOWHERE = "nobody takes it"
    NOT_LOCAL = "its domain is not local"
    RELAYED = "its domain is not local, and the mail travels on"


class LocalNames:
    """All local domains at once."""

    def __init__(self, domains: Mapping[str, LocalDomain], postmaster: str | None) -> None:
        self._domains = domains
        self._targets = dict(_targets(domains, postmaster))

    def domain_of(self, name: str) -> str | None:
        """The local domain, as the config names it, that a domain belongs to: itself, else the nearest wildcard."""
        if name in self._domains:
            return name
        labels = name.removeprefix("*.").split(".")
        wildcards = ("*." + ".".join(labels[start:]) for start in range(1, len(labels)))
        return next((wildcard for wildcard in wildcards if wildcard in self._domains), None)

    def follow(self, target: str, domain: str, alias: str = "") -> Name | End:
        """One step from a target in a domain; alias: the local part of the alias it belongs to."""
        local_part, named = _split(target)
        home = self.domain_of(named) if named else domain
        if home is None:
            return End.RELAYED if alias and self._domains[domain].relay is not None else End.NOT_LOCAL
        if local_part == alias and home == domain:
            return End.MAILBOX if self._has_mailbox(home, local_part) else End.NOWHERE
        found = self._look_up(home, local_part)
        is_own_catch_all = not alias and found == Name(domain, "")
        return End.NOWHERE if is_own_catch_all else found

    def _has_mailbox(self, domain: str, local_part: str) -> bool:
        mailboxes = self._domains[domain].mailboxes
        return mailboxes is None or local_part in mailboxes or local_part == POSTMASTER

    def _look_up(self, home: str, local_part: str) -> Name | End:
        domain = self._domains[home]
        base = local_part.partition(domain.subaddress)[0] if domain.subaddress else ""
        for name in (local_part, base) if base else (local_part,):
            if Name(home, name) in self._targets:
                return Name(home, name)
            if name in (domain.mailboxes or ()):
                return End.MAILBOX
        if domain.mailboxes is None:
            return End.MAILBOX
        return Name(home, "") if domain.catch_all is not None else End.NOWHERE

    def circles(self) -> Iterator[list[Name]]:
        """Each way from a name back to itself; a name that was on one already is not begun with again."""
        seen: set[Name] = set()
        for name in self._targets:
            if name not in seen and (way := self._circle(name)):
                seen.update(way)
                yield way

    def _circle(self, start: Name) -> list[Name]:
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

    def _following(self, name: Name) -> Iterator[Name]:
        for target in self._targets[name]:
            following = self.follow(target, name.domain, name.local_part)
            if isinstance(following, Name):
                yield following

    def nearest(self, target: str, domain: str, alias: str) -> str:
        """The hint for a target that leads nowhere; alias: the one it belongs to, which would be no help."""
        local_part, named = _split(target)
        home = self.domain_of(named) if named else domain
        if home is None:
            taking = (name for name in self._domains if self._look_up(name, local_part) is not End.NOWHERE)
            return did_you_mean(target, (f"{local_part}@{name}" for name in taking))
        names = {*(self._domains[home].mailboxes or ()), *self._domains[home].aliases} - {alias}
        return did_you_mean(target, sorted(f"{name}@{named}" if named else name for name in names))


def _split(target: str) -> tuple[str, str]:
    """Local part and domain, "" for a name without one."""
    local_part, at, domain = target.rpartition("@")
    return (local_part, domain) if at else (target, "")


def _targets(domains: Mapping[str, LocalDomain], postmaster: str | None) -> Iterator[tuple[Name, tuple[str, ...]]]:
    """What leads on: the aliases and catch-alls of the file, and postmaster where nothing of the domain takes it."""
    for name, domain in domains.items():
        for alias, targets in domain.aliases.items():
            yield Name(name, alias), targets
        if domain.mailboxes is not None and POSTMASTER not in (*domain.mailboxes, *domain.aliases):
            yield Name(name, POSTMASTER), (domain.catch_all or postmaster or POSTMASTER,)
        if domain.catch_all is not None:
            yield Name(name, ""), (domain.catch_all,)
