"""Doors of different roles in one daemon, as clients meet them: what each demands, adds, hides and limits."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path

import bcrypt
import pytest
from authority import client_context, issue
from daemons import Daemon, Lines, running

#: Port 0 is one for each address.
SUBMISSION, SUBMISSIONS, OFFICE = "127.0.0.3", "127.0.0.4", "127.0.0.5"
LISTENERS = """\
  - {name: submission, listen: ["127.0.0.3:0"], role: submission, hide_client: true}
  - {name: submissions, listen: ["127.0.0.4:0"], role: submission, tls: implicit, policies: {senders: {own: false}}}
  - {name: office, listen: ["127.0.0.5:0"], role: internal, limits: {connections: 1, message_size: 1 KB}}
"""
MORE = """\
tls: {{certificates: [{{certificate: {pair.certificate}, key: {pair.key}}}]}}
accounts: {{users_file: users}}
relay_rules:
  - {{name: who signed in, authenticated: true, tls: true, to_domains: [far.example], deliver: mail}}
policies: {{senders: {{users: {{bob: news-*@example.com}}}}}}
"""
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder: Path = tmp_path_factory.mktemp("roles")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (folder / "users").write_text(f"alice@example.com:{hashed}\nbob:{hashed}\n")
    (folder / "users").chmod(0o600)
    with running(folder, LISTENERS, MORE.format(pair=issue(folder, SUBMISSION, SUBMISSIONS))) as daemon:
        yield daemon


def submitting(daemon: Daemon, user: str) -> smtplib.SMTP:
    client = smtplib.SMTP(SUBMISSION, daemon.port("submission"))
    client.starttls(context=client_context())
    client.login(user, PASSWORD)
    return client


def test_submission_completes_a_message_and_hides_where_it_was_written(daemon: Daemon) -> None:
    with submitting(daemon, "alice@example.com") as client:
        client.sendmail("alice@example.com", ["complete@example.com"], "From: alice@example.com\n\nhello\n")
    (raw,) = daemon.raw("complete")
    message: Message = message_from_bytes(raw)
    assert [name for name, _ in message.items()] == [
        "Return-Path", "Delivered-To", "Received", "Date", "Message-ID", "From"
    ]  # fmt: skip
    assert message["Received"].startswith("by mx.example.com with ESMTPSA id ")
    assert "127.0.0." not in raw.decode()
    assert parsedate_to_datetime(message["Date"]).tzinfo is not None
    assert message["Message-ID"].endswith("@mx.example.com>")
    assert message.get_payload() == "hello\n"


def test_submission_leaves_a_whole_message_alone(daemon: Daemon) -> None:
    text = "Message-ID: <x@y>\nSubject: x\nDate: Sun, 22 Nov 2026 15:00:41 +0000\n\nhello\n"
    with submitting(daemon, "bob") as client:
        client.sendmail("bob@example.com", ["whole@example.com"], text)
    (raw,) = daemon.raw("whole")
    assert raw.decode().endswith("\n" + text)
    assert raw.decode().lower().count("date:") == 1


def test_users_send_as_themselves(daemon: Daemon) -> None:
    with submitting(daemon, "alice@example.com") as client:
        assert client.mail("bob@example.com") == (
            553,
            b"5.7.1 Sender address rejected: not owned by the user who has signed in",
        )
        assert client.mail("eve@elsewhere.example")[0] == 553
        assert client.mail("alice+list@example.com")[0] == 250
        client.rset()
        assert client.mail("")[0] == 250  # as notifications have it
    with submitting(daemon, "bob") as client:
        assert client.mail("news-2026@example.com")[0] == 250
    with smtplib.SMTP_SSL(SUBMISSIONS, daemon.port("submissions"), context=client_context()) as client:
        client.login("bob", PASSWORD)
        assert client.mail("bob@example.com")[0] == 553  # this door lists what it wants
        assert client.mail("news-2026@example.com")[0] == 250


def test_submission_wants_both_and_says_so(daemon: Daemon) -> None:
    with smtplib.SMTP(SUBMISSION, daemon.port("submission")) as client:
        client.ehlo()
        assert client.has_extn("starttls") and not client.has_extn("auth")
        assert client.mail("alice@example.com")[0] == 530
        client.starttls(context=client_context())
        client.ehlo()
        assert client.has_extn("auth") and not client.has_extn("starttls")
        assert client.mail("alice@example.com")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("alice@example.com", "wrong")
        client.login("alice@example.com", PASSWORD)
        assert client.mail("alice@example.com")[0] == 250


def test_rules_let_in_who_signed_in(daemon: Daemon) -> None:
    with submitting(daemon, "bob") as client:
        assert client.sendmail("bob@example.com", ["out@far.example"], "Subject: x\n\nout\n") == {}
    assert len(daemon.raw("out", "far.example")) == 1
    with smtplib.SMTP("127.0.0.1", daemon.port()) as client, pytest.raises(smtplib.SMTPRecipientsRefused):
        client.sendmail("bob@example.com", ["out@far.example"], "Subject: x\n\nout\n")


def test_the_office_is_patient_and_small(daemon: Daemon) -> None:
    with Lines(daemon.port("office"), OFFICE) as printer:
        printer.socket.sendall(b"EHLO not a name\nMAIL FROM:<scan@example.com>\nRCPT TO:<scans@example.com>\nDATA\n")
        assert printer.codes(5) == ["220", "250", "250", "250", "354"]
        printer.socket.sendall(b"Subject: scan\r\n\r\n" + b"x" * 1000 + b"\r\n.\r\n")
        assert printer.codes(1) == ["552"]
        with Lines(daemon.port("office"), OFFICE) as another:
            assert another.codes(1) == ["421"]
        with Lines(daemon.port()) as elsewhere:
            assert elsewhere.codes(1) == ["220"]
