"""Clients that are not ours hand in mail; it is in the Maildir when they are told so."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from daemons import PATIENCE, Daemon, Lines, running

NeedsProgram = Callable[[str], str]
TEXT = "Subject: test\n\n.leading dot\n..two\n.\nlast line\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("clients")) as daemon:
        yield daemon


@pytest.fixture
def message(tmp_path: Path) -> str:
    path = tmp_path / "message"
    path.write_text(TEXT)
    return str(path)


def command(*arguments: str) -> str:
    ran = subprocess.run(arguments, capture_output=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)
    output = ran.stdout.decode() + ran.stderr.decode()
    assert ran.returncode == 0, output
    return output


# Python's smtplib


def test_smtplib_sends_several_in_one_session(daemon: Daemon) -> None:
    with smtplib.SMTP("127.0.0.1", daemon.port()) as client:
        client.ehlo("client.example")
        assert client.has_extn("pipelining")
        for number in range(3):
            refused = client.sendmail("a@client.example", ["smtplib@example.com"], f"Subject: {number}\n\n{TEXT}")
            assert refused == {}
        assert client.noop()[0] == 250
        assert client.rset()[0] == 250
        assert client.vrfy("smtplib@example.com")[0] == 252
    assert daemon.stored("smtplib") == [f"Subject: {number}\n\n{TEXT}".encode() for number in range(3)]


def test_smtplib_is_told_of_refused_recipients(daemon: Daemon) -> None:
    with smtplib.SMTP("127.0.0.1", daemon.port()) as client:
        refused = client.sendmail("a@client.example", ["partly@example.com", "a@elsewhere.example"], TEXT)
        assert refused == {"a@elsewhere.example": (550, b"5.7.1 Relaying denied")}
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@client.example", ["a@elsewhere.example"], TEXT)
        assert client.mail("a@client.example", ["SIZE=99999999"])[0] == 552
    assert len(daemon.stored("partly")) == 1


def test_smtplib_sends_to_addresses_beyond_ascii(daemon: Daemon) -> None:
    message = EmailMessage()
    message["From"] = "jürgen@client.example"
    message["To"] = "грета@bücher.example"
    message["Subject"] = "Grüße"
    message.set_content("Schöne Grüße\n", cte="8bit")
    with smtplib.SMTP("127.0.0.1", daemon.port()) as client:
        assert client.send_message(message) == {}
    (raw,) = daemon.raw("грета", "xn--bcher-kva.example")
    assert " with UTF8SMTP id " in raw.decode()
    assert raw.decode().startswith("Return-Path: <jürgen@client.example>\nDelivered-To: грета@")
    (stored,) = daemon.stored("грета", "xn--bcher-kva.example")
    assert stored.decode().endswith("\n\nSchöne Grüße\n")


def test_several_recipients_have_a_copy_each(daemon: Daemon) -> None:
    recipients = ["several1@example.com", "several2+tag@example.com", "several2@example.com"]
    with smtplib.SMTP("127.0.0.1", daemon.port()) as client:
        client.sendmail("", recipients, TEXT)
    assert daemon.stored("several1") == daemon.stored("several2") == [TEXT.encode()]
    assert b"Return-Path: <>\n" in daemon.raw("several1")[0]


# A raw socket


def test_a_whole_session_in_one_packet(daemon: Daemon) -> None:
    body = b"Subject: raw\r\n\r\nhello\r\n"
    data = b"EHLO c.example\r\n" + 2 * (
        b"MAIL FROM:<a@c.example> SIZE=30\r\nRCPT TO:<raw@example.com>\r\nRCPT TO:<a@elsewhere.example>\r\nDATA\r\n"
        + body
        + b".\r\n"
    )
    with Lines(daemon.port()) as client:
        client.socket.sendall(data + b"QUIT\r\n")
        assert client.codes(13) == ["220", "250", *["250", "250", "550", "354", "250"] * 2, "221"]
        assert client.socket.recv(1) == b""
    assert daemon.stored("raw") == [b"Subject: raw\n\nhello\n"] * 2


def test_a_whole_session_byte_by_byte(daemon: Daemon) -> None:
    with Lines(daemon.port()) as client:
        for byte in b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<bytes@example.com>\r\nDATA\r\n..x\r\n\r\n.\r\nQUIT\r\n":
            client.socket.sendall(bytes([byte]))
        assert client.codes(7) == ["220", "250", "250", "250", "354", "250", "221"]
    assert daemon.stored("bytes") == [b".x\n\n"]


def test_chunks_are_kept_as_they_are(daemon: Daemon) -> None:
    with Lines(daemon.port()) as client:
        client.socket.sendall(
            b"EHLO c\r\nMAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<binary@example.com>\r\n"
            b"BDAT 6\r\n\x00\r\n.\r\nBDAT 4 LAST\r\n\nx\r\xffQUIT\r\n"
        )
        assert client.codes(7) == ["220", "250", "250", "250", "250", "250", "221"]
    (raw,) = daemon.raw("binary")
    assert raw.endswith(b"\x00\r\n.\r\n\nx\r\xff")


def test_a_client_that_goes_in_mid_message_leaves_nothing(daemon: Daemon) -> None:
    with Lines(daemon.port()) as client:
        client.socket.sendall(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<gone@example.com>\r\nDATA\r\nhalf a mess")
        client.codes(5)
    with smtplib.SMTP("127.0.0.1", daemon.port()) as other:
        other.sendmail("", ["gone@example.com"], TEXT)
    assert daemon.stored("gone") == [TEXT.encode()]


# Programs of Debian


@pytest.mark.debian
@pytest.mark.parametrize("options", [(), ("--pipeline",), ("--protocol", "SMTP")], ids=" ".join)
def test_swaks(daemon: Daemon, needs_program: NeedsProgram, message: str, options: tuple[str, ...]) -> None:
    mailbox = "swaks" + "".join(options).replace("-", "").lower()
    output = command(
        needs_program("swaks"), "--server", f"127.0.0.1:{daemon.port()}", "--from", "a@client.example",
        "--to", f"{mailbox}@example.com", "--helo", "client.example", "--data", message, *options,
    )  # fmt: skip
    assert "Ok: queued as " in output
    (stored,) = daemon.stored(mailbox)
    assert stored.rstrip(b"\n") + b"\n" == TEXT.encode()  # swaks adds a line end of its own


@pytest.mark.debian
def test_curl(daemon: Daemon, needs_program: NeedsProgram, message: str) -> None:
    command(
        needs_program("curl"), "--silent", "--show-error", f"smtp://127.0.0.1:{daemon.port()}/client.example",
        "--mail-from", "a@client.example", "--mail-rcpt", "curl1@example.com", "--mail-rcpt", "curl2@example.com",
        "--crlf", "--upload-file", message,
    )  # fmt: skip
    assert daemon.stored("curl1") == daemon.stored("curl2") == [TEXT.encode()]


@pytest.mark.debian
def test_curl_asks_for_help(daemon: Daemon, needs_program: NeedsProgram) -> None:
    output = command(needs_program("curl"), "--silent", f"smtp://127.0.0.1:{daemon.port()}", "--request", "HELP")
    assert output.startswith("214 ")


@pytest.mark.debian
def test_smtp_source(daemon: Daemon, needs_program: NeedsProgram) -> None:
    """Postfix's load generator: a connection each, in parallel, and several messages in one."""
    program = needs_program("smtp-source")
    for options in ((), ("-d",)):
        command(
            program, *options, "-s", "5", "-m", "40", "-l", "4096", "-f", "a@client.example",
            "-t", "source@example.com", f"127.0.0.1:{daemon.port()}",
        )  # fmt: skip
    stored = daemon.stored("source")
    assert len(stored) == 80
    assert all(len(one) > 4000 for one in stored)
