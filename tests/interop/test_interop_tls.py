"""TLS with programs that are not ours: clients that check our certificate, and scanners that look for weak spots."""

from __future__ import annotations

import re
import signal
import smtplib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from authority import client_context, issue, write_ca
from daemons import PATIENCE, Daemon, running

NeedsProgram = Callable[[str], str]
TEXT = "Subject: test\n\n.leading dot\nlast line\n"

OPTIONAL, REQUIRED, IMPLICIT, CLIENTS = "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"
LISTENERS = f"""\
  - {{name: optional, listen: ["{OPTIONAL}:0"], tls: optional}}
  - {{name: required, listen: ["{REQUIRED}:0"], tls: required}}
  - {{name: implicit, listen: ["{IMPLICIT}:0"], tls: implicit}}
  - {{name: clients, listen: ["{CLIENTS}:0"], tls: implicit, client_certificates: require}}
tls:
  certificates:
    - {{certificate: mx.example.com.pem, key: mx.example.com.key}}
    - {{certificate: mx.example.org.pem, key: mx.example.org.key, key_passphrase_file: secret}}
  client_ca: ca.pem
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    issue(folder, "mx.example.com", OPTIONAL, REQUIRED, IMPLICIT, CLIENTS)
    issue(folder, "mx.example.org", passphrase="open sesame")
    issue(folder, "printer@example.com", stem="printer", common_name="printer")
    write_ca(folder)
    (folder / "secret").write_text("open sesame\n")
    (folder / "secret").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    with running(folder, LISTENERS) as daemon:
        yield daemon
    assert daemon.facts("loop_failure") == []


@pytest.fixture
def message(tmp_path: Path) -> str:
    path = tmp_path / "message"
    path.write_text(TEXT)
    return str(path)


def command(*arguments: str, text: bytes = b"", timeout: float = PATIENCE) -> str:
    ran = subprocess.run(arguments, input=text, capture_output=True, timeout=timeout, check=False)
    output = ran.stdout.decode(errors="replace") + ran.stderr.decode(errors="replace")
    assert ran.returncode == 0, output
    return output


def received(daemon: Daemon, mailbox: str) -> str:
    """The Received field of the one message there."""
    (raw,) = daemon.raw(mailbox)
    return re.sub(r"\n[ \t]+", " ", raw.decode().partition("Received: ")[2])


def fact(daemon: Daemon, event: str, **facts: str) -> dict[str, Any]:
    """The line of the log, once it is written."""
    end = time.monotonic() + PATIENCE
    while True:
        found = [one for one in daemon.facts(event) if facts.items() <= one.items()]
        if found:
            return found[0]
        assert time.monotonic() < end, daemon.facts(event)
        time.sleep(0.02)


# Python's smtplib


@pytest.mark.parametrize(("listener", "host"), [("optional", OPTIONAL), ("required", REQUIRED)])
def test_smtplib_by_starttls(daemon: Daemon, listener: str, host: str) -> None:
    with smtplib.SMTP(host, daemon.port(listener)) as client:
        client.starttls(context=client_context())
        client.sendmail("a@client.example", [f"smtplib-{listener}@example.com"], TEXT)
    assert re.search(
        r" with ESMTPS id \w+ \(version=TLS1\.3 cipher=TLS_AES_256_GCM_SHA384 bits=256\) for <smtplib",
        received(daemon, f"smtplib-{listener}"),
    )


def test_smtplib_without_tls(daemon: Daemon) -> None:
    with smtplib.SMTP(OPTIONAL, daemon.port("optional")) as client:
        client.sendmail("a@client.example", ["clear@example.com"], TEXT)
    assert " with ESMTP id " in received(daemon, "clear")
    refused = pytest.raises(smtplib.SMTPSenderRefused, match="Must issue a STARTTLS command first")
    with smtplib.SMTP(REQUIRED, daemon.port("required")) as client, refused:
        client.sendmail("a@client.example", ["clear@example.com"], TEXT)


def test_smtplib_with_tls_from_the_beginning(daemon: Daemon) -> None:
    with smtplib.SMTP_SSL(IMPLICIT, daemon.port("implicit"), context=client_context()) as client:
        client.ehlo("client.example")
        assert not client.has_extn("starttls")
        client.sendmail("a@client.example", ["smtplib-ssl@example.com"], TEXT)
    assert " with ESMTPS id " in received(daemon, "smtplib-ssl")


def test_smtplib_with_a_certificate(daemon: Daemon, folder: Path) -> None:
    context = client_context()
    context.load_cert_chain(folder / "printer.pem", folder / "printer.key")
    with smtplib.SMTP_SSL(CLIENTS, daemon.port("clients"), context=context) as client:
        client.sendmail("a@client.example", ["printer@example.com"], TEXT)
    accepted = fact(daemon, "message_accepted", listener="clients")
    assert accepted["client_certificate"].startswith("CN=printer,")


def test_certificate_for_the_name_asked_for(daemon: Daemon) -> None:
    for name in ("mx.example.com", "mx.example.org"):
        sock = socket.create_connection((IMPLICIT, daemon.port("implicit")), PATIENCE)
        with client_context().wrap_socket(sock, server_hostname=name) as tls:
            assert tls.recv(4) == b"220 "
            tls.sendall(b"QUIT\r\n")
            assert tls.recv(100)[-2:] == b"\r\n"


def test_name_that_is_no_text(daemon: Daemon) -> None:
    """What Python says of it goes into the log as a fact; the log has nothing else."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing, server_hostname="mx.example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read().replace(b"mx.example.com", b"\xff\xfe\r\n\x1b[2Jx.com.")
    with socket.create_connection((IMPLICIT, daemon.port("implicit")), PATIENCE) as sock:
        sock.sendall(hello)
        assert sock.recv(100)[:1] == b"\x15"
    fact(daemon, "exception_ignored", level="warning")
    fact(daemon, "tls_handshake_failed", reason="callback failed")


