"""Clients that are not ours sign in, with accounts of ours and of a real Dovecot."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import smtplib
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from authority import authority, issue
from conftest import find_program
from daemons import PATIENCE, Daemon, running

from smtpmaild.auth import users_edit
from smtpmaild.auth.schemes import hash_password

NeedsProgram = Callable[[str], str]
USER, PASSWORD = "alice@example.com", "s3cret,=x"
LISTENERS = """\
  - {name: clear, listen: ["127.0.0.3:0"], auth: required, auth_without_tls: true}
  - {name: submission, listen: ["127.0.0.4:0"], role: submission, tls: required, auth: required}
  - {name: submissions, listen: ["127.0.0.5:0"], role: submission, tls: implicit, auth: required}
"""
HOSTS = {"clear": "127.0.0.3", "submission": "127.0.0.4", "submissions": "127.0.0.5"}
#: Each test signs in wrongly too, and all of them as the same user.
NO_DELAY = "failure_delay: 0, longest_failure_delay: 0"
TLS = "tls:\n  certificates: [{certificate: mx.example.com.pem, key: mx.example.com.key}]\n"


def prepared(folder: Path) -> Path:
    """The folder of a daemon with a certificate; who trusts it finds the authority in ca.pem."""
    issue(folder, "mx.example.com", "localhost", *HOSTS.values())
    authority().cert_pem.write_to_path(str(folder / "ca.pem"))
    return folder


@pytest.fixture(scope="module", params=["ARGON2ID", "SCRAM-SHA-256"])
def daemon(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """Accounts in a file, stored in one way or the other."""
    folder = prepared(tmp_path_factory.mktemp("auth"))
    hashed = hash_password(PASSWORD, scram=request.param == "SCRAM-SHA-256")
    users_edit.add(str(folder / "users"), USER, hashed)
    with running(folder, LISTENERS, f"{TLS}accounts: {{users_file: users, {NO_DELAY}}}\n") as daemon:
        yield daemon


def command(*arguments: str, status: int = 0) -> str:
    ran = subprocess.run(arguments, capture_output=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)
    output = ran.stdout.decode(errors="replace") + ran.stderr.decode(errors="replace")
    assert ran.returncode == status, output
    return output


def mechanisms(daemon: Daemon) -> set[str]:
    with smtplib.SMTP(HOSTS["clear"], daemon.port("clear")) as client:
        client.ehlo()
        return set(client.esmtp_features["auth"].split())


def trusting(daemon: Daemon) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(daemon.folder / "ca.pem"))


# Python's smtplib: PLAIN and LOGIN, with and without an initial response


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("has_initial", [True, False])
def test_smtplib(daemon: Daemon, mechanism: str, has_initial: bool) -> None:
    with smtplib.SMTP(HOSTS["clear"], daemon.port("clear")) as client:
        client.ehlo()
        client.user, client.password = USER, PASSWORD
        ways = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}
        assert client.auth(mechanism, ways[mechanism], initial_response_ok=has_initial)[0] == 235
        assert client.docmd("AUTH PLAIN")[0] == 503
        assert client.sendmail(USER, ["smtplib@example.com"], "Subject: x\r\n\r\nx") == {}
    assert b"with ESMTPA id" in daemon.raw("smtplib")[-1]


def test_wrong_password_and_unknown_user_hear_the_same(daemon: Daemon) -> None:
    replies = set()
    for user, password in ((USER, "wrong"), ("mallory", PASSWORD), ("mallory", "wrong")):
        with smtplib.SMTP(HOSTS["clear"], daemon.port("clear")) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError) as error:
                client.login(user, password)
            replies.add((error.value.smtp_code, error.value.smtp_error))
            assert client.docmd("MAIL FROM:<alice@example.com>")[0] == 530
    assert replies == {(535, b"5.7.8 Authentication credentials invalid")}


def test_never_without_tls(daemon: Daemon) -> None:
    with smtplib.SMTP(HOSTS["submission"], daemon.port("submission")) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.docmd("AUTH PLAIN AGFsaWNlAHgK")[0] == 538
        client.starttls(context=trusting(daemon))
        client.ehlo()
        assert client.has_extn("auth")
        assert client.docmd("MAIL FROM:<alice@example.com>")[0] == 530
        client.login(USER, PASSWORD)
        assert client.sendmail(USER, ["secured@example.com"], "Subject: x\r\n\r\nx") == {}
    assert b"with ESMTPSA id" in daemon.raw("secured")[-1]


# swaks: PLAIN and LOGIN; its others (CRAM-MD5, NTLM...) need passwords that a server can read


@pytest.mark.debian
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(("listener", "options"), [("clear", []), ("submission", ["-tls"]), ("submissions", ["-tlsc"])])
def test_swaks(daemon: Daemon, needs_program: NeedsProgram, mechanism: str, listener: str, options: list[str]) -> None:
    address = ("--server", HOSTS[listener], "--port", str(daemon.port(listener)), *options)
    mail = ("--from", USER, "--to", "swaks@example.com", "--ehlo", "client.example")
    sign_in = ("--auth", mechanism, "--auth-user", USER, "--auth-password")
    output = command(needs_program("swaks"), *address, *mail, *sign_in, PASSWORD)
    assert "235 2.7.0" in output
    assert "250 2.0.0 Ok: queued as" in output
    output = command(needs_program("swaks"), *address, *mail, *sign_in, "wrong", status=28)
    assert "535 5.7.8" in output


# curl: the mechanism that it likes best, or is told


@pytest.mark.debian
@pytest.mark.parametrize("way", ["PLAIN", "LOGIN", "*"])
def test_curl(daemon: Daemon, needs_program: NeedsProgram, way: str) -> None:
    message = daemon.folder / "message"
    message.write_text("Subject: x\r\n\r\nx\r\n")
    url = f"smtps://{HOSTS['submissions']}:{daemon.port('submissions')}/client.example"
    arguments = ["--cacert", str(daemon.folder / "ca.pem"), "--login-options", f"AUTH={way}", "--upload-file"]
    arguments += [str(message), "--mail-from", USER, "--mail-rcpt", "curl@example.com", url, "--user"]
    before = len(daemon.raw("curl"))
    command(needs_program("curl"), *arguments, f"{USER}:{PASSWORD}")
    command(needs_program("curl"), *arguments, f"{USER}:wrong", status=67)
    assert len(daemon.raw("curl")) == before + 1


# msmtp and gsasl: SCRAM by the library GNU SASL


@pytest.mark.debian
@pytest.mark.parametrize("mechanism", ["plain", "login", "scram-sha-256", "on"])
def test_msmtp(daemon: Daemon, needs_program: NeedsProgram, mechanism: str) -> None:
    is_offered = mechanism.upper() in {*mechanisms(daemon), "ON"}  # no SCRAM with argon2id
    arguments = ["--file=/dev/null", f"--host={HOSTS['submission']}", f"--port={daemon.port('submission')}"]
    arguments += ["--tls=on", f"--tls-trust-file={daemon.folder}/ca.pem", f"--auth={mechanism}", f"--user={USER}"]
    arguments += [f"--from={USER}", "msmtp@example.com"]
    ran = subprocess.run(
        [needs_program("msmtp"), *arguments, f"--passwordeval=echo '{PASSWORD}'"],
        input=b"Subject: x\n\nx\n", capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    if not is_offered:
        assert ran.returncode == 69, ran.stderr.decode()
        assert "does not support authentication method" in ran.stderr.decode()
        return
    assert ran.returncode == 0, ran.stderr.decode()
    assert daemon.raw("msmtp")
    ran = subprocess.run(
        [needs_program("msmtp"), *arguments, "--passwordeval=echo wrong"],
        input=b"x\n", capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert ran.returncode == 77, ran.stderr.decode()


@pytest.mark.debian
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
def test_gsasl(daemon: Daemon, needs_program: NeedsProgram, mechanism: str) -> None:
    is_offered = "SCRAM-SHA-256" in mechanisms(daemon)  # not with argon2id
    program = needs_program("gsasl")
    # -PLUS binds to TLS 1.2: Python has no tls-exporter, which TLS 1.3 needs.
    arguments = ["--smtp", f"--connect={HOSTS['submission']}:{daemon.port('submission')}", "--starttls"]
    arguments += [f"--x509-ca-file={daemon.folder}/ca.pem", f"--mechanism={mechanism}", f"--authentication-id={USER}"]
    arguments += ["--priority=NORMAL:-VERS-TLS1.3", "--verbose", *([] if mechanism.endswith("PLUS") else ["--no-cb"])]
    if not is_offered:
        assert "504 5.5.4" in command(program, *arguments, f"--password={PASSWORD}", status=1)
        return
    output = command(program, *arguments, f"--password={PASSWORD}")
    assert "235 2.7.0" in output
    output = command(program, *arguments, "--password=wrong", status=1)
    assert "535 5.7.8" in output


def test_no_secret_is_in_the_log(daemon: Daemon) -> None:
    log = (daemon.folder / "log").read_text()
    assert "authenticated" in log
    assert PASSWORD not in log
    for secret in (f"\0{USER}\0{PASSWORD}", PASSWORD, f"\0{USER}\0wrong"):
        assert base64.b64encode(secret.encode()).decode().rstrip("=") not in log


# Accounts of Dovecot

DOVECOT = """\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/dovecot.log
ssl = no
protocols =
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
auth_mechanisms = plain login scram-sha-256
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {folder}/passwd
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
service auth {{
  unix_listener auth-client {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
}}
"""


class Dovecot:
    """Dovecot's auth service alone, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._program = find_program("dovecot")
        self._folder = folder
        doveadm = find_program("doveadm")
        scram, crypt = (
            command(doveadm, "-c", "/dev/null", "pw", "-s", scheme, "-p", PASSWORD).strip()
            for scheme in ("SCRAM-SHA-256", "SHA512-CRYPT")
        )
        (folder / "passwd").write_text(f"alice@example.com:{scram}\nbob:{crypt}\n")
        (folder / "dovecot.conf").write_text(DOVECOT.format(folder=folder, user="nobody", group="nogroup"))
        self.socket = folder / "run" / "auth-client"

    def start(self) -> None:
        self._process = subprocess.Popen([self._program, "-F", "-c", str(self._folder / "dovecot.conf")])
        end = time.monotonic() + PATIENCE
        while not self.socket.exists():
            assert self._process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.02)

    def log(self) -> str:
        return (self._folder / "dovecot.log").read_text()

    def stop(self) -> None:
        """All of it: the auth process alone would go on with the connections that it has."""
        number = self._process.pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        self._process.terminate()
        self._process.wait(PATIENCE)
        for child in map(int, children):
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    if os.getuid():
        pytest.skip("Dovecot starts as root")
    # Its processes are nobody: pytest's own folders are closed to others. A socket's path has at most 107 octets.
    folder = Path(tempfile.mkdtemp(prefix="dovecot-"))
    folder.chmod(0o755)
    dovecot = Dovecot(folder)
    dovecot.start()
    try:
        yield dovecot
    finally:
        dovecot.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def relaying(dovecot: Dovecot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = prepared(tmp_path_factory.mktemp("dovecot"))
    with running(folder, LISTENERS, f"{TLS}accounts: {{dovecot_socket: {dovecot.socket}, {NO_DELAY}}}\n") as daemon:
        yield daemon


@pytest.mark.debian
def test_dovecot_mechanisms(relaying: Daemon) -> None:
    assert mechanisms(relaying) == {"SCRAM-SHA-256", "PLAIN", "LOGIN"}


@pytest.mark.debian
@pytest.mark.parametrize("user", [USER, "bob"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_dovecot_passwords(relaying: Daemon, user: str, mechanism: str) -> None:
    for password, is_right in ((PASSWORD, True), ("wrong", False)):
        with smtplib.SMTP_SSL(HOSTS["submissions"], relaying.port("submissions"), context=trusting(relaying)) as client:
            client.ehlo()
            client.user, client.password = user, password
            ways = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}
            if is_right:
                assert client.auth(mechanism, ways[mechanism])[0] == 235
            else:
                with pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
                    client.auth(mechanism, ways[mechanism])


@pytest.mark.debian
def test_dovecot_scram(relaying: Daemon, needs_program: NeedsProgram) -> None:
    test_gsasl(relaying, needs_program, "SCRAM-SHA-256")


@pytest.mark.debian
def test_dovecot_goes_and_comes(relaying: Daemon, dovecot: Dovecot) -> None:
    dovecot.stop()
    try:
        assert sign_in_until(relaying, 454) == b"4.7.0 Temporary authentication failure"
    finally:
        dovecot.start()
    assert sign_in_until(relaying, 235) == b"2.7.0 Authentication succeeded"
    assert relaying.facts("dovecot_unavailable")


def sign_in_until(daemon: Daemon, wanted: int) -> bytes:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with smtplib.SMTP(HOSTS["clear"], daemon.port("clear")) as client:
            client.ehlo()
            response = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
            code, text = client.docmd(f"AUTH PLAIN {response}")
        if code == wanted:
            return text
        assert code in (235, 454)
        time.sleep(0.05)
    raise AssertionError(f"no {wanted}")
