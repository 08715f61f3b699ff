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

    def __init__(self, domains: Mapping[str, LocalDomain], postmaster: str | None) -> None:
        self._domains = domains
        self._aliases = {name: _aliases(domain, postmaster) for name, domain in domains.items()}

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
        return _has_mailbox(self._domains[domain], local_part) or local_part == POSTMASTER

    def _look_up(self, home: str, local_part: str) -> Name | End:
        domain = self._domains[home]
        base = local_part.partition(domain.subaddress)[0] if domain.subaddress else ""
        for name in (local_part, base) if base else (local_part,):
            if name in self._aliases[home]:
                return Name(home, name)
            if self._has_mailbox(home, name):
                return End.MAILBOX
        return End.CATCH_ALL if domain.catch_all is not None else End.NOWHERE

    def aliases(self) -> Iterator[Name]:
        """Every alias, those of postmaster that no file names among them."""
        for domain, aliases in self._aliases.items():
            yield from (Name(domain, local_part) for local_part in aliases)

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
        for target in self._aliases[alias.domain][alias.local_part]:
            following = self.follow(target, alias.domain, alias.local_part)
            if following is End.CATCH_ALL:
                following = self._follow_catch_all(target, alias.domain)
            if isinstance(following, Name):
                yield following

    def _follow_catch_all(self, target: str, domain: str) -> Name | End:
        home = self.domain_of(target.rpartition("@")[2]) if "@" in target else domain
        assert home is not None
        catch_all = self._domains[home].catch_all
        assert catch_all is not None
        return self.follow(catch_all, home)

    def nearest(self, target: str, domain: str, alias: str | None) -> str:
        """The hint for a target that leads nowhere; alias: the one it belongs to, which would be no help."""
        local_part, at, named = target.rpartition("@")
        home = self.domain_of(named) if at else domain
        if home is None:
            taking = (name for name in self._domains if self._look_up(name, local_part) is not End.NOWHERE)
            return did_you_mean(target, (f"{local_part}@{name}" for name in taking))
        names = {*(self._domains[home].mailboxes or ()), *self._domains[home].aliases} - {alias}
        return did_you_mean(target, sorted(f"{name}@{named}" if at else str(name) for name in names))


def _has_mailbox(domain: LocalDomain, local_part: str) -> bool:
    return domain.mailboxes is None or local_part in domain.mailboxes


def _aliases(domain: LocalDomain, postmaster: str | None) -> dict[str, tuple[str, ...]]:
    """The aliases of the file, and the one for postmaster where nothing of the domain takes its mail."""
    if _has_mailbox(domain, POSTMASTER) or POSTMASTER in domain.aliases:
        return domain.aliases
    return {**domain.aliases, POSTMASTER: (domain.catch_all or postmaster or POSTMASTER,)}
