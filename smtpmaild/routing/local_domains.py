"""Local domains: names and aliases, followed once at start to the places where their mail ends.

A local part is looked for in this order: an alias or a mailbox of exactly this name; the same before the first
subaddress separator; any mailbox, where the domain lists none; the catch-all. Aliases come before mailboxes, so that
`alice: [alice, bob]` copies alice's mail to bob.

Postmaster is always taken (RFC 5321 §4.5.1): where nothing of the domain takes it, that is the catch-all, else the
postmaster of the whole server, else a mailbox of that name in the domain's own store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from smtpmaild.envelope import Destination, Route, Rule
from smtpmaild.routing.names import QUEUE, ByDomain, absolute, fold, parents
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply

POSTMASTER = "postmaster"
NO_SUCH_MAILBOX = Reply(550, "5.1.1", "No such mailbox here")
# Answers kept by the spelling of the forward-path: the same few recipients get most of the mail, and making a route
# costs 3 us, finding it again 0.2 us. Never more than this many, whatever a stranger asks for.
_ROUTES_REMEMBERED = 4096
_NO_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LocalDomain:
    """A domain we hold the mailboxes of.

    name: "example.com", "*.example.com" for its sub-domains at any depth, or an address literal.  mailboxes: None
    takes any local part.  aliases: a name -> mailboxes or aliases of the same domain ("alice") or of another local
    one ("alice@example.org"); a target that repeats its alias's own name is the mailbox of that name.  catch_all: a
    target for what is nobody's, "" for none.  subaddress: the separator in alice+lists, "" for none.  route: what takes
    on the mail of aliases that lead to foreign addresses; "" where that is a mistake.  delivered_by: the route of mail
    for its mailboxes, where its sink is the queue.
    """

    name: str
    rule: Rule
    sink: str
    mailboxes: frozenset[str] | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_ALIASES)
    catch_all: str = ""
    subaddress: str = ""
    route: str = ""
    delivered_by: str = ""


class LocalDomains:
    """The local domains, ready to be asked."""

    def __init__(self, domains: Sequence[LocalDomain], hostname: str, postmaster: str) -> None:
        domains = [*domains, *_domain_of_bare_postmaster(domains, hostname, postmaster)]
        self._domains = ByDomain({domain.name: _Domain(domain, postmaster) for domain in domains})
        expand = _Expansion(self._domains)
        for domain in self._domains.values():
            domain.expand_names(expand)
        self._remembered: dict[str, Route] = {}

    def route(self, forward_path: Address) -> Route | None:
        """None: the domain is not local."""
        route = self._remembered.get(forward_path.text)
        if route is None and (route := self._find(forward_path)) is not None:
            if len(self._remembered) >= _ROUTES_REMEMBERED:
                self._remembered.clear()
            self._remembered[forward_path.text] = route
        return route

    @property
    def names(self) -> Sequence[str]:
        """The patterns of all of them."""
        return [domain.name for domain in self._domains.values()]

    def has(self, domain: str) -> bool:
        """Whether its mailboxes are here."""
        return self._domains.find(domain) is not None

    def _find(self, forward_path: Address) -> Route | None:
        domain = self._domains.find(forward_path.domain)
        if domain is None:
            return None
        places, subaddress = domain.find(fold(forward_path.local_part))
        if not places:
            return domain.refusal
        destinations = [place.destination(forward_path, subaddress) for place in places]
        return Route(domain.rule, RECIPIENT_OK, tuple(destinations))


def _domain_of_bare_postmaster(
    local_domains: Sequence[LocalDomain], hostname: str, postmaster: str
) -> Iterator[LocalDomain]:
    """RCPT TO:<postmaster>, the one forward-path without a domain, as a domain "" with one alias in it.

    Without a postmaster of the server that is the one of our own host's domain if it is local, else of the first.
    """
    if not local_domains:
        return
    domains = ByDomain({domain.name: domain for domain in local_domains})
    # Below a wildcard any name will do.
    first = local_domains[0].name.replace("*", POSTMASTER)
    candidates = [postmaster.rpartition("@")[2]] if postmaster else [hostname, *parents(hostname), first]
    for name in candidates:
        if domain := domains.find(name):
            target = postmaster or f"{POSTMASTER}@{name}"
            yield LocalDomain("", domain.rule, domain.sink, frozenset(), {POSTMASTER: (target,)})
            return
    raise ValueError(f"the postmaster {postmaster} is in no local domain")


@dataclass(frozen=True, slots=True)
class _Place:
    """A Destination as far as it is known at start. domain: "" is the one the peer named, below a wildcard."""

    sink: str
    domain: str
    mailbox: str
    subaddress: str = ""
    route: str = ""

    def destination(self, forward_path: Address, subaddress: str) -> Destination:
        """Mail for alice+lists, where alice is an alias, goes to the targets of alice with the same subaddress."""
        return Destination(
            self.sink,
            self.domain or forward_path.domain,
            self.mailbox,
            self.subaddress or subaddress,
            forward_path,
            self.route,
        )


class _Domain:
    """A local domain, its names expanded to places."""

    def __init__(self, domain: LocalDomain, postmaster: str) -> None:
        self.name = domain.name
        self.rule = domain.rule
        self.sink = domain.sink
        self.takes_any = domain.mailboxes is None
        self.mailboxes = {fold(mailbox): mailbox for mailbox in domain.mailboxes or ()}
        self.aliases = {fold(alias): targets for alias, targets in domain.aliases.items()}
        self.catch_all_target = domain.catch_all
        self.separator = domain.subaddress
        self.route = domain.route
        self.delivered_by = domain.delivered_by
        self.refusal = Route(domain.rule, NO_SUCH_MAILBOX)
        self.places: dict[str, tuple[_Place, ...]] = {}
        self.catch_all: tuple[_Place, ...] = ()
        if not self.has(POSTMASTER):
            self.aliases[POSTMASTER] = (domain.catch_all or postmaster or POSTMASTER,)

    def has(self, local_part: str) -> bool:
        """True for a mailbox or an alias."""
        return self.takes_any or local_part in self.mailboxes or local_part in self.aliases

    def has_mailbox(self, local_part: str) -> bool:
        """True for a mailbox, listed or not. Every domain can store the mail of its postmaster."""
        return self.takes_any or local_part in self.mailboxes or local_part == POSTMASTER

    def split(self, local_part: str) -> tuple[str, str]:
        """The name before the first separator and the subaddress behind it; the whole if no name stands before."""
        if self.separator:
            name, _, subaddress = local_part.partition(self.separator)
            if name:
                return name, subaddress
        return local_part, ""

    def place(self, mailbox: str, domain: str = "") -> _Place:
        return _Place(self.sink, domain, self.mailboxes.get(mailbox, mailbox), route=self.delivered_by)

    def expand_names(self, expand: _Expansion) -> None:
        for name in (*self.mailboxes, *self.aliases):
            self.places[name] = expand(f"{name}@{self.name}")
        if self.catch_all_target:
            self.catch_all = expand(absolute(self.catch_all_target, self.name))

    def find(self, local_part: str) -> tuple[tuple[_Place, ...], str]:
        """The places of a folded local part and its subaddress; no places if there is no such mailbox."""
        if places := self.places.get(local_part):
            return places, ""
        name, subaddress = self.split(local_part)
        if places := self.places.get(name):
            return places, subaddress
        if self.takes_any and name:
            return (self.place(name),), subaddress
        return self.catch_all, ""


class _Expansion:
    """Follows an address through aliases of all local domains to the places where its mail ends."""

    def __init__(self, domains: ByDomain[_Domain]) -> None:
        self._domains = domains
        self._known: dict[str, tuple[_Place, ...]] = {}

    def __call__(self, address: str, path: tuple[str, ...] = ()) -> tuple[_Place, ...]:
        """path: the addresses that led to this one. Raises ValueError for a circle or a dead end."""
        if address in self._known:
            return self._known[address]
        steps = " -> ".join((*path, address))
        if address in path:
            raise ValueError(f"aliases run in a circle: {steps}")
        local_part, _, name = address.rpartition("@")
        domain = self._domains.find(name)
        places = self._follow(domain, local_part, (*path, address)) if domain else self._onward(local_part, name, path)
        if not places:
            raise ValueError(f"an alias leads nowhere: {steps}")
        if domain is not None:
            self._known[address] = places
        return places

    def _onward(self, local_part: str, name: str, path: tuple[str, ...]) -> tuple[_Place, ...]:
        """A foreign address, where the domain of the alias that names it sends mail on."""
        of_alias = self._domains.find(path[-1].rpartition("@")[2]) if path else None
        return (_Place(QUEUE, name, local_part, route=of_alias.route),) if of_alias and of_alias.route else ()

    def _follow(self, domain: _Domain, local_part: str, path: tuple[str, ...]) -> tuple[_Place, ...]:
        name = path[-1].rpartition("@")[2]
        here = domain.place(local_part, "" if "*" in name else name)
        if targets := domain.aliases.get(local_part):
            found: dict[_Place, None] = {}  # each place once, in order
            for target in targets:
                address = absolute(target, name)
                if address == path[-1] and domain.has_mailbox(local_part):
                    found[here] = None
                else:
                    found.update(dict.fromkeys(self(address, path)))
            return tuple(found)
        if local_part in domain.mailboxes:
            return (here,)
        base, subaddress = domain.split(local_part)
        if base != local_part and domain.has(base):
            places = self(f"{base}@{name}", path)
            return tuple(replace(place, subaddress=place.subaddress or subaddress) for place in places)
        if domain.takes_any and local_part:
            return (here,)
        catch_all = domain.catch_all_target and absolute(domain.catch_all_target, name)
        return self(catch_all, path) if catch_all not in ("", path[-1]) else ()
