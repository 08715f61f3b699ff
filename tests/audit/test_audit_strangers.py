"""The proof: rules that let strangers through and rules that do not, and that it says what trials say."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild import app
from smtpmaild.audit.report import Audit, audit
from smtpmaild.cli import main
from smtpmaild.config import Config, ConfigError, load
from smtpmaild.config.exposure import has_strangers
from smtpmaild.envelope import Tls
from smtpmaild.trial import Question

HEAD = """\
hostname: mx.example.com
listeners:
  - {name: mx, listen: ["192.0.2.1:25"], tls: optional, reverse_dns: true%s}
  - {name: inside, listen: ["127.0.0.1:2526"]}
  - {name: submission, listen: ["192.0.2.1:587"], role: submission}
tls: {self_signed: true}
accounts: {dovecot_socket: /nowhere/auth}
local_domains:
  example.com: {deliver: mail}
deliver_to: {mail: {type: discard}}
queue: {path: queue}
relay_rules:
"""


def examined(folder: Path, *rules: str, door: str = "") -> Audit:
    path = folder / "smtp.yaml"
    path.write_text(HEAD % (door and f", {door}") + "".join(f"  - {{{rule}}}\n" for rule in rules))
    try:
        config: Config | None = load(path)
    except ConfigError as error:
        config = error.dangerous
    assert config is not None
    return audit(app.stage(config))


SAFE = [
    ["name: a, authenticated: true, relay: mx"],
    ["name: a, from_networks: [10.0.0.0/8, 2001:db8::/32], relay: mx"],
    ["name: a, to_domains: [partner.example, '*.partner.example'], relay: mx"],
    ["name: a, to_addresses: [x@elsewhere.example], relay: mx"],
    ["name: a, client_names: ['*.example.com'], relay: mx"],
    ["name: a, listeners: [inside], relay: mx"],
    ["name: no, authenticated: false, reject: true", "name: a, relay: mx"],
    ["name: a, users: [alice], from_domains: [example.com], relay: mx"],
    # refused only by several rules together
    ["name: a, tls: true, reject: true", "name: b, tls: false, reject: true", "name: c, relay: mx"],
    ["name: a, from_networks: [0.0.0.0/1, '::/0'], reject: true", "name: b, from_networks: [128.0.0.0/1], defer: true"]
    + ["name: c, from_addresses: ['<>', '\"a b\"@c.example'], relay: mx"],
]
OPEN = [
    (["name: a, relay: mx"], "a"),
    (["name: a, from_domains: [example.com], relay: mx"], "a"),
    (["name: a, from_addresses: ['<>'], relay: mx"], "a"),
    (["name: a, tls: true, relay: mx"], "a"),
    (["name: a, from_networks: [64.0.0.0/3], relay: mx"], "a"),
    (["name: a, from_networks: ['2000::/16'], tls: false, relay: mx"], "a"),
    (["name: no, from_networks: [0.0.0.0/0], reject: true", "name: b, relay: mx"], "b"),
    (["name: no, from_networks: ['::/0', 0.0.0.0/1, 128.0.0.0/2], reject: true", "name: b, relay: mx"], "b"),
    (["name: no, tls: true, defer: true", "name: b, relay: mx"], "b"),
    # what the check of the file does not see
    (["name: a, client_names: ['*.com'], relay: mx"], "a"),
    (["name: a, to_domains: ['*.com', '*.net', '*.example', '*.test', '*.org'], relay: mx"], "a"),
    # a rule that refuses the very name that would stand for the others
    (
        [
            "name: no, from_domains: [any.example.net], reject: true",
            "name: b, from_domains: ['*.example.net'], relay: mx",
        ],
        "b",
    ),
    (["name: no, to_domains: [anywhere.com], reject: true", "name: b, to_domains: ['*.com'], relay: mx"], "b"),
    (["name: no, client_names: [mail.stranger.com], reject: true", "name: b, client_names: ['*.com'], relay: mx"], "b"),
    (
        [
            "name: no, from_domains: [sender.example], from_addresses: ['<>', stranger@d.example], reject: true",
            "name: b, relay: mx",
        ],
        "b",
    ),
]


@pytest.mark.parametrize("rules", SAFE)
def test_no_stranger_gets_through(tmp_path: Path, rules: list[str]) -> None:
    found = examined(tmp_path, *rules)
    assert (found.can_strangers_relay, found.counter_examples) == (False, [])
    assert found.classes > 0
    assert all(way.barrier for way in found.relaying)
    assert not any(finding.is_relay for finding in found.findings)


@pytest.mark.parametrize(("rules", "by"), OPEN)
def test_the_stranger_who_gets_through_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rules: list[str], by: str
) -> None:
    found = examined(tmp_path, *rules)
    assert found.can_strangers_relay
    (example,) = found.counter_examples
    assert (example.rule, example.action, example.stranger.listener) == (by, "relay", "mx")
    assert example.reply.startswith("250 2.1.5")
    assert [way.barrier for way in found.relaying] == [""]
    # The command does what is said of it, whoever types it.
    program, *arguments = shlex.split(example.command)
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert (program, ended.value.code) == ("smtpmaild", 0)
    assert '"goes_to": [\n        "relay:mx"\n      ]' in capsys.readouterr().out


def with_local_domain(folder: Path, line: str) -> Audit:
    path = folder / "smtp.yaml"
    relays = "relays: {smarthost: {host: smart.example.net}}\n"
    path.write_text(
        (HEAD % "").partition("relay_rules")[0].replace("local_domains:\n", f"local_domains:\n  {line}\n") + relays
    )
    return audit(app.stage(load(path)))


def test_a_top_level_domain_that_is_local_and_handed_on_is_relaying(tmp_path: Path) -> None:
    found = with_local_domain(tmp_path, "'*.com': {deliver: smarthost}")
    assert found.can_strangers_relay
    example = next(one for one in found.counter_examples if one.stranger.listener == "mx")
    assert (example.rule, example.stranger.recipient) == ("local_domains.*.com", "someone@anywhere.com")
    assert [way.barrier for way in found.relaying] == [""]


@pytest.mark.parametrize("line", ["'*.example': {deliver: mail}", "'*.example': {deliver: smarthost, mailboxes: [a]}"])
def test_a_top_level_domain_of_our_own_is_none(tmp_path: Path, line: str) -> None:
    found = with_local_domain(tmp_path, line)
    assert (found.can_strangers_relay, found.counter_examples) == (False, [])


def test_a_store_for_every_domain_is_found_too(tmp_path: Path) -> None:
    found = examined(tmp_path, "name: all, deliver: mail")
    assert not found.can_strangers_relay
    assert [example.action for example in found.counter_examples] == ["deliver"]
    assert "strangers can fill a store with mail for any domain by rule 'all'" in found.findings[0].message


def test_who_may_be_anybody_is_named(tmp_path: Path) -> None:
    found = examined(tmp_path, "name: a, authenticated: true, relay: mx", door="xclient_from: [64.0.0.0/2]")
    assert [finding.message for finding in found.findings] == [
        "xclient_from of listener 'mx' has strangers in it, who can be any client they like"
    ]
    assert found.findings[0].is_relay


# Against trials

NETWORKS = ["0.0.0.0/0", "::/0", "0.0.0.0/1", "10.0.0.0/8", "192.0.2.0/24", "192.0.2.7", "2001:db8::/32", "64.0.0.0/3"]
CLIENTS = ["10.0.0.1", "192.0.2.7", "192.0.2.8", "198.51.100.7", "2001:db8::7", "2a00::1", "70.0.0.1", "200.1.1.1"]
SENDERS = ["", "stranger@sender.example", "alice@example.com", "x@deep.partner.example"]
NAMES = ["", "mail.stranger.com", "mail.partner.example", "host.elsewhere.test"]
RECIPIENTS = ["someone@nowhere.invalid", "someone@nowhere.example"]
#: Conditions of a rule, each with the ways in which it can be given.
CONDITIONS: Mapping[str, st.SearchStrategy[Any]] = {
    "from_networks": st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=2, unique=True),
    "listeners": st.just(["mx"]),
    "authenticated": st.booleans(),
    "tls": st.booleans(),
    "from_domains": st.lists(st.sampled_from(["example.com", "*.partner.example"]), min_size=1, unique=True),
    "from_addresses": st.just(["<>"]),
    "to_domains": st.lists(st.sampled_from(["partner.example", "*.invalid", "*.a.test"]), min_size=1, unique=True),
    "client_names": st.lists(st.sampled_from(["*.com", "*.partner.example"]), min_size=1, unique=True),
}


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    given_ones = draw(st.lists(st.sampled_from([*CONDITIONS]), max_size=3, unique=True))
    rule: dict[str, Any] = {key: draw(CONDITIONS[key]) for key in given_ones}
    return {**rule, **draw(st.sampled_from([{"relay": "mx"}, {"reject": True}, {"defer": True}]))}


def configuration(found: Sequence[dict[str, Any]]) -> Config:
    listener = {"name": "mx", "listen": ["192.0.2.1:25"], "tls": "optional", "auth": "optional", "reverse_dns": True}
    return Config.model_validate(
        {
            "hostname": "mx.example.com",
            "listeners": [listener],
            "tls": {"self_signed": True},
            "accounts": {"dovecot_socket": "/nowhere/auth"},
            "relay_rules": [{"name": f"rule {number}", **rule} for number, rule in enumerate(found)],
        }
    )


def has_passed(config: Config) -> bool:
    """What trials of many strangers say. Who a rule knows by his network is none."""
    stage = app.stage(config)
    by_name = {rule.name: rule for rule in config.relay_rules}

    async def trials() -> bool:
        tls_or_not = (None, Tls("TLSv1.3", "x"))
        for client, sender, name, tls, to in itertools.product(CLIENTS, SENDERS, NAMES, tls_or_not, RECIPIENTS):
            if name.endswith("partner.example"):
                continue  # that name has an owner
            question = Question(sender, [to], client, client_name=name, tls=tls)
            last = (await stage.play(config.listeners[0], question))[-1]
            if last.code < 400 and last.goes_to == ["relay:mx"]:
                networks = by_name[last.rule].from_networks
                is_known = bool(networks) and not has_strangers(networks)
                assert not is_known or any(ipaddress.ip_address(client) in network for network in networks)
                if not is_known:
                    return True
        return False

    return asyncio.run(trials())


@given(st.lists(rules(), max_size=4))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_the_proof_and_trials_agree(found: list[dict[str, Any]]) -> None:
    config = configuration(found)
    assert audit(app.stage(config)).can_strangers_relay == has_passed(config)
