"""The proof that no stranger can have mail sent on, or the strangers who can.

A stranger has not signed in, shows no certificate, and comes from a network that no rule knows him by. Clients differ
for the rules in few ways: the listener, TLS, the address, the name in the DNS, the sender. In each of these ways all
clients fall into classes that no rule tells apart; one of each class stands for all of it. So there are finitely many
kinds of clients, and for each kind the first rule that matches mail for a foreign domain decides.
What stands for a class has labels that the rules do not use, so that no rule means it in particular.

The addresses: networks contain each other or have nothing in common, so every class of addresses has one that begins a
network, or follows the end of one, or is the first of all.

Whose rule names networks knows the clients in them, unless the networks are so large that nobody can (exposure.py). A
name in the DNS is known from two labels on: whoever owns example.com names its hosts, whoever wants has a name in com.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from smtpmaild.config.exposure import has_strangers
from smtpmaild.envelope import Envelope, Peer, Rule, Session, Tls, Transaction
from smtpmaild.routing import NULL_SENDER, Refuse, Relay, RelayRule, Routing
from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address, mailbox

#: Clients and names that stand for those nobody has heard of (RFC 5737, RFC 3849, RFC 2606).
_CLIENTS = ("198.51.100.7", "2001:db8:ffff::7", "203.0.113.7")
_TOP_LEVEL_DOMAINS = ("example", "test", "net", "org", "com")
_TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)

_BY_SENDER = frozenset(("from_domains", "from_addresses", "from_domains or from_addresses"))
_BY_RECIPIENT = frozenset(("to_domains", "to_addresses", "to_domains or to_addresses"))


@dataclass(frozen=True, slots=True)
class Entrance:
    """A listener as strangers meet it. barred: why they cannot bring mail there; "" where they can.  tls: without it,
    with it, or both.  has_names: clients' names are looked up."""

    name: str
    barred: str = ""
    tls: tuple[bool, ...] = (False,)
    has_names: bool = False


