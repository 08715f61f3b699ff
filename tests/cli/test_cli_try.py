"""`smtpmaild try`: what it says of each way a message can go, as text and as JSON, and with which status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running import Ran, Runner

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
MX = str(EXAMPLES / "mx.yaml")
BACKUP = str(EXAMPLES / "backup-store.yaml")
CONFIG = """\
hostname: mx.example.com
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"], disable_extensions: [SMTPUTF8]}
  - {name: inside, listen: ["127.0.0.1:2526"]}
local_domains:
  example.com:
    deliver: mail
    mailboxes: [alice, jürgen]
deliver_to:
  mail: {type: maildir, path: "/srv/mail/{domain}/{mailbox}"}
  nothing: {type: discard}
relay_rules:
  - {name: from inside, listeners: [inside], to_domains: [partner.example], deliver: nothing}
limits: {message_size: 20 KB}
policies:
  helo_syntax: {mode: monitor}
"""


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capfd, monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "smtp.yaml"
    path.write_text(CONFIG)
    return str(path)


def asked(run: Runner, config: str, *arguments: str, stdin: bytes = b"") -> tuple[int, dict[str, Any]]:
    ran = run("try", "-c", config, "--client", "198.51.100.7", "--json", *arguments, stdin=stdin)
    assert ran.err == ""
    return ran.status, json.loads(ran.out)


def last_step(run: Runner, config: str, *arguments: str, stdin: bytes = b"") -> dict[str, Any]:
    status, found = asked(run, config, *arguments, stdin=stdin)
    assert status == {"accept": 0, "defer": 75, "reject": 77}[found["outcome"]]
    step: dict[str, Any] = found["steps"][-1]
    return step


def told(ran: Ran) -> list[str]:
    return ran.out.splitlines()


def test_an_accepted_recipient(run: Runner) -> None:
    status, found = asked(run, MX, "--from", "a@b.example", "--to", "alice@example.com")
    assert (status, found["outcome"], found["listener"]) == (0, "accept", "mx")
    assert [step["command"] for step in found["steps"]] == [
        "connect", "EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<alice@example.com>",
    ]  # fmt: skip
    assert found["steps"][-1] == {
        "command": "RCPT TO:<alice@example.com>",
        "reply": "250 2.1.5 recipient alice@example.com OK",
        "rule": "local_domains.example.com",
        "where": "mx.yaml:13",
        "lands_in": ["/var/spool/smtpmaild/mail/example.com/alice"],
        "goes_to": ["mail"],
        "notes": [],
        "conditions": {},
        "travels": [],
        "onward": [],
        "mailboxes": ["alice@example.com"],
    }
    ehlo = found["steps"][1]["reply"].split("\n")
    assert "250-PIPELINING" in ehlo  # the exact reply, whole
    assert ehlo[-1].startswith("250 ")


WAYS = [
    # config, arguments, outcome, the last reply, the rule and its line, where it lands
    (MX, "--to alice+shop@example.com", "250 2.1.5", "local_domains.example.com", "mx.yaml:13", ["alice"]),
    (MX, "--to info@example.com", "250 2.1.5", "local_domains.example.com", "mx.yaml:13", ["alice", "bob"]),
    (MX, "--to abuse@example.com", "250 2.1.5", "local_domains.example.com", "mx.yaml:13", ["alice"]),
    (MX, "--to anybody@example.net", "250 2.1.5", "local_domains.example.net", "mx.yaml:25", ["bob"]),
    (MX, "--to <alice@deep.lab.example.com>", "250 2.1.5", "local_domains.*.lab.example.com", "mx.yaml:22", ["alice"]),
    (MX, "--to postmaster", "250 2.1.5", "local_domains.example.com", "mx.yaml:13", ["alice"]),
    (MX, "--to PostMaster@example.net", "250 2.1.5", "local_domains.example.net", "mx.yaml:25", ["bob"]),
    (MX, "--to nobody@example.com", "550 5.1.1", "local_domains.example.com", "mx.yaml:13", []),
    (MX, "--to a@elsewhere.example", "550 5.7.1", "no relay rule matched", "", []),
    (MX, "--to a@partner.example", "551 5.1.6", "partner went away", "mx.yaml:38", []),
    (MX, "--to not-an-address@", "501 5.1.3", "", "", []),
    (BACKUP, "--from a@b.example --to x@partner.example", "250 2.1.5", "partner", "backup-store.yaml:35", ["partner"]),
    (BACKUP, "--client 192.0.2.9 --to x@partner.example", "550 5.7.1", "known spammers", "backup-store.yaml:24", []),
    (BACKUP, "--client ::ffff:192.0.2.9 --to x@partner.example", "550 5.7.1", "known spammers", "backup-store.yaml:24",
     []),
    (BACKUP, "--client 2001:db8:bad::1%x --to x@partner.example", "550 5.7.1", "known spammers", "backup-store.yaml:24",
     []),
    (BACKUP, "--from x@ads.example --to x@partner.example", "450 4.7.1", "partner's marketing, not while it is down",
     "backup-store.yaml:31", []),
    (BACKUP, "--from <> --to list@partner.example", "250 2.1.5", "bounces to a list that ended", "backup-store.yaml:27",
     ["(discarded)"]),
]  # fmt: skip


@pytest.mark.parametrize(("config", "arguments", "reply", "rule", "where", "lands_in"), WAYS)
def test_the_ways_a_recipient_can_go(
    run: Runner, config: str, arguments: str, reply: str, rule: str, where: str, lands_in: list[str]
) -> None:
    step = last_step(run, config, *arguments.split(" "))
    assert step["reply"].startswith(reply)
    assert (step["rule"], step["where"]) == (rule, where)
    assert [path.rpartition("/")[2] for path in step["lands_in"]] == lands_in


def test_the_worst_of_several_recipients_counts(run: Runner) -> None:
    recipients = ["--to", "alice@example.com", "--to", "nobody@example.com"]
    status, found = asked(run, MX, *recipients)
    assert (status, found["outcome"]) == (77, "reject")
    text = run("try", "-c", MX, *recipients)
    assert told(text)[-1] == (
        "reject: RCPT TO:<nobody@example.com> is answered 550 5.1.1 No such mailbox here; 1 of 2 recipients accepted"
    )


def test_the_listener_is_the_first_or_the_one_that_is_named(run: Runner, config: str) -> None:
    assert last_step(run, config, "--to", "x@partner.example")["rule"] == "no relay rule matched"
    step = last_step(run, config, "--listener", "inside", "--to", "x@partner.example")
    assert (step["rule"], step["where"]) == ("from inside", "smtp.yaml:13")


def test_addresses_beyond_ascii_need_a_listener_that_takes_them(run: Runner, config: str) -> None:
    step = last_step(run, config, "--listener", "inside", "--to", "jürgen@example.com")
    assert step["lands_in"] == ["/srv/mail/example.com/jürgen"]
    step = last_step(run, config, "--to", "jürgen@example.com")
    assert step["command"] == "MAIL FROM:<> SMTPUTF8"
    assert step["reply"].startswith("555 ")


def test_what_a_monitored_policy_would_have_said_is_a_note(run: Runner, config: str) -> None:
    ran = run("try", "-c", config, "--helo", "bad_name!", "--to", "alice@example.com")
    assert ran.status == 0
    (note,) = [line for line in told(ran) if "note:" in line]
    assert note.startswith("    note: helo_syntax (monitored) would say: 501 ")


def test_a_policy_that_refuses_is_named_with_its_line(run: Runner, config: str) -> None:
    Path(config).write_text(CONFIG.replace("mode: monitor", "mode: enforce"))
    step = last_step(run, config, "--helo", "bad_name!", "--to", "alice@example.com")
    assert (step["rule"], step["where"]) == ("helo_syntax", "smtp.yaml:16")
    step = last_step(run, MX, "--helo", "bad_name!", "--to", "alice@example.com")
    assert (step["rule"], step["where"]) == ("helo_syntax", "")  # on by itself: no line says so
    ran = run("try", "-c", MX, "--helo", "bad_name!", "--to", "alice@example.com")
    assert told(ran)[-1].startswith("reject: EHLO bad_name! is answered 501 ")


# With a message


def test_a_message_file_goes_with_it(run: Runner, config: str, tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(b"Subject: x\n\n.hello\n")
    status, found = asked(run, config, "--to", "alice@example.com", "--message", str(tmp_path / "message"))
    assert (status, found["outcome"]) == (0, "accept")
    assert [step["command"] for step in found["steps"][-2:]] == ["DATA", "message"]
    assert found["steps"][-1]["reply"].startswith("250 2.0.0 Ok: queued as ")
    assert not Path("/srv/mail").exists()  # nothing was touched


MESSAGES = [
    (b"", "250 2.0.0"),
    (b"Subject: x\r\n\r\nCRLF\r\n", "250 2.0.0"),
    (b"no line end", "250 2.0.0"),
    (b".\n..\n.\n", "250 2.0.0"),
    (b"Subject: x\n\na bare\rcarriage return\n", "550 5.6.0"),
    (b"x" * 999 + b"\n", "500 5.6.0"),
    (b"x\n" * 20_000, "552 5.3.4"),
    (b"Received: loop\n" * 101 + b"\nbody\n", "554 5.4.6"),
]


@pytest.mark.parametrize(("message", "reply"), MESSAGES)
def test_a_message_on_standard_input(run: Runner, config: str, message: bytes, reply: str) -> None:
    step = last_step(run, config, "--to", "alice@example.com", "--message", "-", stdin=message)
    assert step["command"] == "message"
    assert step["reply"].startswith(reply)


def test_a_mail_loop_is_told_with_its_policy(run: Runner, config: str) -> None:
    ran = run(
        "try", "-c", config, "--to", "alice@example.com", "--message", "-", stdin=b"Received: loop\n" * 101 + b"\nx\n"
    )
    assert ran.status == 77
    assert "    decided by mail_loop" in told(ran)
    assert told(ran)[-1].startswith("reject: message is answered 554 5.4.6 ")


def test_without_an_accepted_recipient_there_is_no_data(run: Runner) -> None:
    step = last_step(run, MX, "--to", "nobody@example.com", "--message", "-", stdin=b"x\n")
    assert step["command"].startswith("RCPT")


# The text


def test_the_text_reads_from_top_to_bottom(run: Runner) -> None:
    ran = run("try", "-c", MX, "--client", "198.51.100.7", "--from", "a@b.example", "--to", "sales@example.com")
    assert ran.status == 0
    lines = told(ran)
    more = lines[3].rpartition(" (and ")[2]
    assert lines == [
        "connect from 198.51.100.7 to listener mx",
        "    220 mx.example.com ESMTP Service ready",
        "EHLO client.example",
        f"    250 mx.example.com Service ready (and {more}",
        "MAIL FROM:<a@b.example>",
        "    250 2.1.0 sender a@b.example OK",
        "RCPT TO:<sales@example.com>",
        "    250 2.1.5 recipient sales@example.com OK",
        "    decided by local_domains.example.com (mx.yaml:13)",
        "    lands in /var/spool/smtpmaild/mail/example.com/alice",
        "    lands in /var/spool/smtpmaild/mail/example.com/bob",
        "",
        "accept: 1 of 1 recipients accepted; --message FILE tries a message as well",
    ]


def test_a_refusal_of_the_protocol_itself_says_so(run: Runner) -> None:
    lines = told(run("try", "-c", MX, "--from", "no at", "--to", "alice@example.com"))
    assert lines[6] == "    decided by the protocol and its limits"
    assert lines[-1].startswith("reject: MAIL FROM:<no at> is answered 501 5.1.7 ")


def test_a_deferral_and_a_message_that_is_taken(run: Runner) -> None:
    ran = run("try", "-c", BACKUP, "--client", "", "--from", "x@ads.example", "--to", "x@partner.example")
    assert (ran.status, told(ran)[0]) == (75, "connect from this machine to listener mx")
    assert told(ran)[-1].startswith("defer: RCPT TO:<x@partner.example> is answered 450 4.7.1 Come back")
    ran = run("try", "-c", MX, "--to", "alice@example.com", "--message", "-", stdin=b"x\n")
    assert told(ran)[-1] == "accept: 1 of 1 recipients accepted, the message too"


# Who the client is

DOORS = """\
hostname: mx.example.com
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"], tls: optional, reverse_dns: true}
  - {name: submission, listen: ["127.0.0.1:2587"], role: submission}
  - {name: submissions, listen: ["127.0.0.1:2465"], role: submission, tls: implicit, policies: {senders: {own: false}}}
  - {name: plain, listen: ["127.0.0.1:2526"], auth: optional, auth_without_tls: true}
  - {name: lmtp, listen: [./lmtp.sock], role: lmtp}
