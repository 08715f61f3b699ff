"""Clients of LMTP that are not ours, over TCP and over a Unix socket: each recipient is told of its own mailbox."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from authority import issue, write_ca
from daemons import PATIENCE, ROOT, Daemon, Lines, write_config
from postfix import open_folder, postfix

NeedsProgram = Callable[[str], str]
TEXT = "Subject: test\n\n.leading dot\n..two\n.\nlast line\n"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    """Two of its mailboxes cannot be made: there is a file where they should be."""
    listener = "  - {name: lmtp, listen: ['127.0.0.3:0', ./lmtp.sock], role: lmtp, socket_mode: 0666}"
    home = folder / "smtpmaild"
    home.mkdir(mode=0o755)
    broken = home / "mail" / "example.com"
    broken.mkdir(parents=True)
    (broken / "broken").write_text("")
    (broken / "broken-too").write_text("")
    daemon = Daemon(home, listeners=listener)
    try:
        daemon.port("lmtp")
        yield daemon
    finally:
        status = daemon.stop()
    assert status == 0
    assert not (home / "lmtp.sock").exists()
    assert daemon.facts("session_failed") == []


@pytest.fixture
def path(daemon: Daemon) -> str:
    return str(daemon.folder / "lmtp.sock")


def connect(daemon: Daemon, path: str, kind: str) -> smtplib.LMTP:
    return smtplib.LMTP(path) if kind == "unix" else smtplib.LMTP("127.0.0.3", daemon.port("lmtp"))


def facts_of(daemon: Daemon, recipient: str) -> list[dict[str, Any]]:
    """What was logged of its messages; the log is written a moment later."""
    end = time.monotonic() + PATIENCE
    while not (found := [fact for fact in daemon.facts("message_accepted") if recipient in fact["recipients"]]):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


KINDS = pytest.mark.parametrize("kind", ["tcp", "unix"])


@KINDS
def test_smtplib(daemon: Daemon, path: str, kind: str) -> None:
    with connect(daemon, path, kind) as client:
        client.ehlo("client.example")  # says LHLO
        assert client.has_extn("pipelining")
        for number in range(2):
            assert client.sendmail("a@client.example", [f"smtplib-{kind}@example.com"], f"S: {number}\n\n{TEXT}") == {}
    assert daemon.stored(f"smtplib-{kind}") == [f"S: {number}\n\n{TEXT}".encode() for number in range(2)]
    assert all(b" with LMTP id " in raw for raw in daemon.raw(f"smtplib-{kind}"))


@KINDS
def test_each_recipient_is_told_of_its_own_mailbox(daemon: Daemon, path: str, kind: str) -> None:
    recipients = [f"{name}@example.com" for name in ("broken", f"own-{kind}", "broken-too", f"own-{kind}")]
    with connect(daemon, path, kind) as client:
        client.ehlo("client.example")
        client.mail("")
        for recipient in recipients:
            assert client.rcpt(recipient)[0] == 250
        assert client.rcpt("a@elsewhere.example")[0] == 550
        first = client.data(TEXT)[0]  # smtplib reads one reply, we read the others
        assert [first, *(client.getreply()[0] for _ in recipients[1:])] == [451, 250, 451, 250]
        assert client.noop()[0] == 250
    assert daemon.stored(f"own-{kind}") == [TEXT.encode()]
    (fact,) = facts_of(daemon, recipients[1])
    assert [reply[:3] for reply in fact["replies"]] == ["451", "250", "451", "250"]
    assert fact["peer"] == "local" or kind == "tcp"
    assert {failure["error"] for failure in daemon.facts("store_failed")} <= {"ENOTDIR"}


def test_chunks(daemon: Daemon) -> None:
    with Lines(daemon.port("lmtp"), "127.0.0.3") as client:
        client.socket.sendall(
            b"LHLO c\r\nMAIL FROM:<> SMTPUTF8\r\nRCPT TO:<broken@example.com>\r\nRCPT TO:<chunks@example.com>\r\n"
            b"BDAT 6\r\n\r\nabc\rBDAT 2 LAST\r\n\n\nQUIT\r\n".replace(b"\n\nQUIT", b"\n!QUIT")
        )
        assert client.codes(9) == ["220", "250", "250", "250", "250", "250", "451", "250", "221"]
    (raw,) = daemon.raw("chunks")
    assert raw.endswith(b"\nabc\n!")
    assert b" with UTF8LMTP id " in raw


def test_smtp_clients_are_told(daemon: Daemon) -> None:
    with smtplib.SMTP("127.0.0.3", daemon.port("lmtp")) as client:
        assert client.ehlo("client.example") == (500, b"5.5.1 This is LMTP: say LHLO")
        assert client.helo("client.example") == (500, b"5.5.1 This is LMTP: say LHLO")


def test_socket_has_its_mode(path: str) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666


def test_stdin(tmp_path: Path) -> None:
    config = write_config(tmp_path, listeners="  - {name: lmtp, listen: ['127.0.0.3:0'], role: lmtp}")
    session = (
        b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<one@example.com>\r\nRCPT TO:<two@example.com>\r\nDATA\r\n.\r\nQUIT\r\n"
    )
    command = [sys.executable, "-W", "error", "-m", "smtpmaild", "--stdin", "--allow-root", "--listener", "lmtp"]
    ran = subprocess.run(
        [*command, "--config", config], input=session, capture_output=True, timeout=PATIENCE, cwd=ROOT, check=True
    )
    last = [line[:4] for line in ran.stdout.decode().splitlines() if line[3] == " "]
    assert last == ["220 ", "250 ", "250 ", "250 ", "250 ", "354 ", "250 ", "250 ", "221 "]


def test_healthcheck(daemon: Daemon, path: str, tmp_path: Path) -> None:
    """Asks a listener for its banner; here the socket is all there is."""
    config = tmp_path / "smtp.yaml"
    config.write_text(
        f"hostname: mx.example.com\nlisteners: [{{name: lmtp, listen: [{path}], protocol: lmtp}}]\n"
        "local_domains: {example.com: {deliver: mail}}\ndeliver_to: {mail: {type: discard}}\n"
    )
    command = [sys.executable, "-m", "smtpmaild", "healthcheck", "--config", str(config)]
    ran = subprocess.run(command, capture_output=True, timeout=PATIENCE, cwd=ROOT, check=False)
    assert (ran.returncode, ran.stdout.decode()) == (0, f"{path}: 220 mx.example.com LMTP Service ready\n")


def test_socket_that_somebody_else_opened(tmp_path: Path) -> None:
    """As systemd does: its mode and owner are those of the unit file."""
    path = tmp_path / "inherited.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o600)
        listener = "  - {name: lmtp, listen: ['systemd:lmtp'], role: lmtp}"
        daemon = Daemon(tmp_path, listeners=listener, inherited={"lmtp": listening})
        try:
            daemon.port()
            with smtplib.LMTP(str(path)) as client:
                assert client.sendmail("", ["inherited@example.com"], TEXT) == {}
        finally:
            assert daemon.stop() == 0
    assert daemon.stored("inherited") == [TEXT.encode()]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_over_tls(tmp_path: Path) -> None:
    """As from a server elsewhere: STARTTLS forgets all, LHLO comes again."""
    pair = issue(tmp_path)
    ca = write_ca(tmp_path)
    listener = f"""
  - {{name: lmtp, listen: ['127.0.0.3:0'], role: lmtp, tls: required}}
