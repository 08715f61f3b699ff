"""The checks beyond what tests/config/*.yaml show, and that they agree with the routing that runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.config import Config, load_text
from smtpmaild.config.check import check
from smtpmaild.config.domains import LocalDomain
from smtpmaild.config.listeners import Listener
from smtpmaild.envelope import Rule
from smtpmaild.routing import LocalDomain as RoutedDomain
from smtpmaild.routing import Routing

LISTENERS: list[dict[str, object]] = [{"name": "mx", "listen": ["127.0.0.1:2525"]}]
STORES = {"mail": {"type": "discard"}}


def built(**sections: object) -> Config:
    """A configuration made in a program: no file, no lines."""
    return Config.model_validate({"listeners": LISTENERS, "deliver_to": STORES, **sections})


def errors(config: Config) -> list[str]:
    return [mistake.message for mistake in check(config) if mistake.is_error]


def test_config_of_a_program_is_checked_too() -> None:
    config = built(local_domains={"example.com": {"deliver": "mial"}})
    assert config.where("local_domains", "example.com") == ""
    assert config.document is None
    first, second = check(config)
    assert first.render() == ("deliver_to.mail: warning: nothing is delivered to 'mail'")
    assert second.render() == (
        "local_domains.example.com.deliver: there is no 'mial' in deliver_to; did you mean 'mail'?"
    )


def test_two_things_without_lines() -> None:
    config = built(listeners=LISTENERS * 2, local_domains={"example.com": {"deliver": "mail"}})
    assert errors(config) == [
        "listener 'mx' has this socket already",
        "there is another listener 'mx'",
    ]


def listening(*addresses: Sequence[str]) -> Config:
    listeners = [{"name": str(number), "listen": list(listen)} for number, listen in enumerate(addresses)]
    return built(listeners=listeners, local_domains={"example.com": {"deliver": "mail"}})


def test_both_families_share_a_port() -> None:
    assert not errors(listening(["0.0.0.0:25", "[::]:25"], ["127.0.0.1:2525", "[::1]:2525", "[::1]:25252"]))


def test_ports_of_the_kernels_choice_never_collide() -> None:
    assert not errors(listening(["127.0.0.1:0", "0.0.0.0:0"], ["127.0.0.1:0"]))


def test_mapped_families_collide_with_localhost() -> None:
    assert errors(listening(["localhost:25"], ["[::1]:25"])) == [
        "listener '0' has localhost:25 and with it [::1]:25 already"
    ]


def test_many_rules_and_domains_are_quick() -> None:
    rules = "".join(f"  - {{name: r{n}, to_domains: [d{n}.example], reject: true}}\n" for n in range(1000))
    config = load_text(
        "listeners: [{name: mx, listen: ['127.0.0.1:25']}]\nlocal_domains: {a.example: {deliver: mail}}\n"
        f"deliver_to: {{mail: {{type: discard}}}}\nrelay_rules:\n{rules}",
        "smtp.yaml",
        {},
    )
    assert not config.warnings
    assert config.where("relay_rules", 999) == "smtp.yaml:1004"


# A small world of names, so that circles, dead ends and catch-alls meet.
LOCAL_PARTS = st.sampled_from(["a", "b", "a+x", "postmaster"])
DOMAINS = st.sampled_from(["one.example", "two.example", "*.one.example", "sub.one.example"])
TARGETS = st.one_of(LOCAL_PARTS, st.builds("{}@{}".format, LOCAL_PARTS, DOMAINS.filter(lambda name: "*" not in name)))
DOMAIN = st.fixed_dictionaries(
    {"deliver": st.just("mail")},
    optional={
        "mailboxes": st.lists(LOCAL_PARTS, max_size=2, unique=True),
        "aliases": st.dictionaries(LOCAL_PARTS, st.lists(TARGETS, min_size=1, max_size=2), max_size=3),
        "catch_all": TARGETS,
        "subaddress": st.just("+"),
    },
)


def routed(name: str, domain: LocalDomain) -> RoutedDomain:
    return RoutedDomain(
        name,
        Rule(name),
        domain.deliver,
        None if domain.mailboxes is None else frozenset(domain.mailboxes),
        domain.aliases,
        domain.catch_all or "",
        domain.subaddress or "",
    )


def routing_takes(config: Config) -> bool:
    domains = [routed(name, domain) for name, domain in config.local_domains.items()]
    try:
        Routing(domains, postmaster=config.postmaster or "")
    except ValueError:
        return False
    return True


@given(
    st.dictionaries(DOMAINS, DOMAIN, min_size=1, max_size=3),
    st.one_of(st.none(), st.builds("{}@{}".format, LOCAL_PARTS, st.just("one.example"))),
)
@settings(max_examples=300, deadline=None)
def test_what_passes_the_check_can_be_routed(domains: Mapping[str, object], postmaster: str | None) -> None:
    config = built(local_domains=domains, postmaster=postmaster)
    found = errors(config)
    if not found:
        assert routing_takes(config)
    if found:
        assert not routing_takes(config)


def test_listener_defaults() -> None:
    listener = Listener.model_validate(LISTENERS[0])
    assert (listener.protocol, listener.bare_newlines, listener.long_lines) == ("smtp", "refuse", "refuse")
    assert listener.socket_mode == 0o660


def test_socket_folder_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = built(listeners=[{"name": "mx", "listen": [f"{tmp_path}/smtp.sock"]}])
    assert not any(str(tmp_path) in mistake.message for mistake in check(config))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # as root everything is ours
    assert f"{tmp_path}: Permission denied" in [mistake.message for mistake in check(config)]


def test_history_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = built(history={"path": f"{tmp_path}/history.sqlite"})
    assert not any(str(tmp_path) in mistake.message for mistake in check(config))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # as root everything is ours
    assert f"{tmp_path}: Permission denied" in [mistake.message for mistake in check(config)]
    (tmp_path / "history.sqlite").touch()
    assert f"{tmp_path}/history.sqlite: Permission denied" in [mistake.message for mistake in check(config)]


NAMED_USERS = """\
listeners:
  - name: submission
    listen: ["127.0.0.1:2587"]
    tls: optional
    auth: optional
    policies: {senders: {users: {dora: "*", carol: "*"}}}
