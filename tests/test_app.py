"""The composition root: each section of a configuration arrives in its room."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
from authority import with_certificates
from receiving import RecordingLog

from smtpmaild import app
from smtpmaild.config import Config, ConfigError, load, load_text
from smtpmaild.envelope import ClientCertificate, Envelope, Peer, Route, Session, Tls, Transaction
from smtpmaild.history import Settings
from smtpmaild.history.reading import Reading
from smtpmaild.history.recorder import History
from smtpmaild.log import LogStream
from smtpmaild.metrics import Metrics
from smtpmaild.policy.chain import Event
from smtpmaild.server.client_names import ClientNames
from smtpmaild.server.listener import ConnectionLimits
from smtpmaild.server.plan import Plan
from smtpmaild.server.sockets import InheritedAddress, TcpAddress, UnixAddress
from smtpmaild.sink.completing import CompletingSink
from smtpmaild.sink.discard import DiscardSink
from smtpmaild.sink.maildir import MaildirSink
from smtpmaild.sink.spool import SpoolSink
from smtpmaild.smtp.address import Address, parse_forward_path
from smtpmaild.smtp.extension import Security

SMALL = """\
hostname: mx.example.com
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"]}
local_domains:
  example.com: {deliver: mail}
deliver_to:
  mail: {type: discard}
"""
LARGE = """\
hostname: mx.example.com
listeners:
  - name: mx
    listen: ["127.0.0.1:25", "[::1]:25"]
    banner: Hello
    disable_extensions: [CHUNKING, BINARYMIME]
    bare_newlines: keep
    bare_lf_commands: true
    long_lines: accept
    greeting_delay: 2s
    backlog: 7
    xforward_from: [192.0.2.0/24]
  - {name: local, listen: [/run/x.sock, "systemd:smtp"], socket_mode: 0600, body_line_length: 500}
local_domains:
  Bücher.example:
    deliver: mail
    mailboxes: [Alice, bob]
    aliases: {info: [alice, bob]}
    catch_all: bob
    subaddress: "+"
  other.example: {deliver: intake, mailboxes: []}
postmaster: alice@bücher.example
deliver_to:
  mail: {type: maildir, path: "/srv/{domain}/{mailbox}"}
  intake: {type: spool, path: /srv/intake}
  nothing: {type: discard}
relay_rules:
  - {name: keep, to_domains: [keep.example], deliver: intake}
  - {name: net, from_networks: [192.0.2.0/24], listeners: [mx], reject: true}
  - {name: addresses, from_domains: [s.example], to_addresses: [a@r.example], defer: {code: 451, text: Wait}}
  - {name: sender, from_addresses: [x@y.example], deliver: nothing}
limits:
  message_size: 10 KB
  recipients: 300
  connections: 11
  connections_per_ip: 12
  connections_per_network: 13
  network_prefix_v4: 20
  network_prefix_v6: 48
  bad_commands: 4
  refused_recipients: 5
  memory: 4 MB
  body_rate: 6
timeouts: {greeting: 1m, command: 2m, data_block: 3m, session: 4m, drain: 5s}
policies:
  helo_syntax: {mode: "off"}
  mail_loop: {mode: monitor}
  messages_per_session: {mode: enforce, limit: 9}
