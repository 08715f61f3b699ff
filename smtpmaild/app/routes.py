"""Local domains and relay rules, each with its place in the file."""

from __future__ import annotations

from smtpmaild.config.domains import LocalDomain as LocalDomainConfig
from smtpmaild.config.models import Config
from smtpmaild.config.rules import RelayRule as RelayRuleConfig
from smtpmaild.delivery.agents import route_to
from smtpmaild.envelope import Rule
from smtpmaild.routing import QUEUE, Deliver, LocalDomain, Refuse, Relay, RelayRule, Routing
from smtpmaild.smtp.reply import Reply


def build_routing(config: Config) -> Routing:
    """Local domains and relay rules, each with its place in the file."""
    return Routing(
        [_local_domain(config, name, domain) for name, domain in config.local_domains.items()],
        [_relay_rule(config, index, rule) for index, rule in enumerate(config.relay_rules)],
        hostname=config.hostname,
        postmaster=config.postmaster or "",
    )


def _local_domain(config: Config, name: str, domain: LocalDomainConfig) -> LocalDomain:
    is_queued = config.is_queued(domain)
    return LocalDomain(
        name=name,
        rule=Rule(f"local_domains.{name}", config.where("local_domains", name)),
        sink=QUEUE if is_queued else domain.deliver,
        mailboxes=None if domain.mailboxes is None else frozenset(domain.mailboxes),
        aliases=domain.aliases,
        catch_all=domain.catch_all or "",
        subaddress=domain.subaddress or "",
        route=route_to(domain.relay, config.relays) if domain.relay is not None else "",
        delivered_by=route_to(domain.deliver, config.relays) if is_queued else "",
    )


def _relay_rule(config: Config, index: int, rule: RelayRuleConfig) -> RelayRule:
    return RelayRule(
        rule=Rule(rule.name, config.where("relay_rules", index)),
        action=_action(config, rule),
        from_networks=rule.from_networks,
        listeners=frozenset(rule.listeners),
        sender_domains=rule.from_domains,
        sender_addresses=rule.from_addresses,
        recipient_domains=rule.to_domains,
        recipient_addresses=rule.to_addresses,
        authenticated=rule.authenticated,
        users=rule.users,
        tls=rule.tls,
        client_certificates=rule.client_certificates,
        client_names=rule.client_names,
    )


def _action(config: Config, rule: RelayRuleConfig) -> Deliver | Relay | Refuse:
    if rule.deliver is not None:
        return Deliver(rule.deliver)
    if rule.relay is not None:
        return Relay(route_to(rule.relay, config.relays))
    refusal = rule.reject or rule.defer
    assert refusal is not None, "the model wants one of the four"
    return Refuse(Reply(refusal.code, refusal.enhanced, refusal.text))