@dataclass(frozen=True, slots=True)
class Stranger:
    """One of a class, and what he would send."""

    listener: str
    tls: bool
    client: str
    client_name: str
    sender: str
    recipient: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A rule by which a stranger gets mail accepted for a domain that is not ours."""

    rule: RelayRule
    stranger: Stranger


@dataclass(slots=True)
class Proof:
    """What comes of every class of clients.

    refused: (listener, rule that refuses) -> classes.  known: (listener, rule that knows them by their network) ->
    classes.  passages: for each listener and rule the first stranger who gets through.
    """

    entrances: Sequence[Entrance]
    refused: Counter[tuple[str, Rule]] = field(default_factory=Counter)
    known: Counter[tuple[str, Rule]] = field(default_factory=Counter)
    passages: dict[tuple[str, str], Passage] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """How many were looked at."""
        return self.refused.total() + self.known.total() + len(self.passages)


#: Where no rule matches.
NO_RULE = Rule("no relay rule matched")


def prove(routing: Routing, entrances: Sequence[Entrance]) -> Proof:
    """Look at every class of strangers at every entrance."""
    proof = Proof(entrances)
    asked = _Questions(routing)
    for entrance in entrances:
        if not entrance.barred:
            _look_at(entrance, asked, proof)
    return proof


def _look_at(entrance: Entrance, asked: _Questions, proof: Proof) -> None:
    here = asked.holding(("listeners",), listener=entrance.name)
    names = asked.names if entrance.has_names else {asked.holding(("client_names",)): ""}
    for is_encrypted in entrance.tls:
        encrypted = here & asked.unknown & asked.holding(("tls",), tls=_TLS if is_encrypted else None)
        ways = itertools.product(asked.recipients.items(), names.items(), asked.senders.items(), asked.clients.items())
        for (to, recipient), (named, name), (by, sender), (of, client) in ways:
            matching = encrypted & to & named & by & of
            number = (matching & -matching).bit_length() - 1  # the lowest bit: the first rule
            stranger = Stranger(entrance.name, is_encrypted, client, name, sender, recipient)
            _decide(stranger, asked.rules[number] if number >= 0 else None, proof)
        for recipient, rule in asked.handed_on:
            _decide(Stranger(entrance.name, is_encrypted, _CLIENTS[0], "", "", recipient), rule, proof)


def _decide(stranger: Stranger, rule: RelayRule | None, proof: Proof) -> None:
    if rule is None or isinstance(rule.action, Refuse):
        proof.refused[stranger.listener, rule.rule if rule else NO_RULE] += 1
    elif rule.from_networks and not has_strangers(rule.from_networks):
        proof.known[stranger.listener, rule.rule] += 1
    else:
        proof.passages.setdefault((stranger.listener, rule.rule.name), Passage(rule, stranger))


class _Questions:
    """The classes of everything a stranger can choose: the rules that hold for one -> the one that stands for it."""

    def __init__(self, routing: Routing) -> None:
        self._rules = routing.relay_rules
        self.rules = self._rules.rules
        self.unknown = self.holding(("authenticated", "users", "client_certificates"))
        self.clients = _classes(self._clients(), lambda one: self.holding(("from_networks",), client=one))
        self.names = _classes(self._names(), lambda one: self.holding(("client_names",), client_name=one))
        self.senders = _classes(self._senders(), lambda one: self.holding(_BY_SENDER, sender=one))
        foreign, self._local = self._foreign_and_local(routing)
        self.recipients = _classes(foreign, lambda one: self.holding(_BY_RECIPIENT, recipient=_address(one)))
        self._routing = routing

    @property
    def handed_on(self) -> Iterator[tuple[str, RelayRule]]:
        """(recipient, the local domain as a rule) where what is called local is every domain below a top-level one, and
        travels on to whichever it was: relaying by another name."""
        for address in map(_address, self._local):
            if (route := self._routing.local(address)) is None:
                continue
            for to in route.destinations:
                if to.route and to.domain == address.domain:
                    yield address.text, RelayRule(route.rule, Relay(to.route))

    def holding(
        self,
        conditions: Iterable[str],
        *,
        listener: str = "",
        client: str = "",
        client_name: str = "",
        tls: Tls | None = None,
        sender: str = "",
        recipient: Address = NULL_REVERSE_PATH,
    ) -> int:
        """The rules of which none of these conditions fails, as bits."""
        session = Session("", listener, "", Peer(client), tls=tls, client_name=client_name)
        path = _address(sender) if sender else NULL_REVERSE_PATH
        envelope = Envelope("", "", listener, "", session.peer, "", "", 0.0, reverse_path=path)
        return self._rules.holding(frozenset(conditions), Transaction(session, envelope), recipient)

    def _clients(self) -> Iterator[str]:
        yield from _CLIENTS
        yield from ("0.0.0.0", "::")  # noqa: S104  the first addresses of all
        for network in dict.fromkeys(network for rule in self.rules for network in rule.from_networks):
            yield str(network.network_address)
            behind = int(network.broadcast_address) + 1
            if behind < 1 << network.max_prefixlen:
                yield str(ipaddress.ip_address(behind) if network.version == 4 else ipaddress.IPv6Address(behind))

    def _names(self) -> Iterator[str]:
        yield ""
        patterns = [pattern for rule in self.rules for pattern in rule.client_names]
        yield f"mail.{_unheard_of('elsewhere', patterns)}"
        yield from (f"mail.{_unused('stranger', patterns)}.{top}" for top in _tops(patterns))

    def _senders(self) -> Iterator[str]:
        yield ""
        domains = [domain for rule in self.rules for domain in rule.sender_domains]
        addresses = [one for rule in self.rules for one in rule.sender_addresses if one != NULL_SENDER]
        named = [*domains, *addresses]
        local_part, below = _unused("stranger", named), _unused("any", named)
        yield f"{local_part}@{_unheard_of('sender', named)}"
        yield from (_address(one).text for one in addresses)
        yield from (f"{local_part}@{domain.replace('*', below)}" for domain in domains)

    def _foreign_and_local(self, routing: Routing) -> tuple[list[str], list[str]]:
        """Whom strangers would write to: in a foreign domain that no rule names, and in what anybody can have below a
        top-level domain. The second list: those that are local nevertheless, because all of it is."""
        named = [domain for rule in self.rules for domain in (*rule.recipient_domains, *rule.recipient_addresses)]
        named += routing.local_domains
        below = _unused("anywhere", named)
        found = [
            f"someone@{one}" for one in (_unheard_of("elsewhere", named), *(f"{below}.{top}" for top in _tops(named)))
        ]
        local = [one for one in found if routing.local(_address(one)) is not None]
        return [one for one in found if one not in local], local


def _unused(label: str, texts: Iterable[str]) -> str:
    """The label, or one like it, that occurs in none of these texts: no rule can mean what has it in particular."""
    known = " ".join(texts).lower()
    like_it = itertools.chain((label,), (f"{label}-{number}" for number in itertools.count(2)))
    return next(one for one in like_it if one not in known)


def _unheard_of(label: str, patterns: Sequence[str]) -> str:
    """A domain that no pattern takes, below a top-level domain that none takes as a whole. There is no end of them."""
    taken = {*_tops(patterns)}
    tops = itertools.chain(_TOP_LEVEL_DOMAINS, (f"top-{number}" for number in itertools.count()))
    return f"{_unused(label, patterns)}.{next(one for one in tops if one not in taken)}"


def _tops(patterns: Iterable[str]) -> list[str]:
    """Top-level domains that stand there as a whole: the com of *.com."""
    return [pattern[2:] for pattern in patterns if pattern.startswith("*.") and "." not in pattern[2:]]


def _address(text: str) -> Address:
    """Of a text as the rules have it: the local part as it is, without quotes."""
    local_part, _, domain = text.rpartition("@")
    return mailbox(local_part, domain)


def _classes(values: Iterable[str], holding: Callable[[str], int]) -> Mapping[int, str]:
    """One value of each class: the first."""
    found: dict[int, str] = {}
    for value in dict.fromkeys(values):
        found.setdefault(holding(value), value)
    return found