workers: 3
event_loop: asyncio
allow_root: true
"""


def build(text: str) -> app.App:
    return app.build(load_text(text, "/etc/smtp.yaml", {}), RecordingLog())


def transaction(client: str = "198.51.100.1", sender: str = "a@b.example", listener: str = "mx") -> Transaction:
    peer = Peer(client)
    local_part, _, domain = sender.partition("@")
    envelope = Envelope(
        "Q", "S", listener, "mx.example.com", peer, "", "SMTP", 0.0, Address(local_part, domain, sender)
    )
    return Transaction(Session("S", listener, "mx.example.com", peer), envelope)


def route(built: app.App, to: str, **asked: str) -> Route:
    found = parse_forward_path(f"<{to}>", built.doors["mx"].service.dialect.options.to_ascii)
    assert found is not None
    return built.routing.route(transaction(**asked), found[0])


def places(found: Route) -> list[str]:
    return [f"{to.sink}:{to.domain}/{to.mailbox}" for to in found.destinations]


def test_stores_are_built_by_their_type() -> None:
    sinks = build(LARGE).sinks
    assert {name: type(sink) for name, sink in sinks.items()} == {
        "mail": MaildirSink, "intake": SpoolSink, "nothing": DiscardSink,
    }  # fmt: skip


def test_local_domains_reach_the_routing_with_their_lines() -> None:
    built = build(LARGE)
    found = route(built, "info+x@bücher.example")
    assert places(found) == ["mail:xn--bcher-kva.example/alice", "mail:xn--bcher-kva.example/bob"]
    assert [to.subaddress for to in found.destinations] == ["x", "x"]
    assert (found.rule.name, found.rule.where) == ("local_domains.xn--bcher-kva.example", "smtp.yaml:15")
    assert places(route(built, "whoever@bücher.example")) == ["mail:xn--bcher-kva.example/bob"]
    assert route(built, "whoever@other.example").reply.code == 550
    assert places(route(built, "postmaster@other.example")) == ["mail:xn--bcher-kva.example/alice"]
    assert places(route(built, "postmaster")) == ["mail:xn--bcher-kva.example/alice"]


RULES = [
    # recipient, what else is asked, the rule that decides, its line, the reply, where it goes
    ("a@keep.example", {}, "keep", "smtp.yaml:28", "250", ["intake:keep.example/a"]),
    ("a@r.example", {"client": "192.0.2.1"}, "net", "smtp.yaml:29", "550 5.7.1", []),
    ("a@r.example", {"client": "192.0.2.1", "listener": "local"}, "no relay rule matched", "", "550 5.7.1", []),
    ("a@r.example", {"sender": "b@s.example"}, "addresses", "smtp.yaml:30", "451 4.7.1 Wait", []),
    ("b@r.example", {"sender": "b@s.example"}, "no relay rule matched", "", "550 5.7.1", []),
    ("b@r.example", {"sender": "x@y.example"}, "sender", "smtp.yaml:31", "250", ["nothing:r.example/b"]),
]


@pytest.mark.parametrize(("to", "asked", "rule", "where", "reply", "goes_to"), RULES)
def test_relay_rules_reach_the_routing(
    to: str, asked: dict[str, str], rule: str, where: str, reply: str, goes_to: list[str]
) -> None:
    found = route(build(LARGE), to, **asked)
    assert (found.rule.name, found.rule.where) == (rule, where)
    assert str(found.reply).startswith(reply)
    assert places(found) == goes_to


def test_a_listener_speaks_as_it_is_told() -> None:
    doors = build(LARGE).doors
    options = doors["mx"].service.dialect.options
    assert (options.hostname, options.banner) == ("mx.example.com", "Hello")
    assert (options.message_size, options.recipients, options.messages) == (10_000, 300, 9)
    assert (options.body_line, options.keep_bare_newlines, options.allow_bare_lf) == (0, True, True)
    assert (options.bad_commands, options.refused_recipients) == (4, 5)
    local = doors["local"].service.dialect.options
    assert (local.body_line, local.keep_bare_newlines, local.allow_bare_lf) == (500, False, False)


def keywords(door_service: object) -> set[str]:
    from smtpmaild.service import Service

    assert isinstance(door_service, Service)
    return {line.split(" ")[0] for line in door_service.dialect.keywords}


def test_lmtp_listener_greets_as_one() -> None:
    text = SMALL.replace("listen:", "protocol: lmtp, listen:")
    for extra, banner in (("", "LMTP Service ready"), ("banner: Mail ready, ", "Mail ready")):
        dialect = build(text.replace("protocol:", f"{extra}protocol:")).doors["mx"].service.dialect
        assert dialect.is_lmtp
        assert dialect.banner.text.endswith(f" {banner}")
    assert not build(SMALL).doors["mx"].service.dialect.is_lmtp


def test_extensions_are_offered_where_they_are_not_disabled() -> None:
    doors = build(LARGE).doors
    assert {"CHUNKING", "BINARYMIME"} <= keywords(doors["local"].service)
    assert not {"CHUNKING", "BINARYMIME"} & keywords(doors["mx"].service)


def test_only_trusted_peers_are_offered_xforward() -> None:
    doors = build(LARGE).doors
    mx = doors["mx"]
    assert mx.xforward_networks == (ip_network("192.0.2.0/24"),)
    assert "XFORWARD" in keywords(mx.service_for(Peer("192.0.2.9")))
    assert "CHUNKING" not in keywords(mx.service_for(Peer("192.0.2.9")))
    assert "XFORWARD" not in keywords(mx.service_for(Peer("198.51.100.9")))
    assert doors["local"].offering == {}


QUEUED = SMALL + "relay_rules: [{name: on, from_networks: [192.0.2.0/24], relay: mx}]\n"


def test_what_the_queue_can_keep_is_offered() -> None:
    assert not {"DELIVERBY", "MT-PRIORITY", "FUTURERELEASE"} & keywords(build(SMALL).doors["mx"].service)
    text = QUEUED.replace("name: mx,", "name: mx, etrn_from: [192.0.2.0/24],")
    queue = "queue: {deliver_by_least: 1m, priorities: {from_networks: [192.0.2.0/24], users: [Alice], others: -1}}\n"
    door = build(text + queue).doors["mx"]
    assert {"DELIVERBY 60", "MT-PRIORITY MIXER"} <= set(door.service.dialect.keywords)
    assert "REQUIRETLS" in door.service.dialect.at(Security.TLS).keywords
    assert "FUTURERELEASE" not in keywords(door.service)  # nobody has to sign in
    assert "ETRN" in keywords(door.service_for(Peer("192.0.2.9")))
    assert "ETRN" not in keywords(door.service_for(Peer("198.51.100.9")))
    asked = [("192.0.2.9", ""), ("198.51.100.9", ""), ("", "alice"), ("", "bob")]
    sessions = [Session("S", "mx", "mx.example", Peer(host), user=user) for host, user in asked]
    assert [*map(door.service.most_urgent, sessions)] == [9, -1, 9, -1]
    off = build(QUEUED.replace("name: mx,", "name: mx, disable_extensions: [DELIVERBY, REQUIRETLS],")).doors["mx"]
    assert "DELIVERBY" not in keywords(off.service)
    assert off.service.most_urgent(sessions[0]) == 0


def test_door_behind_a_balancer_knows_whom_to_believe() -> None:
    listener = "trusted_proxies: [192.0.2.8], xclient_from: [192.0.2.9]"
    text = SMALL.replace("listeners:", "listeners:\n  - {name: local, listen: ['127.0.0.1:26']}")
    text = text.replace("name: mx,", f"name: mx, proxy_protocol: true, {listener},")
    doors = build(text + "timeouts: {proxy_header: 3s}\n").doors
    assert doors["mx"].trusted_proxies == (ip_network("192.0.2.8"),)
    assert doors["mx"].timeouts.proxy_header == 3
    assert "XCLIENT" in keywords(doors["mx"].service_for(Peer("192.0.2.9")))
    assert "XCLIENT" not in keywords(doors["mx"].service_for(Peer("192.0.2.8")))
    assert doors["local"].trusted_proxies is None


def test_names_are_looked_up_where_they_are_wanted() -> None:
    listeners = "listeners:\n  - {name: named, listen: ['127.0.0.1:26'], reverse_dns: true}"
    doors = build(SMALL.replace("listeners:", listeners) + 'dns: {servers: ["[::1]:5353"], timeout: 1s}\n').doors
    find = doors["named"].service.client_names
    assert isinstance(find, MethodType)
    assert isinstance(find.__self__, ClientNames)
    assert [str(server) for server in find.__self__._resolver.nameservers] == ["Do53:::1@5353"]
    assert find.__self__._timeout == 1
    assert doors["mx"].service.client_names is None


def test_limits_and_timeouts_reach_the_door() -> None:
    door = build(LARGE).doors["mx"]
    limits, timeouts = door.limits, door.timeouts
    assert (limits.total, limits.per_address, limits.per_network) == (11, 12, 13)
    assert (timeouts.greeting, timeouts.command, timeouts.data_block, timeouts.session) == (60, 120, 180, 240)
    assert (door.greeting_delay, door.body_rate) == (2, 6)


def test_policies_are_what_the_config_turns_on() -> None:
    chain = build(LARGE).doors["mx"].service.chain
    assert not chain.listens(Event.EHLO)
    assert [step.name for step in chain.steps(Event.MAIL)] == ["messages_per_session"]
    assert [step.name for step in chain.steps(Event.DATA)] == ["mail_loop"]
    assert build(SMALL).doors["mx"].service.dialect.options.messages == 0


def test_a_monitored_session_limit_is_not_announced() -> None:
    text = SMALL + "policies: {messages_per_session: {mode: monitor, limit: 9}}\n"
    assert build(text).doors["mx"].service.dialect.options.messages == 0


def test_all_sessions_share_the_metrics() -> None:
    metrics = Metrics()
    built = app.build(load_text(LARGE, "/etc/smtp.yaml", {}), RecordingLog(), metrics)
    assert all(door.service.metrics is metrics for door in built.doors.values())
    assert build(SMALL).metrics is not metrics


# The plan


def plan(text: str, **more: bool) -> Plan:
    return app.plan(load_text(text, "/etc/smtp.yaml", {}), LogStream(2), RecordingLog(), **more)  # type: ignore[arg-type]


def test_the_plan_is_for_the_processes() -> None:
    made = plan(LARGE)
    assert [(one.name, one.addresses, one.backlog) for one in made.listeners] == [
        ("mx", (TcpAddress("127.0.0.1", 25), TcpAddress("::1", 25)), 7),
        ("local", (UnixAddress("/run/x.sock", 0o600, "", ""), InheritedAddress("smtp")), 1024),
    ]
    assert len(made.sinks) == 3
    assert (made.workers, made.event_loop, made.drain_seconds) == (3, "asyncio", 5)
    assert (made.user, made.group, made.allow_root) == ("", "", True)
    assert (made.prefix_v4, made.prefix_v6) == (20, 48)


def test_root_is_allowed_by_the_config_or_the_command_line() -> None:
    assert plan(SMALL).allow_root is False
    assert plan(SMALL, allow_root=True).allow_root is True


def test_workers_are_as_many_as_processors() -> None:
    assert plan(SMALL).workers == 1
    assert plan(SMALL + "workers: auto\n").workers == len(os.sched_getaffinity(0))


def test_a_reload_reads_the_file_again(tmp_path: Path) -> None:
    path = tmp_path / "smtp.yaml"
    path.write_text(SMALL)
    first = app.plan(load(path), LogStream(2), RecordingLog(), allow_root=True)
    path.write_text(SMALL + "timeouts: {drain: 9s}\n")
    second = first.reload()
    assert (first.drain_seconds, second.drain_seconds) == (30, 9)
    assert second.allow_root is True
    assert second.log is first.log
    metrics = [made.listeners[0].door.service.metrics for made in (first, second)]
    assert metrics[0] is metrics[1]  # counting goes on
    path.write_text("nonsense: true\n")
    with pytest.raises(ConfigError):
        second.reload()


def test_a_reload_may_change_the_log(tmp_path: Path) -> None:
    path, written = tmp_path / "smtp.yaml", tmp_path / "log"
    path.write_text(SMALL)
    with written.open("wb") as file:
        first = app.plan(load(path), LogStream(file.fileno()), RecordingLog())
        path.write_text(SMALL + "logging: {level: error, format: logfmt}\n")
        second = first.reload()
        second.log.info("quiet")
        second.log.error("loud")
    assert "level=error event=loud" in written.read_text()
    assert "quiet" not in written.read_text()
    assert second.reload().log is second.log


def test_a_config_without_a_file_has_no_lines() -> None:
    config = Config.model_validate(
        {
            "listeners": [{"name": "mx", "listen": ["127.0.0.1:2525"]}],
            "local_domains": {"example.com": {"deliver": "mail"}},
            "deliver_to": {"mail": {"type": "discard"}},
        }
    )
    found = route(app.build(config, RecordingLog()), "a@example.com")
    assert (found.rule.name, found.rule.where) == ("local_domains.example.com", "")


CONFIG = Path(__file__).parents[1] / "config"


@pytest.mark.parametrize(
    "path", [CONFIG / "smtp.yaml", *sorted(CONFIG.glob("examples/*.yaml"))], ids=lambda path: path.name
)
def test_every_example_makes_a_daemon(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_HOST", "mx.example.org")
    monkeypatch.setenv("MAIL_DOMAIN", "example.org")
    config = load(with_certificates(path, tmp_path))
    made = app.plan(config, LogStream(2), RecordingLog())
    assert [one.name for one in made.listeners] == [listener.name for listener in config.listeners]
    assert all(one.addresses for one in made.listeners)


CLIENTS: dict[str, Any] = {
    "listeners": [{"name": "mx", "listen": ["127.0.0.1:2525"]}],
    "relay_rules": [
        {"name": "users", "users": ["Alice"], "deliver": "mail"},
        {"name": "signed in", "authenticated": True, "deliver": "mail"},
        {"name": "certified", "client_certificates": ["CN=Hub, O=Example"], "deliver": "mail"},
        {"name": "encrypted", "tls": True, "deliver": "mail"},
        {"name": "named", "client_names": ["*.office.example"], "deliver": "mail"},
    ],
}


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        ({"user": "alice"}, "users"),
        ({"user": "bob"}, "signed in"),
        ({"tls": Tls("TLSv1.3", "x", client=ClientCertificate("CN=Hub,O=Example", "00"))}, "certified"),
        ({"tls": Tls("TLSv1.3", "x")}, "encrypted"),
        ({"client_name": "printer.office.example"}, "named"),
        ({}, "no relay rule matched"),
    ],
)
def test_rules_ask_what_is_known_of_the_client(facts: dict[str, Any], rule: str) -> None:
    asked = transaction()
    asked = replace(asked, session=replace(asked.session, **facts))
    routing = app.build_routing(Config.model_validate(CLIENTS))
    assert routing.route(asked, Address("x", "far.example", "x@far.example")).rule.name == rule


OWN = """\
hostname: mx.example.com
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"]}
  - name: own
    listen: ["127.0.0.1:2526"]
    policies: {messages_per_session: {limit: 3}, mail_loop: {mode: "off"}}
    limits: {message_size: 1 KB, recipients: 111, connections: 7, bad_commands: 2, body_rate: 9}
    timeouts: {command: 9s}
  - {name: own-clients, listen: ["127.0.0.1:2527"], limits: {connections_per_ip: 3}}
