"""The whole audit of a configuration as plain data, for people (text.py) and for programs (JSON).

Every stranger who passes in the proof is sent through the trial, which has the policies too: what is reported has
happened. What he would type is the command `smtpmaild try` that shows it.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from smtpmaild.audit.rights import Rights, look_at, things
from smtpmaild.audit.strangers import Entrance, Passage, Proof, Stranger, prove
from smtpmaild.config.exposure import has_strangers, hindrance
from smtpmaild.config.listeners import Listener
from smtpmaild.config.models import Config
from smtpmaild.config.rules import RelayRule
from smtpmaild.envelope import Tls
from smtpmaild.rehearsal import Stage, conditions_of_rule
from smtpmaild.routing import Relay
from smtpmaild.trial import Question, TrialStep


@dataclass(frozen=True, slots=True)
class Door:
    """A listener. strangers: why they cannot bring mail there; "" where they can."""

    name: str
    role: str
    protocol: str
    addresses: tuple[str, ...]
    tls: str
    auth: str
    strangers: str


@dataclass(frozen=True, slots=True)
class Way:
    """Mail that is taken for other domains than ours, or travels on. who: everything that the client must be; nothing
    means everybody.  to: domains and addresses; nothing means anywhere.  action: "relay" or "deliver".  target: the
    relay or store.  barrier: why no stranger can send anywhere by it; "" where one can."""

    rule: str
    where: str
    who: tuple[str, ...]
    to: tuple[str, ...]
    action: str
    target: str
    barrier: str


@dataclass(frozen=True, slots=True)
class CounterExample:
    """A stranger who got through, and the command that shows it."""

    rule: str
    where: str
    action: str
    stranger: Stranger
    reply: str
    command: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of some classes of strangers at a listener. outcome: refused, or known by the network."""

    listener: str
    rule: str
    where: str
    outcome: str
    classes: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at. is_relay: strangers can have mail sent on."""

    message: str
    where: str = ""
    is_relay: bool = False


@dataclass(frozen=True, slots=True)
class Audit:
    """Everything. can_strangers_relay: there is a counter-example that relays."""

    config: str
    hostname: str
    listeners: Sequence[Door]
    relaying: Sequence[Way]
    can_strangers_relay: bool
    classes: int
    decisions: Sequence[Decision]
    counter_examples: Sequence[CounterExample]
    files: Sequence[Rights]
    findings: Sequence[Finding] = field(default_factory=list)


def audit(stage: Stage) -> Audit:
    """Look at everything. Runs a loop of its own for the trials."""
    config = stage.config
    proof = prove(stage.routing, [_entrance(config, listener) for listener in config.listeners])
    examples = asyncio.run(_examples(stage, proof))
    files = [look_at(config, thing) for thing in things(config)]
    return Audit(
        config=config.document.path if config.document else "",
        hostname=config.hostname,
        listeners=[_door(config, listener) for listener in config.listeners],
        relaying=[*_ways(config, {example.where for example in examples})],
        can_strangers_relay=any(example.action == "relay" for example in examples),
        classes=proof.classes,
        decisions=[*_decisions(proof)],
        counter_examples=examples,
        files=files,
        findings=[*_findings(config, examples, files)],
    )


def _entrance(config: Config, listener: Listener) -> Entrance:
    modes = {"none": (False,), "optional": (False, True)}
    return Entrance(
        listener.name, hindrance(config, listener), modes.get(listener.tls, (True,)), has_names=listener.reverse_dns
    )


def _door(config: Config, listener: Listener) -> Door:
    return Door(
        listener.name,
        listener.role,
        listener.protocol,
        tuple(map(str, listener.listen)),
        listener.tls,
        listener.auth,
        hindrance(config, listener),
    )


def _ways(config: Config, passed: Collection[str]) -> Iterator[Way]:
    """passed: the places of rules by which strangers get through."""
    for number, rule in enumerate(config.relay_rules):
        action = "relay" if rule.relay is not None else "deliver"
        target = rule.relay if rule.relay is not None else rule.deliver
        if target is not None:
            asked = conditions_of_rule(rule)
            to = (*rule.to_domains, *rule.to_addresses)
            who = tuple(words for key, value in asked.items() if (words := _in_words(key, value)))
            where = config.where("relay_rules", number)
            barrier = "" if where in passed else _barrier(rule)
            yield Way(rule.name, where, who, to, action, target, barrier)
    for name, domain in config.local_domains.items():
        where = config.where("local_domains", name)
        if config.is_queued(domain):
            barrier = "" if where in passed else _ONLY_THERE
            yield Way(f"local_domains.{name}", where, (), (name,), "relay", domain.deliver, barrier)
        away = [alias for alias, targets in domain.aliases.items() if any(_is_foreign(config, one) for one in targets)]
        if domain.relay is not None and away:
            aliases = tuple(f"{alias}@{name}" for alias in away)
            yield Way(f"local_domains.{name}", where, (), aliases, "relay", domain.relay, _ONLY_THERE)


#: What a rule asks that no stranger has, the surest first.
_BARRIERS = {
    "authenticated": "strangers have not signed in",
    "users": "strangers have not signed in",
    "client_certificates": "strangers have no such certificate",
    "client_names": "strangers have no such name",
    "from_networks": "strangers come from elsewhere",
    "to_domains": "it is for these recipients alone",
    "to_addresses": "it is for these recipients alone",
}
_ONLY_THERE = _BARRIERS["to_domains"]


def _barrier(rule: RelayRule) -> str:
    asked = {key for key, value in conditions_of_rule(rule).items() if value is not False}
    return next((words for key, words in _BARRIERS.items() if key in asked), "an earlier rule or a policy refuses them")


def _is_foreign(config: Config, target: str) -> bool:
    _, at, domain = target.rpartition("@")
    parents = [domain.split(".", count)[-1] for count in range(1, domain.count(".") + 1)]
    return bool(at) and config.local_domains.keys().isdisjoint((domain, *(f"*.{parent}" for parent in parents)))


def _in_words(key: str, value: object) -> str:
    if isinstance(value, bool):
        return _WORDS[key][value]
    return _LISTS.get(key, "").format(", ".join(map(str, value))) if isinstance(value, list) else ""


_WORDS = {"authenticated": ("not signed in", "signed in"), "tls": ("without TLS", "with TLS")}
_LISTS = {
    "users": "signed in as {}",
    "client_certificates": "with the certificate {}",
    "client_names": "named {}",
    "from_networks": "from {}",
    "from_domains": "sender in {}",
    "from_addresses": "sender {}",
    "listeners": "at {}",
}


def _decisions(proof: Proof) -> Iterator[Decision]:
    for outcome, counted in (("refused", proof.refused), ("known", proof.known)):
        for (listener, rule), classes in counted.items():
            yield Decision(listener, rule.name, rule.where, outcome, classes)


async def _examples(stage: Stage, proof: Proof) -> list[CounterExample]:
    listeners = {listener.name: listener for listener in stage.config.listeners}
    found = []
    for passage in proof.passages.values():
        step = (await stage.play(listeners[passage.stranger.listener], _question(stage.config, passage)))[-1]
        if step.rule == passage.rule.rule.name and step.code < 400:
            found.append(_example(stage.config, passage, step))
    return found


def _question(config: Config, passage: Passage) -> Question:
    one = passage.stranger
    listener = next(listener for listener in config.listeners if listener.name == one.listener)
    return Question(
        one.sender,
        [one.recipient],
        one.client,
        client_name=one.client_name,
        tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256) if one.tls else None,
        is_implicit=listener.tls == "implicit",
    )


def _example(config: Config, passage: Passage, step: TrialStep) -> CounterExample:
    rule, action = passage.rule.rule, "relay" if isinstance(passage.rule.action, Relay) else "deliver"
    reply = step.reply.rpartition("\n")[2]
    return CounterExample(rule.name, rule.where, action, passage.stranger, reply, _command(config, passage.stranger))


def _command(config: Config, one: Stranger) -> str:
    listener = next(listener for listener in config.listeners if listener.name == one.listener)
    words = ["smtpmaild", "try", "--config", config.document.path if config.document else "smtp.yaml"]
    words += ["--listener", one.listener, "--client", one.client]
    words += ["--client-name", one.client_name] if one.client_name else []
    words += ["--tls"] if one.tls and listener.tls == "optional" else []
    words += ["--from", one.sender] if one.sender else []
    return shlex.join([*words, "--to", one.recipient])


def _findings(config: Config, examples: Sequence[CounterExample], files: Sequence[Rights]) -> Iterator[Finding]:
    for example in examples:
        is_relay = example.action == "relay"
        does = "strangers can send anywhere" if is_relay else "strangers can fill a store with mail for any domain"
        yield Finding(f"{does} by rule '{example.rule}': {example.command}", example.where, is_relay)
    yield from _trusted(config)
    for rights in files:
        yield from (Finding(problem, rights.where) for problem in rights.problems)


def _trusted(config: Config) -> Iterator[Finding]:
    """Who may say that he is somebody else is as good as whoever he says he is."""
    for number, listener in enumerate(config.listeners):
        for key, networks in (("xclient_from", listener.xclient_from), ("trusted_proxies", listener.trusted_proxies)):
            if networks and has_strangers(networks):
                message = f"{key} of listener '{listener.name}' has strangers in it, who can be any client they like"
                yield Finding(message, config.where("listeners", number, key), is_relay=True)
