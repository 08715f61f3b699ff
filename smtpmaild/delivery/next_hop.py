"""Where mail for a domain goes: the servers of its MX records, best first (RFC 5321 §5.1), or a host by its name.

| the DNS says of the domain                         | mail goes                                     |
|----------------------------------------------------|-----------------------------------------------|
| MX records                                         | to their hosts, by preference, equals shuffled |
| one MX record, "."  (RFC 7505)                     | nowhere: 556 5.1.10                           |
| no MX record, but A or AAAA                        | there                                         |
| neither                                            | nowhere: 550 5.4.4                            |
| that it does not exist                             | nowhere: 550 5.1.2                            |
| nothing, or that it failed                         | later: 451 4.4.3                              |
| MX records, and we are the best of them            | nowhere: 554 5.4.6, it would come back        |
| MX records, and we are one of them                 | only to hosts better than us                  |

A domain in brackets is an address itself. What was found is remembered as long as the DNS says, within bounds. A host
of the config (a smarthost) is asked of the operating system instead, which knows /etc/hosts too; that its name is not
found is the operator's mistake, and never final.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
from dns.rdata import Rdata
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from smtpmaild.delivery.endpoint import Endpoint
from smtpmaild.smtp.reply import OwnReply

IpVersion = Literal["ipv6", "ipv4"]

#: Answers that are remembered, about 500 octets each.
_MOST_KNOWN = 10_000
#: Seconds that an answer is kept at least and at most; that there is none; and an address that the system found.
_SHORTEST, _LONGEST = 30.0, 3600.0
_KEEP_NONE = 60.0
_KEEP_HOST = 30.0
#: Hosts of a domain whose addresses are looked up: more are not tried in one attempt.
_MOST_HOSTS = 5

_RECORDS: dict[IpVersion, RdataType] = {"ipv6": RdataType.AAAA, "ipv4": RdataType.A}
_FAMILIES: dict[int, IpVersion] = {socket.AF_INET6: "ipv6", socket.AF_INET: "ipv4"}


class NowhereError(Exception):
    """There is no next hop. reply: why."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.reply = OwnReply(code, enhanced, text)


class _UnknownDomainError(Exception):
    """NXDOMAIN."""