tls: {{certificates: [{{certificate: {pair.certificate}, key: {pair.key}}}]}}
"""
    daemon = Daemon(tmp_path, listeners=listener)
    try:
        with smtplib.LMTP("127.0.0.3", daemon.port("lmtp")) as client:
            client._host = "mx.example.com"  # type: ignore[attr-defined]  # the name that it wants to see
            client.ehlo("client.example")
            assert client.mail("")[0] == 530
            client.starttls(context=ssl.create_default_context(cafile=ca))
            assert client.mail("")[0] == 503
            client.ehlo("client.example")
            assert not client.has_extn("starttls")
            assert client.sendmail("", ["secret@example.com"], TEXT) == {}
    finally:
        assert daemon.stop() == 0
    (raw,) = daemon.raw("secret")
    assert b" with LMTPS " in raw


# Programs of Debian


@pytest.mark.debian
@KINDS
def test_swaks(daemon: Daemon, needs_program: NeedsProgram, path: str, tmp_path: Path, kind: str) -> None:
    message = tmp_path / "message"
    message.write_text(TEXT)
    server = ("--socket", path) if kind == "unix" else ("--server", f"127.0.0.3:{daemon.port('lmtp')}")
    ran = subprocess.run(
        [
            needs_program("swaks"), "--protocol", "LMTP", *server, "--from", "a@client.example", "--helo", "c.example",
            "--to", f"swaks1-{kind}@example.com,swaks2-{kind}@example.com", "--data", str(message),
        ],
        capture_output=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    output = ran.stdout.decode()
    assert ran.returncode == 0, output
    assert output.count("Ok: queued as ") == 2
    for mailbox in ("swaks1", "swaks2"):
        (stored,) = daemon.stored(f"{mailbox}-{kind}")
        assert stored.rstrip(b"\n") + b"\n" == TEXT.encode()


@pytest.mark.debian
@pytest.mark.skipif(os.geteuid() != 0, reason="Postfix starts as root only")
@KINDS
def test_postfix_hands_over(daemon: Daemon, needs_program: NeedsProgram, path: str, kind: str) -> None:
    """One mailbox cannot be written: Postfix keeps the message for that one, and sends it again when it can be."""
    program = needs_program("postfix")
    alice, bob, later = (f"{name}-{kind}" for name in ("alice", "bob", "later"))
    blocked = daemon.maildir(later)
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("")
    target = f"unix:{path}" if kind == "unix" else f"inet:127.0.0.3:{daemon.port('lmtp')}"
    settings = {
        "virtual_mailbox_domains": "example.com",
        "virtual_transport": f"lmtp:{target}",
        "lmtp_destination_recipient_limit": "100",
    }
    with open_folder() as folder, postfix(folder, program, settings) as relay:
        recipients = [f"{name}@example.com" for name in (alice, later, bob)]
        relay.send("a@client.example", [*recipients, "no@sub.example.com"], TEXT.encode())
        statuses = {address: (status, said) for address, status, said in relay.wait_for("lmtp", 3)}
        assert [statuses[address][0] for address in recipients] == ["sent", "deferred", "sent"]
        assert "451 4.3.0 Message could not be stored" in statuses[recipients[1]][1]
        blocked.unlink()
        relay.flush()
        assert relay.wait_for("lmtp", 4)[3][:2] == (recipients[1], "sent")
    for mailbox in (alice, bob, later):
        (stored,) = daemon.stored(mailbox)
        assert stored.endswith(TEXT.partition("\n\n")[2].encode())  # Postfix adds to the header
        assert stored.startswith(b"Received: by relay.example.net (Postfix")
    (fact,) = facts_of(daemon, recipients[0])
    assert sorted(fact["recipients"]) == sorted(recipients)  # one transaction for all of them
    assert fact["helo"] == "relay.example.net"


DOVECOT = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
ssl = no
protocols = lmtp
lmtp_proxy = yes
passdb {{
  driver = static
  args = proxy=y host=127.0.0.3 port={port} protocol=lmtp nopassword=y
}}
service lmtp {{
  unix_listener {folder}/lmtp.sock {{
    mode = 0600
  }}
}}
"""


