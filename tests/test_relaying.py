"""The whole way: a client, the queue, an agent, the next hop. Both ends are doors of one daemon."""

from __future__ import annotations

import email
import email.policy
import os
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
from ports import free_port

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """\
hostname: mx.example.com
listeners:
  - {{name: outer, listen: ["127.0.0.1:{outer}"]}}
  - {{name: inner, listen: ["127.0.0.1:{inner}"], disable_extensions: [{disabled}]}}
local_domains:
  local.example:
    {{deliver: mail, relay: hop, mailboxes: [bob],
     aliases: {{away: [bob, away@far.example], moved: x@refused.example}}}}
  queued.example: {{deliver: script, mailboxes: [dora], subaddress: "+"}}
deliver_to:
  mail: {{type: maildir, path: "{root}/mail/{{domain}}/{{mailbox}}"}}
relay_rules:
  - {{name: arrived, listeners: [inner], to_domains: [far.example, next.example], deliver: mail}}
  - {{name: on, listeners: [outer], to_domains: [far.example], relay: hop}}
  - {{name: straight, listeners: [outer], to_domains: [next.example], relay: "127.0.0.1:{inner}"}}
  - {{name: refused, listeners: [outer], to_domains: [refused.example], relay: hop}}
relays:
  script: {{type: pipe, command: [tee, "{root}/piped"]}}
  hop: {{host: 127.0.0.1, port: {hop}}}
queue: {{path: "{root}/queue", retry_first: 1s}}
timeouts: {{drain: 5s}}
logging: {{format: json}}
workers: {workers}
"""