# Programs


@pytest.mark.debian
@pytest.mark.parametrize(
    ("listener", "host", "scheme"), [("required", REQUIRED, "smtp"), ("implicit", IMPLICIT, "smtps")]
)
def test_curl(
    daemon: Daemon, folder: Path, needs_program: NeedsProgram, message: str, listener: str, host: str, scheme: str
) -> None:
    port = daemon.port(listener)
    command(
        needs_program("curl"), "--silent", "--show-error", "--crlf", "--ssl-reqd", "--cacert", f"{folder}/ca.pem",
        "--resolve", f"mx.example.com:{port}:{host}", f"{scheme}://mx.example.com:{port}",
        "--mail-from", "a@client.example", "--mail-rcpt", f"curl-{scheme}@example.com", "--upload-file", message,
    )  # fmt: skip
    assert " with ESMTPS id " in received(daemon, f"curl-{scheme}")


@pytest.mark.debian
@pytest.mark.parametrize(
    ("listener", "host", "option"), [("required", REQUIRED, "--tls"), ("implicit", IMPLICIT, "-tlsc")]
)
def test_swaks(daemon: Daemon, needs_program: NeedsProgram, listener: str, host: str, option: str) -> None:
    output = command(
        needs_program("swaks"), "--server", host, "--port", str(daemon.port(listener)), option,
        "--from", "a@client.example", "--to", f"swaks-{listener}@example.com", "--data", "Subject: x\\n\\nhello\\n",
    )  # fmt: skip
    assert "=== TLS started with cipher TLSv1.3:TLS_AES_256_GCM_SHA384:256" in output
    assert " with ESMTPS id " in received(daemon, f"swaks-{listener}")


@pytest.mark.debian
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_by_starttls(daemon: Daemon, folder: Path, needs_program: NeedsProgram, version: str) -> None:
    output = command(
        needs_program("openssl"), "s_client", "-starttls", "smtp", "-connect", f"{OPTIONAL}:{daemon.port('optional')}",
        "-servername", "mx.example.org", "-verify_hostname", "mx.example.org", "-verify_return_error",
        "-CAfile", f"{folder}/ca.pem", "-crlf", "-ign_eof", version,
        text=b"EHLO client.example\nNOOP\nQUIT\n",
    )  # fmt: skip
    assert "Verification: OK" in output
    assert "Compression: NONE" in output
    assert "Secure Renegotiation IS" in output
    assert re.search(r"^221 2\.0\.0 ", output, re.MULTILINE)