tls: {self_signed: true}
accounts: {users_file: users}
local_domains: {example.com: {deliver: mail}}
deliver_to: {mail: {type: discard}}
relay_rules:
  - {name: some, users: [ALICE, bob], reject: true}
policies:
  senders:
    users:
      "*": [example.com]
      Eve: "*"
"""


def test_users_without_an_account_are_doubted(tmp_path: Path) -> None:
    path = str(tmp_path / "smtp.yaml")
    assert [(warning.line, warning.message) for warning in load_text(NAMED_USERS, path, {}).warnings] == [
        (8, f"there is no {tmp_path}/users yet, so nobody can sign in: `smtpmaild user add` makes it")
    ]
    (tmp_path / "users").write_text("Alice:*\ncarol:*\n")
    (tmp_path / "users").chmod(0o600)
    assert [(warning.line, warning.message) for warning in load_text(NAMED_USERS, path, {}).warnings] == [
        (6, f"there is no account 'dora' in {tmp_path}/users"),
        (12, f"there is no account 'bob' in {tmp_path}/users"),
        (15, f"there is no account 'eve' in {tmp_path}/users"),
    ]


def test_user_of_a_case_without_an_account_is_doubted(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("Alice:*\ncarol:*\n")
    (tmp_path / "users").chmod(0o600)
    cases = """\
tests:
  - {user: ALICE, to: a@example.com, expect: accept}
  - to: a@example.com
    user: Carrol
    expect: accept
"""
    whole = NAMED_USERS[: NAMED_USERS.index("relay_rules")].replace("dora", "alice") + cases
    (warning,) = load_text(whole, str(tmp_path / "smtp.yaml"), {}).warnings
    assert (warning.line, warning.column) == (14, 11)
    assert warning.message == f"there is no account 'Carrol' in {tmp_path}/users; did you mean 'carol'?"