local_domains:
  example.com: {deliver: mail}
deliver_to:
  mail: {type: discard}
limits: {connections: 100, connections_per_ip: 20, connections_per_network: 30}
"""


def test_a_listener_has_sections_of_its_own() -> None:
    doors = build(OWN).doors
    options = doors["own"].service.dialect.options
    assert (options.message_size, options.recipients, options.bad_commands, options.messages) == (1000, 111, 2, 3)
    assert (doors["own"].timeouts.command, doors["own"].timeouts.greeting) == (9.0, 300.0)
    assert doors["own"].body_rate == 9
    assert doors["mx"].service.dialect.options.recipients == 1000
    assert [step.name for step in doors["own"].service.chain.steps(Event.DATA)] == []
    assert [step.name for step in doors["mx"].service.chain.steps(Event.DATA)] == ["mail_loop"]


def test_only_who_limits_connections_counts_by_itself() -> None:
    doors = build(OWN).doors
    assert doors["mx"].limits == ConnectionLimits(100, 20, 30)
    assert doors["own"].limits == ConnectionLimits(100, 20, 30, here=7, name="own")
    assert doors["own-clients"].limits == ConnectionLimits(100, 3, 30, here=0, name="own-clients")


def test_submission_completes_messages_and_hides_who_sent_them() -> None:
    text = OWN.replace(
        "- name: own\n",
        '- {name: x, listen: ["127.0.0.1:2528"], add_missing_headers: true, hide_client: true}\n  - name: own\n',
    )
    doors = build(text).doors
    own, mx = doors["x"].service, doors["mx"].service
    assert isinstance(own.sinks["mail"], CompletingSink)
    assert isinstance(mx.sinks["mail"], DiscardSink)
    assert (own.hides_client, mx.hides_client) == (True, False)


SENDERS = """\
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"], policies: {senders: {mode: enforce}}}
  - {name: plain, listen: ["127.0.0.1:2526"]}