def openssl_session(openssl: str, port: int, version: str, *steps: tuple[bytes, bytes]) -> None:
    """What s_client is told, and the word in its output to wait for before it is told the next."""
    client = [openssl, "s_client", "-connect", f"{IMPLICIT}:{port}", "-crlf", version]
    process = subprocess.Popen(
        client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    assert process.stdin is not None and process.stdout is not None
    output = b""
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    with process:
        for line, answer in steps:
            process.stdin.write(line)
            while answer not in output:
                piece = process.stdout.read(4096)
                assert piece, output
                output += piece
            output = output.partition(answer)[2]  # the next answer may be there already
    watchdog.cancel()


@pytest.mark.debian
def test_openssl_changes_keys(daemon: Daemon, needs_program: NeedsProgram) -> None:
    """A lone K is s_client's command for new keys on both sides (RFC 8446 §4.6.3)."""
    steps = ((b"", b"220 "), (b"K\n", b"KEYUPDATE"), (b"NOOP\n", b"250 2.0.0"), (b"quit\n", b"221 "))
    openssl_session(needs_program("openssl"), daemon.port("implicit"), "-tls1_3", *steps)


@pytest.mark.debian
def test_openssl_may_not_renegotiate(daemon: Daemon, needs_program: NeedsProgram) -> None:
    """A lone R asks for it."""
    steps = ((b"", b"220 "), (b"R\n", b"RENEGOTIATING"), (b"", b"no renegotiation"))
    openssl_session(needs_program("openssl"), daemon.port("implicit"), "-tls1_2", *steps)


@pytest.mark.debian
@pytest.mark.parametrize("group", ["ffdhe2048", "ffdhe8192"])
def test_openssl_may_not_ask_for_dear_key_exchanges(daemon: Daemon, needs_program: NeedsProgram, group: str) -> None:
    client = [needs_program("openssl"), "s_client", "-connect", f"{IMPLICIT}:{daemon.port('implicit')}"]
    done = subprocess.run([*client, "-groups", group], input=b"", capture_output=True, timeout=PATIENCE, check=False)
    assert b"handshake failure" in done.stderr


@pytest.mark.debian
def test_msmtp(daemon: Daemon, folder: Path, needs_program: NeedsProgram, message: str) -> None:
    for listener, host, starttls in (("required", REQUIRED, "on"), ("implicit", IMPLICIT, "off")):
        command(
            needs_program("msmtp"), f"--host={host}", f"--port={daemon.port(listener)}", "--tls=on",
            f"--tls-starttls={starttls}", f"--tls-trust-file={folder}/ca.pem", "--from=a@client.example",
            f"msmtp-{listener}@example.com", text=Path(message).read_bytes(),
        )  # fmt: skip
        assert " with ESMTPS id " in received(daemon, f"msmtp-{listener}")


@pytest.mark.debian
def test_nmap_finds_nothing_weak(daemon: Daemon, needs_program: NeedsProgram) -> None:
    output = command(
        needs_program("nmap"), "-Pn", "-p", str(daemon.port("implicit")), "--script", "+ssl-enum-ciphers", IMPLICIT,
        timeout=60,
    )  # fmt: skip
    assert set(re.findall(r"(TLSv\S+|SSLv\S+):", output)) == {"TLSv1.2", "TLSv1.3"}
    assert "least strength: A" in output
    assert "warnings" not in output


# Renewal


def shown(port: int) -> tuple[ssl.SSLSocket, object]:
    """A session that was greeted, and the number of the certificate it was shown."""
    tls = client_context().wrap_socket(socket.create_connection((IMPLICIT, port), PATIENCE), server_hostname=IMPLICIT)
    assert tls.recv(4) == b"220 "
    certificate = tls.getpeercert()
    assert certificate is not None
    return tls, certificate["serialNumber"]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_reload_with_a_renewed_certificate_and_with_a_bad_one(tmp_path: Path, loop: str) -> None:
    listeners = f"""\
  - {{name: implicit, listen: ["{IMPLICIT}:0"], tls: implicit}}
tls:
  certificates: [{{certificate: {IMPLICIT}.pem, key: {IMPLICIT}.key}}]
event_loop: {loop}
"""
    pair = issue(tmp_path, IMPLICIT)
    with running(tmp_path, listeners) as daemon:
        port = daemon.port("implicit")
        before, first = shown(port)
        issue(tmp_path, IMPLICIT)
        daemon.signal(signal.SIGHUP)
        fact(daemon, "reloaded")
        after, second = shown(port)
        assert first != second
        pair.key.write_bytes(issue(tmp_path, "other.example.com").key.read_bytes())
        daemon.signal(signal.SIGHUP)
        refused = fact(daemon, "reload_refused")
        assert re.search(r"smtp\.yaml:\d+:\d+: '[^']*' is not the key of the first certificate in '", refused["cause"])
        last, third = shown(port)
        assert third == second
        for tls in (before, after, last):  # whenever it began, it goes on
            with tls:
                tls.sendall(b"QUIT\r\n")
                assert b"221 " in b"".join(iter(lambda tls=tls: tls.recv(4096), b""))  # type: ignore[misc]
