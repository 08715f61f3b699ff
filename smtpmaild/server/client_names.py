"""The name of a client in the DNS, checked both ways: PTR of the address, then an address of that name is the client's.

One object for each configuration, in each worker its own cache. A look-up is shared by all sessions that wait for it,
takes no longer than the configuration allows, and never raises: a client without a name has the name "". What a flood
of new clients can cost is bounded, and so is the cache.

It runs in the event loop: 0.7 to 1 ms of CPU for the two queries of a client that is not known yet. A pool of threads
takes 0.6 ms, but a few dozen clients whose reverse zone does not answer, and spammers' often do not, would occupy it
for seconds and leave everybody else without a name; here 500 may wait at no cost.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import dns.exception
import dns.resolver
import dns.reversename
from dns.name import Name
from dns.rdatatype import RdataType

from smtpmaild.envelope import IpAddress
from smtpmaild.resolver import make_resolver

#: Clients that are remembered, about 200 octets each.
_MOST_KNOWN = 10_000
#: Look-ups at one time; who comes then has no name, this once.
_MOST_PENDING = 500
#: Of the names that an address has, so many are looked up in turn.
_MOST_NAMES = 5
#: What the DNS says is kept as long as it says, within these bounds; that there is no name, and that nobody answered.
_SHORTEST, _LONGEST = 60.0, 3600.0
_KEEP_NONE, _KEEP_FAILURE = 300.0, 30.0
# A host name (RFC 1123 §2.1), and the underscore of names that are in use: nothing else comes into Received and logs.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)+")

NO_NAME: Final = ""


class ClientNames:
    """Look-ups and their cache.

    servers: (address, port) of resolvers, those of the system if there are none.  timeout: seconds for all queries of
    one client.
    """

    def __init__(self, servers: Sequence[tuple[str, int]], timeout: float) -> None:
        self._resolver = make_resolver(servers, timeout)
        self._timeout = timeout
        self._known: dict[IpAddress, tuple[str, float]] = {}  # name, and until when; the oldest first
        self._pending: dict[IpAddress, asyncio.Task[str]] = {}

    def find(self, ip: IpAddress) -> str | asyncio.Future[str]:
        """The client's name, "" for none; or a future of it, which may be dropped: the look-up goes on."""
        loop = asyncio.get_running_loop()
        name, until = self._known.get(ip, (NO_NAME, 0.0))
        if until > loop.time():
            return name
        task = self._pending.get(ip)
        if task is None:
            if len(self._pending) >= _MOST_PENDING:
                return NO_NAME
            task = self._pending[ip] = loop.create_task(self._look_up(ip))
        return asyncio.shield(task)  # a session that ends takes the look-up from nobody else

    async def _look_up(self, ip: IpAddress) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                name, seconds = await self._confirmed_name(ip)
        except (dns.exception.DNSException, OSError):  # TimeoutError too
            name, seconds = NO_NAME, _KEEP_FAILURE
        finally:
            del self._pending[ip]
        self._remember(ip, name, seconds)
        return name

    def _remember(self, ip: IpAddress, name: str, seconds: float) -> None:
        self._known.pop(ip, None)
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[ip] = name, asyncio.get_running_loop().time() + seconds

    async def _confirmed_name(self, ip: IpAddress) -> tuple[str, float]:
        """The first name of the address that has the address, and how long that holds."""
        try:
            names = await self._resolver.resolve(dns.reversename.from_address(str(ip)), RdataType.PTR)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return NO_NAME, _KEEP_NONE
        for pointer in [*names][:_MOST_NAMES]:
            seconds = await self._has_address(pointer.target, ip)
            text = pointer.target.to_text(omit_final_dot=True).lower()
            if seconds is not None and _HOST_NAME.fullmatch(text):
                return text, min(max(_SHORTEST, min(seconds, _ttl(names))), _LONGEST)
        return NO_NAME, _KEEP_NONE

    async def _has_address(self, name: Name, ip: IpAddress) -> float | None:
        """For how many seconds it has; None: it has not."""
        kind = RdataType.A if ip.version == 4 else RdataType.AAAA
        try:
            addresses = await self._resolver.resolve(name, kind)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return None
        return _ttl(addresses) if any(record.address == str(ip) for record in addresses) else None


def _ttl(answer: dns.resolver.Answer) -> float:
    return float(answer.chaining_result.minimum_ttl)