@pytest.mark.debian
@pytest.mark.skipif(os.geteuid() != 0, reason="Dovecot starts as root only")
def test_dovecot_passes_on(daemon: Daemon, needs_program: NeedsProgram) -> None:
    """Its LMTP proxy keeps one transaction for all, pipelines, and hands our replies back."""
    needs_program("/usr/lib/dovecot/lmtp")
    program = needs_program("dovecot")
    with open_folder() as folder:
        settings = folder / "dovecot.conf"
        settings.write_text(DOVECOT.format(folder=folder, port=daemon.port("lmtp")))
        with subprocess.Popen([program, "-F", "-c", settings]) as proxy:
            try:
                end = time.monotonic() + PATIENCE
                while not (folder / "lmtp.sock").exists():
                    assert proxy.poll() is None and time.monotonic() < end
                    time.sleep(0.05)
                with smtplib.LMTP(str(folder / "lmtp.sock")) as client:
                    client.ehlo("client.example")
                    client.mail("a@client.example")
                    recipients = ["dovecot1@example.com", "broken@example.com", "dovecot2@example.com"]
                    assert [client.rcpt(recipient)[0] for recipient in recipients] == [250] * 3
                    assert client.rcpt("a@elsewhere.example")[0] == 550
                    replies = [client.data(TEXT), client.getreply(), client.getreply()]
            finally:
                proxy.terminate()
    assert [code for code, _ in replies] == [250, 451, 250]
    assert replies[1][1].endswith(b"Message could not be stored, try again later")
    for mailbox in ("dovecot1", "dovecot2"):
        (stored,) = daemon.stored(mailbox)
        assert stored.endswith(TEXT.encode())
    (fact,) = facts_of(daemon, recipients[0])
    assert fact["recipients"] == recipients


def test_example_has_the_lines_that_were_tried() -> None:
    example = (ROOT / "config" / "examples" / "lmtp-behind-postfix.yaml").read_text()
    for line in (
        "virtual_mailbox_domains = example.com",
        "virtual_transport = lmtp:unix:/run/smtpmaild/lmtp.sock",
        "lmtp_destination_recipient_limit = 100",
        "lmtp      unix  -       -       n       -       -       lmtp",
    ):
        assert f"#     {line}\n" in example