@dataclass(frozen=True, slots=True)
class _Mx:
    preference: int
    host: str  # without the final dot: "" for the null MX


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer of the DNS. values: texts or _Mx; None: there is no such domain."""

    values: tuple[str | _Mx, ...] | None
    until: float


@dataclass(slots=True)
class NextHops:
    """Look-ups and what is remembered of them, for all targets of a process.

    ours: names and addresses that are this host's: mail that is to go there would come back.  shuffle: in place.
    """

    resolver: dns.asyncresolver.Resolver
    ours: Collection[str] = ()
    shuffle: random.Random = field(default_factory=random.SystemRandom)
    _known: dict[tuple[str, RdataType], _Known] = field(default_factory=dict)
    _hosts: dict[tuple[str, int], tuple[float, list[str]]] = field(default_factory=dict)

    async def of_domain(self, domain: str, port: int, versions: Sequence[IpVersion]) -> list[Endpoint]:
        """At least one endpoint, the best first; raises NowhereError. domain: in A-labels, or an address literal."""
        if domain.startswith("["):
            address = domain.strip("[]").removeprefix("IPv6:")
            return [Endpoint(address, address, port)]
        try:
            hosts = await self._mail_hosts(domain)
            return await self._endpoints(domain, hosts, port, versions)
        except _UnknownDomainError:
            raise NowhereError(550, "5.1.2", f"The domain {domain} does not exist") from None
        except (dns.exception.DNSException, OSError) as error:
            raise NowhereError(451, "4.4.3", f"Cannot look up {domain}: {_why(error)}") from None

    async def of_host(self, name: str, port: int, versions: Sequence[IpVersion]) -> list[Endpoint]:
        """The same for a host of the config, or its address."""
        try:
            addresses = [str(ipaddress.ip_address(name))]
        except ValueError:
            addresses = await self._system_addresses(name, port)
        found = [address for version in versions for address in addresses if _version(address) == version]
        if not found:
            raise NowhereError(451, "4.4.3", f"The host {name} has no address of the kind that may be used")
        return [Endpoint(name, address, port) for address in found]

    async def _system_addresses(self, name: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        until, addresses = self._hosts.get((name, port), (0.0, []))
        if until > loop.time():
            return addresses
        try:
            found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NowhereError(451, "4.4.3", f"Cannot look up {name}: {error}") from None
        addresses = [str(entry[4][0]) for entry in found if entry[0] in _FAMILIES]
        self._hosts[name, port] = loop.time() + _KEEP_HOST, addresses  # as many as the config has hosts
        return addresses

    async def _mail_hosts(self, domain: str) -> Sequence[_Mx]:
        """The hosts that take mail for it, best first."""
        records = [record for record in await self._ask(domain, RdataType.MX) if isinstance(record, _Mx)]
        if not records:
            return [_Mx(0, domain)]  # RFC 5321 §5.1: "as if it was associated with an implicit MX RR"
        # RFC 7505 §3: "A domain that advertises a null MX MUST NOT advertise any other MX RR." Whose does has others.
        hosts = [record for record in records if record.host]
        if not hosts:
            raise NowhereError(556, "5.1.10", f"The domain {domain} takes no mail (null MX)")
        self.shuffle.shuffle(hosts)
        hosts.sort(key=lambda record: record.preference)
        return self._better_than_us(domain, hosts)

    def _better_than_us(self, domain: str, hosts: Sequence[_Mx]) -> list[_Mx]:
        # RFC 5321 §5.1: "any hosts in the list that are at the same or lower priority than the local host are removed".
        own = [record.preference for record in hosts if record.host.lower() in self.ours]
        better = [record for record in hosts if not own or record.preference < min(own)]
        if not better:
            raise self._loop(domain)
        return better

    async def _endpoints(
        self, domain: str, hosts: Sequence[_Mx], port: int, versions: Sequence[IpVersion]
    ) -> list[Endpoint]:
        found: list[tuple[int, Endpoint]] = []
        failure: Exception | None = None
        for record in hosts[:_MOST_HOSTS]:
            try:
                addresses = await self._addresses(record.host, versions)
            except _UnknownDomainError:
                continue
            except (dns.exception.DNSException, OSError) as error:
                failure = error
                continue
            if any(address in self.ours for address in addresses):
                # A name for us that nobody told us of counts as our own name does.
                found = [entry for entry in found if entry[0] < record.preference]
                failure = failure or self._loop(domain)
                break
            found += [(record.preference, Endpoint(record.host, address, port)) for address in addresses]
        if not found:
            raise failure or NowhereError(550, "5.4.4", f"No mail server of {domain} has an address")
        return [endpoint for _, endpoint in found]

    def _loop(self, domain: str) -> NowhereError:
        return NowhereError(554, "5.4.6", f"Mail for {domain} would come back to this host")

    async def _addresses(self, host: str, versions: Sequence[IpVersion]) -> list[str]:
        """Of one host, the preferred kind first. One kind that is not found out matters only if the other is none."""
        answers = await asyncio.gather(
            *(self._ask(host, _RECORDS[version]) for version in versions), return_exceptions=True
        )
        addresses: list[str] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                continue
            of_kind = [str(value) for value in answer]
            self.shuffle.shuffle(of_kind)
            addresses += of_kind
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if failures and not addresses:
            raise failures[0]
        return addresses

    async def _ask(self, domain: str, kind: RdataType) -> tuple[str | _Mx, ...]:
        """The records, which may be none; raises _UnknownDomainError, DNSException, OSError."""
        known = self._known.get((domain, kind))
        if known is None or known.until < asyncio.get_running_loop().time():
            known = await self._resolve(domain, kind)
            self._known.pop((domain, kind), None)
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[domain, kind] = known
        if known.values is None:
            raise _UnknownDomainError
        return known.values

    async def _resolve(self, domain: str, kind: RdataType) -> _Known:
        now = asyncio.get_running_loop().time()
        try:
            # Absolute: a search list of /etc/resolv.conf is for people who type host names.
            answer = await self.resolver.resolve(dns.name.from_text(domain), kind, search=False)
        except dns.resolver.NXDOMAIN:
            return _Known(None, now + _KEEP_NONE)
        except dns.resolver.NoAnswer:
            return _Known((), now + _KEEP_NONE)
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel):
            return _Known(None, now + _LONGEST)  # no name at all
        ttl = float(answer.chaining_result.minimum_ttl)
        return _Known(tuple(map(_value, answer)), now + min(max(_SHORTEST, ttl), _LONGEST))


def _value(record: Rdata) -> str | _Mx:
    if isinstance(record, MX):
        return _Mx(record.preference, record.exchange.to_text(omit_final_dot=True).rstrip("."))
    assert isinstance(record, A | AAAA)
    return str(record.address)


def _version(address: str) -> IpVersion:
    return "ipv6" if ":" in address else "ipv4"


def _why(error: Exception) -> str:
    """In a few words: dnspython lists every server and every try."""
    return str(error).partition(":")[0].partition(" after ")[0] or type(error).__name__
