"""Who comes in by which listener: rules that would send on whatever strangers bring, rules for people who never come.

A stranger is anybody who has not signed in, shows no certificate of ours and comes from anywhere. He reaches a listener
that has an address the Internet routes to, or one that we cannot know: a name, every address of the machine, a socket
that somebody else opened, whatever is behind a proxy. Sender addresses are no protection: who lies gives the right one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence

from smtpmaild.config.check_tls import clients_of
from smtpmaild.config.coverage import hides, joined
from smtpmaild.config.findings import Finding, Findings
from smtpmaild.config.listeners import Listener
from smtpmaild.config.mistakes import Severity
from smtpmaild.config.models import Config
from smtpmaild.config.names import IpNetwork
from smtpmaild.config.rules import RelayRule
from smtpmaild.config.sockets import ListenAddress, TcpAddress, UnixAddress
from smtpmaild.config.tls import is_offered

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
        if rule.relay is not None:
            message = f"rule '{rule.name}' is an open relay: strangers may send anywhere; name the clients or domains"
        elif rule.deliver is not None:
            message = f"rule '{rule.name}' takes whatever strangers bring, for any domain"
        else:
            continue
        before = [("relay_rules", index) for index in range(number)]
        for door in _open_to_strangers(number, config):
            severity: Severity = "danger" if rule.relay is not None else "warning"
            yield Finding(("relay_rules", number, "name"), message, severity, rests_on=(("listeners", door), *before))


def _open_to_strangers(number: int, config: Config) -> Iterator[int]:
    """The listeners by which a stranger can send to everybody by this rule, and no rule before it refuses him."""
    rule = config.relay_rules[number]
    if rule.authenticated or rule.users or rule.client_certificates or rule.client_names:
        return
    if rule.to_domains or rule.to_addresses or not has_strangers(rule.from_networks):
        return
    before = [one for one in config.relay_rules[:number] if one.relay is None and one.deliver is None]
    for door in _doors(rule, config):
        listener = config.listeners[door]
        if not hindrance(config, listener) and not _is_refused(rule, listener, before):
            yield door


def _doors(rule: RelayRule, config: Config) -> list[int]:
    """The listeners that a rule is asked at, by their numbers."""
    return [
        number
        for number, listener in enumerate(config.listeners)
        if not rule.listeners or listener.name in rule.listeners
    ]


def has_strangers(networks: Sequence[IpNetwork]) -> bool:
    """True for networks so large that nobody can know all of their clients, and for none, which are all."""
    return not networks or any(network.prefixlen < _SHORTEST_PREFIX[network.version] for network in joined(networks))


def _is_refused(rule: RelayRule, door: Listener, before: Sequence[RelayRule]) -> bool:
    stranger = rule.model_copy(update={"authenticated": False, "listeners": (door.name,)})
    return any(hides(earlier, stranger) for earlier in before)


def hindrance(config: Config, listener: Listener) -> str:
    """Why strangers cannot bring mail by this listener without saying who they are; "" where they can."""
    if listener.auth == "required":
        return "clients must sign in"
    if listener.tls in ("required", "implicit") and clients_of(config, listener) == "require":
        return "clients must show a certificate"
    is_reached = listener.proxy_protocol or bool(listener.xclient_from) or any(map(is_routable, listener.listen))
    return "" if is_reached else "it is reached from this machine or a private network only"


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


def rules_for_nobody(config: Config) -> Findings:
    """Rules for clients of a kind that none of their listeners lets in."""
    for number, rule in enumerate(config.relay_rules):
        doors = _doors(rule, config)
        rests_on = [("listeners", door) for door in doors]
        for key, is_asked, comes_in, reason in _KINDS:
            if doors and is_asked(rule) and not any(comes_in(config, config.listeners[door]) for door in doors):
                message = f"rule '{rule.name}' matches nobody: {reason}"
                yield Finding(("relay_rules", number, key), message, of_key=True, rests_on=rests_on)


def _may_sign_in(_: Config, door: Listener) -> bool:
    # With XCLIENT a proxy may say who has signed in there.
    return door.auth != "none" or bool(door.xclient_from)


def _may_encrypt(_: Config, door: Listener) -> bool:
    return is_offered(door.tls)


def _may_show_certificates(config: Config, door: Listener) -> bool:
    return is_offered(door.tls) and clients_of(config, door) != "none"


def _may_have_names(_: Config, door: Listener) -> bool:
    # With XCLIENT a proxy may say what it has looked up.
    return door.reverse_dns or bool(door.xclient_from)


#: The condition of a rule, whether a rule has it, who lets such clients in, and what is missing where nobody does.
_KINDS: Sequence[tuple[str, Callable[[RelayRule], bool], Callable[[Config, Listener], bool], str]] = (
    ("authenticated", lambda rule: rule.authenticated is True, _may_sign_in, "no listener of it has 'auth'"),
    ("users", lambda rule: bool(rule.users), _may_sign_in, "no listener of it has 'auth'"),
    ("tls", lambda rule: rule.tls is True, _may_encrypt, "no listener of it has TLS"),
    (
        "client_certificates",
        lambda rule: bool(rule.client_certificates),
        _may_show_certificates,
        "no listener of it asks for certificates",
    ),
    (
        "client_names",
        lambda rule: bool(rule.client_names),
        _may_have_names,
        "no listener of it has 'reverse_dns'",
    ),
)


def doors_in_clear(config: Config) -> Findings:
    """Listeners whose TLS does not go with what they are for."""
    for number, listener in enumerate(config.listeners):
        if listener.auth != "none" and listener.tls == "none" and not listener.auth_without_tls:
            message = f"nobody can sign in at listener '{listener.name}' without TLS: give it 'tls'"
            yield Finding(("listeners", number, "auth"), message)
        if listener.tls not in ("optional", "required"):
            continue
        for index, address in enumerate(listener.listen):
            if isinstance(address, TcpAddress) and address.port == _SUBMISSIONS:
                message = f"clients begin with TLS on port {_SUBMISSIONS}: 'tls: implicit' is meant"
                yield Finding(("listeners", number, "listen", index), message, "warning")


# RFC 8314 §7.3: "submissions", message submission over TLS.
_SUBMISSIONS = 465