local_domains: {example.com: {deliver: mail, mailboxes: [alice, bob], aliases: {sales: alice}}}
deliver_to: {mail: {type: discard}}
policies: {senders: {users: {bob: bob@far.example}}}
"""


@pytest.mark.parametrize(
    ("user", "sender", "allowed"),
    [
        ("alice", "sales@example.com", True),
        ("bob", "sales@example.com", False),
        ("bob", "bob@far.example", True),
        ("alice", "bob@far.example", False),
        ("", "eve@far.example", True),
    ],
)
def test_who_signed_in_has_addresses_of_his_own(user: str, sender: str, allowed: bool) -> None:
    doors = build(SENDERS).doors
    asked = transaction(sender=sender)
    asked.session.user = user
    (step,) = [step for step in doors["mx"].service.chain.steps(Event.MAIL) if step.name == "senders"]
    assert (step.ask(asked) is None) is allowed
    assert not [step for step in doors["plain"].service.chain.steps(Event.MAIL) if step.name == "senders"]


def test_a_history_names_nobody_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "smtp.yaml"
    path.write_text(SMALL + "history: {path: h.sqlite}\nlogging: {privacy: true, privacy_file: key}\n")
    log = RecordingLog()
    record = app.plan(load(str(path)), LogStream(2), log).listeners[0].door.service.record
    assert record is not None
    to = [("bob@example.com", "r", "smtp.yaml:9", [("mail", "bob", "example.com", "")])]
    facts = {"session_id": "S", "queue_id": "Q", "reverse_path": "alice@x.example"}
    record("message_accepted", facts, (to, "<m@x>", "Hello"))
    with Reading(str(tmp_path / "h.sqlite")) as reading:
        (event,) = reading.since(1)[0]
    assert event.facts["reverse_path"] == log.only("message_accepted")["reverse_path"]
    for names in (str(event.facts), str(log.facts)):
        assert "@" in names and "alice" not in names and "bob" not in names and "Hello" not in names


def test_a_history_keeps_what_is_told(tmp_path: Path) -> None:
    path = tmp_path / "smtp.yaml"
    path.write_text(SMALL + "history: {path: h.sqlite, keep: 2d, size: 9 MB}\n")
    log = RecordingLog()
    first = app.plan(load(str(path)), LogStream(2), log)
    (history,) = first.companions
    assert isinstance(history, History)
    assert history.settings == Settings(str(tmp_path / "h.sqlite"), 2 * 86400.0, 9_000_000)
    assert first.listeners[0].door.service.record is not None
    first.log.info("reloaded")
    with Reading(history.settings.path) as reading:
        assert [event.name for event in reading.since(1)[0]] == ["reloaded"]
    assert log.named("reloaded") == [{}]

    second = first.reload()
    assert [*second.companions] == [history]  # the thread goes on
    path.write_text(SMALL + "history: {path: h.sqlite, keep: 3d}\n")
    assert [*second.reload().companions] != [history]
    path.write_text(SMALL)
    assert not second.reload().companions


def test_a_verdict_names_the_line_of_its_policy(tmp_path: Path) -> None:
    def rules(listener: str) -> set[str]:
        text = SMALL.replace("]}\n", f"]{listener}}}\n", 1) + "policies:\n  helo_syntax: {mode: enforce}\n"
        chain = build(text).doors["mx"].service.chain
        return {step.rule for steps in chain.by_event.values() for step in steps}

    assert rules("") == {"early_talker", "helo_syntax (smtp.yaml:9)", "messages_per_session", "mail_loop"}
    assert "helo_syntax (smtp.yaml:3)" in rules(", policies: {helo_syntax: {mode: enforce}}")