tls: {self_signed: true}
accounts: {users_file: users}
local_domains:
  example.com: {deliver: mail, mailboxes: [alice, bob]}
deliver_to:
  mail: {type: maildir, path: "/srv/mail/{domain}/{mailbox}"}
  nothing: {type: discard}
relay_rules:
  - {name: alice's list, users: [alice], to_domains: [partner.example], deliver: nothing}
  - {name: signed in, authenticated: true, tls: true, deliver: nothing}
  - {name: office, client_names: ["*.office.example"], to_domains: [partner.example], deliver: nothing}
"""


#: Of a password that nobody has.
HASH = "$2b$05$TItgHmey35RESv38MquY5Oku1fkSyA0g9LIaSCO/0OnZWI1SItBw2"


@pytest.fixture
def doors(tmp_path: Path) -> str:
    (tmp_path / "users").write_text(f"Alice:{HASH}\nlocked:*\n")
    (tmp_path / "users").chmod(0o600)
    path = tmp_path / "doors.yaml"
    path.write_text(DOORS)
    return str(path)


TO_ALICE = ("--to", "alice@example.com")
BY_ALICE = ("--from", "alice@example.com", "--user", "alice")
SESSIONS = [
    # arguments, the commands and what they are answered
    (["--listener", "mx"], "connect 220, EHLO 250, MAIL 250, RCPT 250"),
    (["--listener", "mx", "--tls"], "connect 220, EHLO 250, STARTTLS 220, EHLO 250, MAIL 250, RCPT 250"),
    # The role wants both; what is not said is what a client would do.
    (["--listener", "submission"], "connect 220, EHLO 250, STARTTLS 220, EHLO 250, MAIL 530"),
    (["--listener", "submission", "--no-tls"], "connect 220, EHLO 250, MAIL 530"),
    (["--listener", "submission", *BY_ALICE],
     "connect 220, EHLO 250, STARTTLS 220, EHLO 250, AUTH 235, MAIL 250, RCPT 250"),
    (["--listener", "submission", *BY_ALICE, "--no-tls"], "connect 220, EHLO 250, AUTH 538"),
    (["--listener", "submission", "--user", "alice", "--from", "bob@example.com"],
     "connect 220, EHLO 250, STARTTLS 220, EHLO 250, AUTH 235, MAIL 553"),
    (["--listener", "submissions", "--user", "alice"], "connect 220, EHLO 250, AUTH 235, MAIL 250, RCPT 250"),
    (["--listener", "submissions", *BY_ALICE], "connect 220, EHLO 250, AUTH 235, MAIL 553"),
    (["--listener", "plain", *BY_ALICE], "connect 220, EHLO 250, AUTH 235, MAIL 250, RCPT 250"),
    (["--listener", "lmtp"], "connect 220, LHLO 250, MAIL 250, RCPT 250"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), SESSIONS)
def test_the_session_of_each_door(run: Runner, doors: str, arguments: list[str], expected: str) -> None:
    _, found = asked(run, doors, *TO_ALICE, *arguments)
    steps = [f"{step['command'].split(' ')[0]} {step['reply'][:3]}" for step in found["steps"]]
    assert ", ".join(steps) == expected


def test_a_rule_says_what_it_asks_for_and_others_why_not(run: Runner, doors: str) -> None:
    ran = run("try", "-c", doors, "--listener", "submission", "--user", "ALICE", "--to", "x@far.example")
    begin = told(ran).index("AUTH PLAIN (Alice)")
    assert told(ran)[begin : begin + 6] == [
        "AUTH PLAIN (Alice)",
        "    235 2.7.0 Authentication succeeded",
        "MAIL FROM:<>",
        "    250 2.1.0 sender <> OK",
        "RCPT TO:<x@far.example>",
        "    250 2.1.5 recipient x@far.example OK",
    ]
    assert "    decided by signed in (doors.yaml:17)" in told(ran)
    assert "    which asks for authenticated: true; tls: true" in told(ran)
    assert "    note: not by 'alice's list' (doors.yaml:16): to_domains does not hold" in told(ran)
    _, found = asked(run, doors, "--listener", "submission", "--user", "alice", "--to", "x@partner.example")
    assert found["steps"][-1]["conditions"] == {"users": ["alice"], "to_domains": ["partner.example"]}
    assert found["steps"][-1]["notes"] == []


def test_the_name_of_the_client_is_told_not_looked_up(run: Runner, doors: str) -> None:
    step = last_step(run, doors, "--to", "x@partner.example", "--client-name", "printer.office.example")
    assert (step["rule"], step["where"]) == ("office", "doors.yaml:18")
    step = last_step(run, doors, "--to", "x@partner.example")
    assert step["rule"] == "no relay rule matched"
    assert step["notes"][-1] == "not by 'office' (doors.yaml:18): client_names does not hold"


def test_a_policy_of_the_role_names_it(run: Runner, doors: str) -> None:
    step = last_step(run, doors, "--listener", "submission", "--user", "alice", "--from", "b@c.example", *TO_ALICE)
    assert (step["rule"], step["where"]) == ("senders", "role submission")
    step = last_step(run, doors, "--listener", "submissions", *BY_ALICE, *TO_ALICE)
    assert (step["rule"], step["where"]) == ("senders", "doors.yaml:5")


@pytest.mark.parametrize(
    ("user", "warning"),
    [
        ("nobody", "warning: there is no account 'nobody' in {users}: it could not sign in\n"),
        ("Locked", "warning: the account 'Locked' in {users} is locked\n"),
        ("alice", ""),
    ],
)
def test_who_has_no_account_is_doubted(run: Runner, doors: str, user: str, warning: str) -> None:
    ran = run("try", "-c", doors, "--listener", "submission", "--user", user, *TO_ALICE)
    assert ran.status == 0
    assert ran.err == warning.format(users=Path(doors).parent / "users")


NONSENSE = [
    (["--listener", "lmtp", "--tls"], "--tls: listener 'lmtp' has no TLS"),
    (["--listener", "lmtp", "--client-certificate", "CN=a"], "--client-certificate: listener 'lmtp' has no TLS"),
    (["--client-certificate", "printer"], "--client-certificate: 'printer' is neither a SHA-256 fingerprint"),
    (["--client-certificate", "CN=a", "--no-tls"], "--no-tls: there is no session without TLS with"),
    (["--listener", "submissions", "--no-tls"], "--no-tls: there is no session without TLS at listener 'submissions'"),
    (["--user", "alice"], "--user: nobody can sign in at listener 'mx': it has no 'auth'"),
    (["--listener", "plain", "--user", "a\nb"], "--user: 'a\\nb' contains what cannot be typed"),
    (["--listener", "none"], "--listener: there is no listener 'none', only mx, submission, submissions, plain, lmtp"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), NONSENSE)
def test_nonsense_is_refused(run: Runner, doors: str, arguments: list[str], expected: str) -> None:
    ran = run("try", "-c", doors, *TO_ALICE, *arguments)
    assert ran.status == 64
    assert f"Invalid value for {expected}" in ran.err


ONWARD = """\
hostname: mx.example.com
listeners: [{name: mx, listen: ["127.0.0.1:2525"]}]
relays: {smart: {host: "192.0.2.9", port: 587, tls: required}}
relay_rules: [{name: on, to_domains: [far.example], relay: smart}]
"""


def test_relayed_recipient_is_told_of_its_next_hop(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "onward.yaml"
    path.write_text(ONWARD)
    ran = run("try", "-c", str(path), "--to", "a@far.example", "--dns")
    assert "    goes on to 192.0.2.9:587, TLS, whoever it is\n        [192.0.2.9]:587\n" in ran.out
    assert "\nwhat goes on is tried at once, again after 5m, doubled up to 4h; after 5d it goes back" in ran.out
    last = json.loads(run("try", "-c", str(path), "--to", "a@far.example", "--json").out)["steps"][-1]
    (hop,) = last["onward"]
    assert (hop["route"], hop["to"], hop["servers"]) == ("relay:smart", "192.0.2.9:587", [])
