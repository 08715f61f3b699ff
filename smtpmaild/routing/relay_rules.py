"""Relay rules: what happens to mail for domains that are not local. In order; the first that matches decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from smtpmaild.envelope import Destination, IpAddress, IpNetwork, Route, Rule, Tls, Transaction
from smtpmaild.routing.names import QUEUE, ByDomain, absolute, fold
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply

#: The null sender among the sender addresses of a rule.
NULL_SENDER = "<>"
RELAYING_DENIED = Reply(550, "5.7.1", "Relaying denied")
_NO_RULE_MATCHED = Route(Rule("no relay rule matched"), RELAYING_DENIED)


@dataclass(frozen=True, slots=True)
class Deliver:
    """Take the mail of a foreign domain into a store."""

    sink: str


@dataclass(frozen=True, slots=True)
class Relay:
    """Take the mail of a foreign domain into the queue, from which this route takes it on."""

    route: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Reject (5yz) or defer (4yz)."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class RelayRule:
    """What to do with mail for domains that are not local.

    Every criterion that is given must hold; an empty one always does, and so does None. Sender and recipient are a
    criterion each: one of the domains or one of the addresses. Domains: "example.com", "*.example.com" for its
    sub-domains, "*" for every one. "<>" among the sender addresses is the null sender, which has no domain.

    authenticated: the client has signed in, or has not.  users: it is one of these.  tls: the connection is encrypted,
    or is not.  client_certificates: fingerprints (64 hexadecimal digits, lower case) or subjects, of which one is that
    of the certificate that our CA vouches for.  client_names: of the client in the DNS, as domains are written.
    """

    rule: Rule
    action: Deliver | Relay | Refuse
    from_networks: Sequence[IpNetwork] = ()
    listeners: frozenset[str] = frozenset()
    sender_domains: Sequence[str] = ()
    sender_addresses: Sequence[str] = ()
    recipient_domains: Sequence[str] = ()
    recipient_addresses: Sequence[str] = ()
    authenticated: bool | None = None
    users: Sequence[str] = ()
    tls: bool | None = None
    client_certificates: Sequence[str] = ()
    client_names: Sequence[str] = ()


class RelayRules:
    """The relay rules in their order; those that only name recipient domains are found by them."""

    def __init__(self, rules: Sequence[RelayRule], hostname: str) -> None:
        self._hostname = hostname
        self._by_domain: dict[str, list[_CompiledRule]] = {}
        self._others: list[_CompiledRule] = []
        self._all = [_CompiledRule.of(order, rule) for order, rule in enumerate(rules)]
        for compiled in self._all:
            rule = compiled.rule
            if rule.recipient_addresses or not rule.recipient_domains or "*" in "".join(rule.recipient_domains):
                self._others.append(compiled)
            else:
                for domain in rule.recipient_domains:
                    self._by_domain.setdefault(domain, []).append(compiled)

    def route(self, transaction: Transaction, forward_path: Address) -> Route:
        rules = self._others
        if named := self._by_domain.get(forward_path.domain):
            rules = sorted((*named, *rules), key=attrgetter("order"))
        for compiled in rules:
            if all(check(transaction, forward_path) for check in compiled.checks):
                return self._carry_out(compiled.rule, forward_path)
        return _NO_RULE_MATCHED

    def missed(self, transaction: Transaction, forward_path: Address) -> Iterator[tuple[Rule, str]]:
        """The rules that were asked and did not match, each with the first of its conditions that did not hold."""
        for compiled in self._all:
            holds = [check(transaction, forward_path) for check in compiled.checks]
            if all(holds):
                return
            yield compiled.rule.rule, compiled.conditions[holds.index(False)]

    @property
    def rules(self) -> Sequence[RelayRule]:
        """All of them, in order."""
        return [compiled.rule for compiled in self._all]

    def holding(self, conditions: Collection[str], transaction: Transaction, forward_path: Address) -> int:
        """The rules, each the bit of its number, of which none of these conditions fails; what else they ask or not.

        A rule matches where it holds by all conditions: that is how all clients can be looked at, kind by kind.
        """
        return sum(
            1 << compiled.order
            for compiled in self._all
            if all(
                check(transaction, forward_path)
                for condition, check in zip(compiled.conditions, compiled.checks, strict=True)
                if condition in conditions
            )
        )

    def _carry_out(self, rule: RelayRule, forward_path: Address) -> Route:
        if isinstance(rule.action, Refuse):
            return Route(rule.rule, rule.action.reply)
        domain = forward_path.domain or self._hostname
        if isinstance(rule.action, Relay):
            # RFC 5321 §2.4: the local part is the business of its own domain alone, and stays as it was written.
            onward = Destination(QUEUE, domain, forward_path.local_part, "", forward_path, rule.action.route)
            return Route(rule.rule, RECIPIENT_OK, (onward,))
        mailbox = fold(forward_path.local_part)
        return Route(rule.rule, RECIPIENT_OK, (Destination(rule.action.sink, domain, mailbox, "", forward_path),))


_Check = Callable[[Transaction, Address], bool]


@dataclass(frozen=True, slots=True)
class _CompiledRule:
    """conditions: beside each check, how the config calls what it asks."""

    order: int
    rule: RelayRule
    checks: tuple[_Check, ...]
    conditions: tuple[str, ...]

    @classmethod
    def of(cls, order: int, rule: RelayRule) -> _CompiledRule:
        checks = _checks(rule)
        return cls(order, rule, tuple(checks.values()), tuple(checks))


def _checks(rule: RelayRule) -> dict[str, _Check]:
    """One function for each criterion that the rule gives, the cheapest first."""
    checks: dict[str, _Check] = {}
    if rule.listeners:
        checks["listeners"] = lambda transaction, _: transaction.session.listener in rule.listeners
    if rule.authenticated is not None:
        checks["authenticated"] = lambda transaction, _: bool(transaction.session.user) is rule.authenticated
    if rule.users:
        users = frozenset(map(fold, rule.users))
        checks["users"] = lambda transaction, _: fold(transaction.session.user) in users
    if rule.tls is not None:
        checks["tls"] = lambda transaction, _: (transaction.session.tls is not None) is rule.tls
    if rule.client_certificates:
        certificates = frozenset(map(str.casefold, rule.client_certificates))
        checks["client_certificates"] = lambda transaction, _: (
            not certificates.isdisjoint(_names_of_certificate(transaction.session.tls))
        )
    if rule.client_names:
        names = ByDomain(dict.fromkeys(rule.client_names, True))
        checks["client_names"] = lambda transaction, _: bool(names.find(transaction.session.client_name.lower()))
    if rule.recipient_domains or rule.recipient_addresses:
        recipients = _Addresses(rule.recipient_domains, rule.recipient_addresses)
        key = _key("to", rule.recipient_domains, rule.recipient_addresses)
        checks[key] = lambda _, forward_path: forward_path in recipients
    if rule.sender_domains or rule.sender_addresses:
        senders = _Addresses(rule.sender_domains, rule.sender_addresses)
        key = _key("from", rule.sender_domains, rule.sender_addresses)
        checks[key] = lambda transaction, _: transaction.envelope.reverse_path in senders
    if rule.from_networks:
        networks = _Networks(rule.from_networks)
        checks["from_networks"] = lambda transaction, _: transaction.session.peer.ip in networks
    return checks


def _key(side: str, domains: Sequence[str], addresses: Sequence[str]) -> str:
    given = ("domains" if domains else "", "addresses" if addresses else "")
    return " or ".join(f"{side}_{what}" for what in given if what)


def _names_of_certificate(tls: Tls | None) -> tuple[str, ...]:
    """What a rule may call the client's certificate; nothing where it showed none, or none that our CA signed."""
    if tls is None or tls.client is None:
        return ()
    return tls.client.fingerprint, tls.client.subject.casefold()


class _Addresses:
    """A set of mail addresses, given by domains and by name."""

    def __init__(self, domains: Iterable[str], addresses: Iterable[str]) -> None:
        self._domains = ByDomain(dict.fromkeys(domains, True))
        self._addresses = {address if address == NULL_SENDER else absolute(address, "") for address in addresses}

    def __contains__(self, address: Address) -> bool:
        if address.is_null:
            return NULL_SENDER in self._addresses
        return f"{fold(address.local_part)}@{address.domain}" in self._addresses or bool(
            self._domains.find(address.domain)
        )


class _Networks:
    """A set of networks. Networks of one size are found by one look-up, however many there are."""

    def __init__(self, networks: Iterable[IpNetwork]) -> None:
        self._by_size: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            host_bits = network.max_prefixlen - network.prefixlen
            prefixes = self._by_size.setdefault((network.version, host_bits), set())
            prefixes.add(int(network.network_address) >> host_bits)

    def __contains__(self, ip: IpAddress | None) -> bool:
        return ip is not None and any(
            ip.version == version and int(ip) >> host_bits in prefixes
            for (version, host_bits), prefixes in self._by_size.items()
        )
