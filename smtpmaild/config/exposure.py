"""What strangers could do: who reaches a listener, and rules that would send on whatever he brings.

A stranger is anybody who has not signed in, shows no certificate of ours and comes from anywhere. He reaches a listener
that has an address the Internet routes to, or one that we cannot know: a name, every address of the machine, a socket
that somebody else opened. Sender addresses are no protection: who lies gives the right one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from smtpmaild.config.coverage import hides, joined
from smtpmaild.config.findings import Finding, Findings
from smtpmaild.config.listeners import Listener
from smtpmaild.config.models import Config
from smtpmaild.config.names import IpNetwork
from smtpmaild.config.rules import RelayRule
from smtpmaild.config.sockets import ListenAddress, TcpAddress, UnixAddress

# Loopback, link-local, RFC 1918 and RFC 4193. Not ipaddress's is_private, which has the networks of examples as well.
_PRIVATE = [
    ipaddress.ip_network(network)
    for network in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
        "::1/128", "fc00::/7", "fe80::/10",
    )
]  # fmt: skip
#: A network with a shorter prefix has strangers in it: nobody was ever given a larger one.
_SHORTEST_PREFIX = {4: 8, 6: 19}


def open_relays(config: Config) -> Findings:
    """Rules by which strangers could send to strangers, or fill a store."""
    for number, rule in enumerate(config.relay_rules):
        if (rule.relay is None and rule.deliver is None) or not _is_for_strangers(rule, config):
            continue
        if rule.relay is not None:
            message = f"rule '{rule.name}' is an open relay: strangers may send anywhere; name the clients or domains"
            yield Finding(("relay_rules", number, "name"), message)
        else:
            message = f"rule '{rule.name}' takes whatever strangers bring, for any domain"
            yield Finding(("relay_rules", number, "name"), message, "warning")


def _is_for_strangers(rule: RelayRule, config: Config) -> bool:
    """True if a stranger can send to everybody by this rule, and no rule before it refuses him."""
    if rule.authenticated or rule.users or rule.client_certificates or rule.client_names:
        return False
    if rule.to_domains or rule.to_addresses or not _has_strangers(rule.from_networks):
        return False
    doors = [listener for listener in config.listeners if not rule.listeners or listener.name in rule.listeners]
    before = [one for one in _before(rule, config.relay_rules) if one.relay is None and one.deliver is None]
    return any(_lets_in(door) and not _is_refused(rule, door, before) for door in doors)


def _has_strangers(networks: Sequence[IpNetwork]) -> bool:
    return not networks or any(network.prefixlen < _SHORTEST_PREFIX[network.version] for network in joined(networks))


def _before(rule: RelayRule, rules: Iterable[RelayRule]) -> Iterator[RelayRule]:
    for one in rules:
        if one is rule:
            return
        yield one


def _is_refused(rule: RelayRule, door: Listener, before: Sequence[RelayRule]) -> bool:
    stranger = rule.model_copy(update={"authenticated": False, "listeners": (door.name,)})
    return any(hides(earlier, stranger) for earlier in before)


def _lets_in(listener: Listener) -> bool:
    """True if strangers reach this listener and may bring mail without saying who they are."""
    return any(is_routable(address) for address in listener.listen)


def is_routable(address: ListenAddress) -> bool:
    """False where only this machine or a private network can connect to."""
    if isinstance(address, UnixAddress):
        return False
    if not isinstance(address, TcpAddress):
        return True
    if address.host == "localhost":
        return False
    try:
        host = ipaddress.ip_address(address.host)
    except ValueError:
        return True
    return not any(host in network for network in _PRIVATE)