class Daemon:
    def __init__(self, root: Path, *, workers: int = 1) -> None:
        self.root = root
        self.outer, self.inner = free_port(), free_port()
        self.workers = workers
        self.log = root / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, hop: int | None = None, disabled: str = "") -> None:
        (self.root / "smtp.yaml").write_text(
            CONFIG.format(
                outer=self.outer,
                inner=self.inner,
                hop=hop or self.inner,
                root=self.root,
                workers=self.workers,
                disabled=disabled,
            )
        )

    def start(self) -> None:
        before = self.log.read_text().count('"listening"') if self.log.exists() else 0
        with self.log.open("ab") as log:
            command = [sys.executable, "-W", "error", "-m", "smtpmaild", "--config", str(self.root / "smtp.yaml")]
            self.process = subprocess.Popen([*command, *["--allow-root"] * (os.geteuid() == 0)], stderr=log, cwd=ROOT)
        until(lambda: self.log.read_text().count('"listening"') >= before + 2, "listening")

    def tell(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGHUP:
            return 0
        return self.process.wait(20)

    def send(self, *to: str, count: int = 1, body: str = "") -> None:
        with smtplib.SMTP("127.0.0.1", self.outer, timeout=20) as client:
            for number in range(count):
                client.sendmail("a@x.example", to, f"Subject: {number}\r\n\r\n{body or 'Hello'}\r\n")

    def arrived(self, domain: str = "far.example") -> list[bytes]:
        return [path.read_bytes() for path in (self.root / "mail" / domain).glob("*/new/*")]

    def reports(self) -> list[EmailMessage]:
        """What bob of local.example was told."""
        found = [email.message_from_bytes(one, policy=email.policy.default) for one in self.arrived("local.example")]
        return [one for one in found if isinstance(one, EmailMessage) and one["Auto-Submitted"] == "auto-replied"]


def until(is_so: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.fixture
def daemon(tmp_path: Path, request: pytest.FixtureRequest) -> Daemon:
    daemon = Daemon(tmp_path, workers=getattr(request, "param", 1))
    daemon.configure()

    def end() -> None:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()

    request.addfinalizer(end)
    return daemon


def test_mail_travels_on(daemon: Daemon) -> None:
    daemon.start()
    daemon.send("bob@far.example", "Carol@next.example", count=10)
    daemon.send("bob@far.example", body="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 5000)
    until(lambda: len(daemon.arrived()) == 11 and len(daemon.arrived("next.example")) == 10, "all of it")
    (large,) = [one for one in daemon.arrived() if len(one) > 100_000]
    assert large.count(b"y" * 70) == 5000
    assert large.count(b"Received: ") == 2
    until(lambda: daemon.log.read_text().count('"delivered"') == 21, "told")
    assert [one for one in (daemon.root / "queue" / "bodies").rglob("*") if one.is_file()] == []
    assert daemon.tell(signal.SIGTERM) == 0
    assert '"stopped"' in daemon.log.read_text()


def test_local_mailboxes_may_be_elsewhere(daemon: Daemon) -> None:
    daemon.start()
    with smtplib.SMTP("127.0.0.1", daemon.outer, timeout=20) as client:
        refused = client.sendmail(
            "a@x.example", ["dora+x@queued.example", "nobody@queued.example"], "Subject: x\r\n\r\n"
        )
    assert set(refused) == {"nobody@queued.example"}
    until(lambda: '"delivered"' in daemon.log.read_text(), "handed on")
    assert '"recipient":"dora+x@queued.example"' in daemon.log.read_text()
    assert b"Subject: x" in (daemon.root / "piped").read_bytes()


def test_alias_leads_out(daemon: Daemon) -> None:
    daemon.start()
    daemon.send("away@local.example")
    until(lambda: len(daemon.arrived()) == 1 and len(daemon.arrived("local.example")) == 1, "both copies")


def test_mail_waits_for_its_next_hop_and_survives_a_kill(daemon: Daemon) -> None:
    daemon.configure(hop=free_port())
    daemon.start()
    daemon.send("bob@far.example", count=5)
    until(lambda: '"deferred"' in daemon.log.read_text(), "tried")
    daemon.tell(signal.SIGKILL)
    daemon.configure()  # the corrected config heals what waits
    daemon.start()
    until(lambda: len(daemon.arrived()) == 5, "after the kill")


def test_reload_hands_the_queue_over(daemon: Daemon) -> None:
    daemon.configure(hop=free_port())
    daemon.start()
    # A session of the plan before keeps its generation alive.
    with smtplib.SMTP("127.0.0.1", daemon.outer, timeout=20) as client:
        client.sendmail("a@x.example", ["bob@far.example"], "Subject: 1\r\n\r\nHello\r\n")
        until(lambda: '"deferred"' in daemon.log.read_text(), "tried")
        daemon.configure()
        daemon.tell(signal.SIGHUP)
        until(lambda: '"reloaded"' in daemon.log.read_text(), "reloaded")
        client.sendmail("a@x.example", ["bob@far.example"], "Subject: 2\r\n\r\nHello\r\n")
        until(lambda: len(daemon.arrived()) == 2, "by the new plan")
    assert daemon.tell(signal.SIGTERM) == 0


@pytest.mark.parametrize("daemon", [2], indirect=True)
def test_each_worker_has_its_part_and_fewer_workers_take_over(daemon: Daemon) -> None:
    daemon.configure(hop=free_port())
    daemon.start()
    for _ in range(12):
        daemon.send("bob@far.example")
    until(lambda: daemon.log.read_text().count('"deferred"') >= 2, "tried")
    assert daemon.tell(signal.SIGTERM) == 0
    assert sorted(path.name for path in (daemon.root / "queue").glob("*.sqlite")) == [
        "queue-0.sqlite",
        "queue-1.sqlite",
    ]
    daemon.workers = 1
    daemon.configure()
    daemon.start()
    until(lambda: len(daemon.arrived()) == 12, "all of both")
    assert [path.name for path in (daemon.root / "queue").glob("*.sqlite")] == ["queue-0.sqlite"]


def fields(report: EmailMessage) -> dict[str, str]:
    """Of the recipient in a report about one."""
    group = [*report.iter_parts()][1].get_payload(1)
    return {key: group[key] for key in ("Final-Recipient", "Action", "Status", "Diagnostic-Code")}  # type: ignore[index]


def test_sender_is_told_what_the_next_hop_said(daemon: Daemon) -> None:
    daemon.start()
    with smtplib.SMTP("127.0.0.1", daemon.outer, timeout=20) as client:
        client.ehlo()
        assert client.has_extn("dsn")
        text = "Subject: x\r\n\r\nMy words\r\n"
        client.sendmail(
            "bob@local.example", ["x@refused.example"], text, ["RET=FULL"], ["ORCPT=rfc822;X@refused.example"]
        )
    until(daemon.reports, "told")
    (report,) = daemon.reports()
    assert report["To"] == "bob@local.example"
    assert report["Return-Path"] == "<>"
    assert fields(report) == {
        "Final-Recipient": "rfc822; x@refused.example",
        "Action": "failed",
        "Status": "5.7.1",
        "Diagnostic-Code": "smtp; 550 5.7.1 Relaying denied",
    }
    assert b"My words" in bytes([*report.iter_parts()][2])


def test_sender_is_told_of_the_alias_it_wrote_to(daemon: Daemon) -> None:
    daemon.start()
    with smtplib.SMTP("127.0.0.1", daemon.outer, timeout=20) as client:
        client.sendmail("bob@local.example", ["Moved@local.example"], "Subject: x\r\n\r\n")
    until(daemon.reports, "told")
    (report,) = daemon.reports()
    assert fields(report)["Final-Recipient"] == "rfc822; Moved@local.example"
    assert "<Moved@local.example>" in next(iter(report.iter_parts())).get_content()
    assert b"x@refused.example" not in bytes(report)


def test_success_is_told_where_it_is_wanted(daemon: Daemon) -> None:
    daemon.configure(disabled="DSN")
    daemon.start()
    with smtplib.SMTP("127.0.0.1", daemon.outer, timeout=20) as client:
        wanted = ["NOTIFY=SUCCESS"]
        client.sendmail("bob@local.example", ["bob@local.example"], "Subject: 1\r\n\r\n", rcpt_options=wanted)
        client.sendmail("bob@local.example", ["carol@far.example"], "Subject: 2\r\n\r\n", rcpt_options=wanted)
        client.sendmail("bob@local.example", ["carol@far.example"], "Subject: 3\r\n\r\n")
    until(lambda: len(daemon.reports()) == 2 and len(daemon.arrived()) == 2, "told")
    told = sorted((one["Action"], one["Final-Recipient"]) for one in map(fields, daemon.reports()))
    assert told == [("delivered", "rfc822; bob@local.example"), ("relayed", "rfc822; carol@far.example")]


def test_people_steer_the_queue_of_a_running_daemon(daemon: Daemon) -> None:
    def queue(*arguments: str) -> str:
        command = [sys.executable, "-m", "smtpmaild", "queue", arguments[0], "-c", str(daemon.root / "smtp.yaml")]
        return subprocess.run([*command, *arguments[1:]], capture_output=True, text=True, check=True, cwd=ROOT).stdout

    daemon.configure(hop=free_port())
    daemon.start()
    with smtplib.SMTP("127.0.0.1", daemon.outer, timeout=20) as client:
        for name in ("kept", "returned", "dropped"):
            client.sendmail("bob@local.example", [f"{name}@far.example"], "Subject: x\r\n\r\nHello\r\n")
    until(lambda: '"deferred"' in daemon.log.read_text(), "tried")
    # What is tried again at this moment is left alone, so a command may need to be said twice.
    until(lambda: "kept@" in queue("hold", "--recipient", "kept@far.example"), "held")
    until(lambda: "dropped@" in queue("drop", "--recipient", "dropped@far.example", "--yes"), "dropped")
    until(
        lambda: "returned@" in queue("bounce", "--recipient", "returned@far.example", "--yes", "--why", "spam"), "back"
    )
    until(lambda: len(daemon.arrived("local.example")) == 1, "the report")
    assert b"554 5.7.0 spam" in daemon.arrived("local.example")[0]
    assert queue("list").count("far.example") == 1
    daemon.configure()
    daemon.tell(signal.SIGHUP)
    until(lambda: '"reloaded"' in daemon.log.read_text(), "reloaded")
    queue("release", "--all")
    until(lambda: len(daemon.arrived()) == 1, "released")
