"""`smtpmaild --stdin`: one session on whatever standard input and output are, as inetd and pipelines start it."""

from __future__ import annotations

import os
import smtplib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from daemons import PATIENCE, ROOT, fields_and_message, write_config

SESSION = (
    b"EHLO client.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<%s@example.com>\r\n"
    b"DATA\r\n..hello\r\n.\r\nQUIT\r\n"
)
CODES = ["220", "250", "250", "250", "354", "250", "221"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path)


def command(config: Path, *options: str) -> list[str]:
    return [*refusing_root(config), "--allow-root", *options]


def refusing_root(config: Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "smtpmaild", "--stdin", "--config", str(config)]


def start(config: Path, sock: socket.socket, *options: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
    """With a socket as standard input and output, and as standard error too where no other is given."""
    number = sock.fileno()
    return subprocess.Popen(
        command(config, *options), stdin=number, stdout=number, stderr=number if stderr is None else stderr, cwd=ROOT
    )


def run(config: Path, session: bytes, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    ran = subprocess.run(
        command(config), input=session, stdout=stdout, stderr=subprocess.PIPE, timeout=PATIENCE, cwd=ROOT, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return ran


def codes(output: bytes) -> list[str]:
    return [line[:3] for line in output.decode().splitlines() if line[3] == " "]


def stored(config: Path, mailbox: str) -> list[bytes]:
    new = config.parent / "mail" / "example.com" / mailbox / "new"
    return [fields_and_message(path.read_bytes())[1] for path in new.iterdir()]


def test_a_file(config: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(SESSION % b"file")
    with (tmp_path / "in").open("rb") as infile, (tmp_path / "out").open("wb") as outfile:
        ran = subprocess.run(
            command(config),
            stdin=infile,
            stdout=outfile,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            cwd=ROOT,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr.decode()
    assert codes((tmp_path / "out").read_bytes()) == CODES
    assert stored(config, "file") == [b".hello\n"]


def test_pipes(config: Path) -> None:
    ran = run(config, SESSION % b"pipe")
    assert codes(ran.stdout) == CODES
    assert b'"message_accepted"' in ran.stderr
    assert stored(config, "pipe") == [b".hello\n"]


def test_input_that_ends_early_leaves_nothing(config: Path) -> None:
    half = (SESSION % b"half").partition(b"hello")[0]
    assert codes(run(config, half).stdout) == CODES[:5]
    assert not (config.parent / "mail" / "example.com" / "half" / "new").exists()


def test_a_socket_as_inetd_hands_it_over(config: Path) -> None:
    """The same socket three times; what is logged must not reach the client."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            process = start(config, theirs)
        ours.settimeout(PATIENCE)
        ours.sendall(SESSION % b"inetd")
        output = b""
        while chunk := ours.recv(65536):
            output += chunk
        assert process.wait(PATIENCE) == 0
    assert codes(output) == CODES
    (path,) = (config.parent / "mail" / "example.com" / "inetd" / "new").iterdir()
    assert b"Received: from client.example ([127.0.0.1])" in path.read_bytes()


def test_a_mistake_in_the_config_is_nothing_for_the_peer(config: Path) -> None:
    config.write_text("nonsense: true\n")
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = start(config, theirs)
        ours.settimeout(PATIENCE)
        assert ours.recv(65536) == b""
        assert process.wait(PATIENCE) == 78


def test_a_client_library_over_a_socket_pair(config: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = start(config, theirs, "--listener", "lenient", stderr=subprocess.DEVNULL)

    class OverPair(smtplib.SMTP):
        def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
            ours.settimeout(PATIENCE)
            return ours

    with OverPair("anywhere", 25) as client:
        client.sendmail("a@client.example", ["pair@example.com"], b"a\nb\r\n")
    assert process.wait(PATIENCE) == 0
    assert stored(config, "pair") == [b"a\nb\n"]


def test_another_process_may_share_the_terminal_flags(config: Path) -> None:
    """Non-blocking is a flag of the open file: the program that started us finds it as it was."""
    reader, writer = os.pipe()
    try:
        run(config, SESSION % b"flags", stdout=writer)
        assert os.get_blocking(writer)
        assert codes(os.read(reader, 65536)) == CODES
    finally:
        os.close(reader)
        os.close(writer)


def test_closed_standard_files_are_no_place_for_mail(config: Path, tmp_path: Path) -> None:
    """Without numbers 0 to 2 a message's file would get one, and the log would be written into it."""
    (tmp_path / "in").write_bytes(SESSION % b"closed")
    script = f'exec "$@" < {tmp_path / "in"} > {tmp_path / "out"} 2>&-'
    ran = subprocess.run(["sh", "-c", script, "sh", *command(config)], timeout=PATIENCE, cwd=ROOT, check=False)
    assert ran.returncode == 0
    assert codes((tmp_path / "out").read_bytes()) == CODES
    assert stored(config, "closed") == [b".hello\n"]


def test_it_becomes_the_user_of_the_config(config: Path) -> None:
    """Started as root it does, and that user may not write to a folder of root's; nobody else can become another."""
    is_root = os.geteuid() == 0
    user, status, cause = ("nobody", 73, b"Permission denied") if is_root else ("root", 77, b"only root can become")
    config.write_text(f"{config.read_text()}\nuser: {user}\n")
    ran = subprocess.run(refusing_root(config), input=b"", capture_output=True, timeout=PATIENCE, cwd=ROOT, check=False)
    assert (ran.returncode, ran.stdout) == (status, b"")
    assert cause in ran.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="about root")
def test_it_does_not_serve_as_root_unless_told(config: Path) -> None:
    ran = subprocess.run(refusing_root(config), input=b"", capture_output=True, timeout=PATIENCE, cwd=ROOT, check=False)
    assert (ran.returncode, ran.stdout) == (77, b"")
    assert b"will not serve as root" in ran.stderr
