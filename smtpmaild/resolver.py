"""Whom to ask for names: the resolver of everybody who looks something up in the DNS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import dns.asyncresolver
import dns.nameserver
import dns.resolver

#: Where resolv.conf(5) says to ask when it says nothing.
_LOCAL_SERVER: Final = ("127.0.0.1", 53)


def make_resolver(servers: Sequence[tuple[str, int]], timeout: float) -> dns.asyncresolver.Resolver:
    """servers: (address, port) of resolvers, those of the system if there are none.  timeout: seconds for a query."""
    resolver = dns.asyncresolver.Resolver(configure=False)
    if not servers:
        try:
            resolver = dns.asyncresolver.Resolver()
        except dns.resolver.NoResolverConfiguration:
            servers = [_LOCAL_SERVER]
    if servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in servers]
    resolver.lifetime = timeout
    resolver.timeout = timeout / 2  # a lost datagram, or a server that is down, leaves time for another
    resolver.use_edns(0, 0, 1232)  # the size that passes without fragments, see dnsflagday.net/2020
    return resolver
