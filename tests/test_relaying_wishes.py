"""What senders may ask for beside where mail goes, by clients that others wrote: times, TLS all the way, ETRN.

One daemon has it all: the doors that take mail, and the door that is the next hop.
"""

from __future__ import annotations

import smtplib
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from authority import authority, issue, write_ca
from ports import free_port
from test_relaying import Daemon, until

from smtpmaild.auth.scram import ScramKeys

CONFIG = """\
hostname: localhost
tls: {{certificates: [{{certificate: "{root}/localhost.pem", key: "{root}/localhost.key"}}]}}
accounts: {{users_file: "{root}/users"}}
listeners:
  - {{name: outer, listen: ["127.0.0.1:{outer}"], tls: optional, etrn_from: [127.0.0.0/8]}}
  - {{name: inner, listen: ["127.0.0.1:{inner}"], tls: optional}}
  - {{name: people, listen: ["127.0.0.1:{people}"], role: submission, policies: {{senders: {{mode: "off"}}}}}}
local_domains: {{local.example: {{deliver: mail, mailboxes: [bob]}}}}
deliver_to: {{mail: {{type: maildir, path: "{root}/mail/{{domain}}/{{mailbox}}"}}}}
relay_rules:
  - {{name: arrived, listeners: [inner], to_domains: [safe.example, clear.example], deliver: mail}}
  - {{name: safe, to_domains: [safe.example], from_networks: [127.0.0.0/8], relay: safe}}
  - {{name: clear, to_domains: [clear.example], from_networks: [127.0.0.0/8], relay: clear}}
  - {{name: dead, to_domains: [dead.example], from_networks: [127.0.0.0/8], relay: dead}}
relays:
  safe: {{host: localhost, ip: [ipv4], port: {inner}, tls: verify, ca_file: "{root}/ca.pem"}}
  clear: {{host: localhost, ip: [ipv4], port: {inner}, tls: none}}
  dead: {{host: 127.0.0.1, port: {dead}}}
queue: {{path: "{root}/queue", retry_first: 10m}}
logging: {{format: json}}
"""
USERS = f"alice:{{SCRAM-SHA-256}}{ScramKeys.of_password('secret', b'salt', 4096).format()}\n"


class Wishing(Daemon):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.people = free_port()
        issue(root, "localhost")
        ca_file = write_ca(root)
        text = CONFIG.format(
            root=root, outer=self.outer, inner=self.inner, people=self.people, dead=free_port()
        ).replace(f"{root}/ca.pem", ca_file)
        (root / "smtp.yaml").write_text(text)
        (root / "users").write_text(USERS)
        (root / "users").chmod(0o600)

    def client(self, port: int) -> smtplib.SMTP:
        context = ssl.create_default_context()
        authority().configure_trust(context)
        client = smtplib.SMTP("localhost", port, timeout=20)
        client.starttls(context=context)
        client.ehlo()
        return client

    def ask(self, to: str, *wishes: str, port: int = 0) -> None:
        with self.client(port or self.outer) as client:
            if port:
                client.login("alice", "secret")
            assert client.mail("bob@local.example", wishes)[0] == 250
            assert client.rcpt(to)[0] == 250
            assert client.data(f"Subject: {to}\r\n\r\nHello\r\n")[0] == 250

    def told(self) -> list[str]:
        return [str(report) for report in self.reports()]


@pytest.mark.debian
def test_wishes_of_senders(tmp_path: Path, needs_program: Callable[[str], str]) -> None:
    perl = needs_program("perl")
    daemon = Wishing(tmp_path)
    daemon.start()
    try:
        began = time.time()
        daemon.ask("bob@local.example", "HOLDFOR=2", port=daemon.people)
        daemon.ask("user@dead.example", "BY=2;R", "RET=HDRS")
        daemon.ask("user@safe.example", "REQUIRETLS")
        daemon.ask("user@clear.example", "REQUIRETLS")
        until(lambda: daemon.arrived("safe.example"), "mail within verified TLS")
        (safe,) = daemon.arrived("safe.example")
        assert safe.count(b"with ESMTPS") == 2

        daemon.ask("late@dead.example")
        until(lambda: daemon.log.read_text().count('"deferred"') == 2, "a first try of both")
        script = (
            "use Net::SMTP; $c = Net::SMTP->new('127.0.0.1', Port => $ARGV[0]) or die; print $c->etrn('dead.example')"
        )
        script += "? 'ok ' : 'not ', $c->message"
        done = subprocess.run([perl, "-e", script, str(daemon.outer)], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("ok ") and "pending messages for node dead.example started" in done.stdout
        until(lambda: daemon.log.read_text().count('"deferred"') >= 3, "another try")

        until(lambda: len(daemon.told()) == 2 and len(daemon.arrived("local.example")) == 3, "all that is told")
        secret, late = sorted(daemon.told(), key=lambda text: "dead.example" in text)
        assert "Status: 5.7.10" in secret
        assert "Status: 5.4.7" in late and "Deliver-By-Date: " in late
        assert time.time() - began >= 2
        assert daemon.arrived("clear.example") == []
    finally:
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait()
