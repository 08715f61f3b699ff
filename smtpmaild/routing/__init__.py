"""Where a recipient's mail goes: the local domains, then the relay rules, compiled to look-ups.

Everything is worked out from plain values at start: aliases are followed, rules are sorted by what they ask for, and
a recipient costs a few dictionary look-ups. Every answer names the rule of the config that gave it.

A forward-path whose domain is a local one (the very name, else the longest wildcard `*.` above it) finds its mailbox
there or is refused 550 5.1.1 (local_domains.py). For any other domain the relay rules are asked in their order; the
first that matches decides, and without any it is 550 5.7.1 (relay_rules.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from smtpmaild.envelope import Route, Rule, Transaction
from smtpmaild.routing.local_domains import NO_SUCH_MAILBOX, LocalDomain, LocalDomains
from smtpmaild.routing.names import QUEUE, fold
from smtpmaild.routing.relay_rules import NULL_SENDER, RELAYING_DENIED, Deliver, Refuse, Relay, RelayRule, RelayRules
from smtpmaild.smtp.address import Address

__all__ = [
    "NO_SUCH_MAILBOX", "NULL_SENDER", "QUEUE", "RELAYING_DENIED", "Deliver", "LocalDomain", "Refuse", "Relay",
    "RelayRule", "Router", "Routing", "fold",
]  # fmt: skip


class Router(Protocol):
    """The seam of routing: asked once for each RCPT that no policy refused, in the event loop's thread. No I/O."""

    def route(self, transaction: Transaction, forward_path: Address) -> Route:
        """A positive reply with at least one destination, or the refusal; in both cases the rule that decided."""
        ...


class Routing:
    """The Router of the daemon.

    relay_rules: who is asked about foreign domains.  hostname: how we call ourselves.  postmaster: the address of the
    server's postmaster, in a local domain; "" if nobody is named.  Raises ValueError for an alias that runs in a circle
    or leads nowhere.
    """

    def __init__(
        self,
        local_domains: Sequence[LocalDomain] = (),
        relay_rules: Sequence[RelayRule] = (),
        *,
        hostname: str = "",
        postmaster: str = "",
    ) -> None:
        self._local_domains = LocalDomains(local_domains, hostname, postmaster)
        self.relay_rules = RelayRules(relay_rules, hostname)

    def local(self, address: Address) -> Route | None:
        """Where mail for an address in a local domain goes, or why nowhere; None for any other domain."""
        return self._local_domains.route(address)

    @property
    def local_domains(self) -> Sequence[str]:
        """Their patterns: "example.com", "*.example.com"; "" is that of the bare postmaster."""
        return self._local_domains.names

    def is_local(self, domain: str) -> bool:
        """Whether it is one of the local domains, or below a wildcard of them. domain: lower case, A-labels."""
        return self._local_domains.has(domain)

    def route(self, transaction: Transaction, forward_path: Address) -> Route:
        """See Router. A local mailbox takes 2.5 µs, most of it for making the Route and its Destination."""
        return self.local(forward_path) or self.relay_rules.route(transaction, forward_path)

    def mailboxes_of(self, address: Address) -> Collection[tuple[str, str]]:
        """Where mail for this address ends: mailboxes with their domains; empty for addresses that are not local."""
        route = self._local_domains.route(address)
        # What an alias sends on to another domain is nobody's mailbox here, whatever it is called there.
        return [(to.mailbox, to.domain) for to in route.destinations if not to.route] if route is not None else ()

    def missed(self, transaction: Transaction, forward_path: Address) -> Sequence[tuple[Rule, str]]:
        """The relay rules that were asked and did not match, each with a condition that did not hold."""
        if self._local_domains.route(forward_path) is not None:
            return ()
        return [*self.relay_rules.missed(transaction, forward_path)]
