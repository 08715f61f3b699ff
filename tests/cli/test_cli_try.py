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
        "notes": [],
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
