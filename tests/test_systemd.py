"""The units in systemd/, as systemd itself judges them, and the daemon under the limits they set.

No test starts a service. The exposure and the syntax come from systemd-analyze, offline; the socket is handed over by
systemd-socket-activate; the ban on making code at run time is set by prctl, as the kernel has it; the system calls the
daemon makes are read from strace and compared with those the unit allows.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from ports import free_port

UNITS = Path(__file__).resolve().parent.parent / "systemd"
SERVICE = UNITS / "smtpmaild.service"
SOCKET = UNITS / "smtpmaild.socket"
#: The exposure level of systemd-analyze: 0 is a sealed box, 10 no sandbox at all; a bare service scores 9.6.
HIGHEST_EXPOSURE = 2.0

NeedsProgram = Callable[[str], str]

SMTPMAILD = str(Path(sys.executable).with_name("smtpmaild"))
CONFIG = """\
hostname: mx.example.com
listeners:
  - {{name: mx, listen: ["{listen}"]}}
local_domains:
  example.com: {{deliver: mail}}
deliver_to:
  mail: {{type: maildir, path: "mail/{{mailbox}}"}}
workers: {workers}
allow_root: true
"""
#: A daemon that starts as root, as tests may, becomes somebody; the service is its user from the beginning.
BECOMING = {"setgroups", "setresgid", "setresuid"}
#: How the log shows the port that the kernel chose.
PORT = r'"event":"listening".*"address":"127\.0\.0\.1:(\d+)"'
CANNOT_REFUSE = "this kernel cannot refuse"
#: prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), and then the command: what it starts inherits the ban.
WITHOUT_NEW_CODE = f"""
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):
    sys.exit({CANNOT_REFUSE!r})
os.execv(sys.argv[1], sys.argv[1:])
"""


def settings(unit: Path) -> list[tuple[str, str]]:
    """Every `Key=value` of a unit, in order; a key may come more than once."""
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def exposure(analyze: str, unit: Path) -> float:
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True, check=True
    )
    level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None, done.stdout
    return float(level[1])


@pytest.mark.debian
def test_service_is_hardened(needs_program: NeedsProgram) -> None:
    assert exposure(needs_program("systemd-analyze"), SERVICE) <= HIGHEST_EXPOSURE


@pytest.mark.debian
def test_bare_service_would_be_seen(needs_program: NeedsProgram, tmp_path: Path) -> None:
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert exposure(needs_program("systemd-analyze"), bare) > HIGHEST_EXPOSURE


@pytest.mark.debian
def test_units_are_valid(needs_program: NeedsProgram, tmp_path: Path) -> None:
    # The program is not installed where the tests run; systemd would report nothing but that.
    for unit in (SERVICE, SOCKET):
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/local/bin/smtpmaild", "/bin/true"))
    done = subprocess.run(
        [needs_program("systemd-analyze"), "verify", "--man=no", tmp_path / SERVICE.name, tmp_path / SOCKET.name],
        capture_output=True,
        text=True,
        check=False,
    )
    about_ours = [line for line in done.stderr.splitlines() if "smtpmaild" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_service_says_what_the_daemon_does() -> None:
    service = dict(settings(SERVICE))
    assert service["Type"] == "notify"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert float(service["WatchdogSec"]) > 0
    assert service["RestartPreventExitStatus"] == "78"
    assert service["MemoryDenyWriteExecute"] == "yes"


def test_socket_has_both_protocols_under_one_name() -> None:
    assert ("FileDescriptorName", "smtp") in settings(SOCKET)
    assert [value for key, value in settings(SOCKET) if key == "ListenStream"] == ["0.0.0.0:25", "[::]:25"]


def write_config(folder: Path, listen: str, workers: int) -> Path:
    config = folder / "smtp.yaml"
    config.write_text(CONFIG.format(listen=listen, workers=workers))
    return config


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone afterwards, whatever the test made of it."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def says(what: str, process: subprocess.Popen[bytes], log: Path) -> re.Match[str]:
    """The place in the log of a process where that stands, as soon as it does."""
    until = time.monotonic() + 20
    while not (found := re.search(what, log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)
    return found


def send_message(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.sendmail("sender@example.net", ["user@example.com"], "Subject: sandboxed\r\n\r\nHello.\r\n")


def stop(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    return process.wait(20)


def stored_in(folder: Path) -> list[Path]:
    return list((folder / "mail/user/new").iterdir())


def test_daemon_makes_no_code_at_run_time(tmp_path: Path) -> None:
    config = write_config(tmp_path, "127.0.0.1:0", workers=2)
    command = [sys.executable, "-c", WITHOUT_NEW_CODE, SMTPMAILD, "--config", str(config)]
    with running(command, tmp_path / "log") as process:
        if says(f"{CANNOT_REFUSE}|{PORT}", process, tmp_path / "log")[0] == CANNOT_REFUSE:
            pytest.skip(f"{CANNOT_REFUSE} memory that is written and executed (Linux 6.3 can)")
        send_message(int(says(PORT, process, tmp_path / "log")[1]))
        assert stop(process) == 0
    assert len(stored_in(tmp_path)) == 1


@pytest.mark.debian
def test_daemon_serves_the_socket_that_systemd_binds(needs_program: NeedsProgram, tmp_path: Path) -> None:
    port = free_port()
    config = write_config(tmp_path, "systemd:smtp", workers=1)
    activate = [needs_program("systemd-socket-activate"), f"--listen=127.0.0.1:{port}", "--fdname=smtp"]
    with running([*activate, SMTPMAILD, "--config", str(config)], tmp_path / "log") as process:
        says("Listening on", process, tmp_path / "log")
        send_message(port)
        assert stop(process) == 0
    assert len(stored_in(tmp_path)) == 1


def members(analyze: str, group: str) -> set[str]:
    """The system calls of a group as systemd knows it, groups within it followed."""
    if not group.startswith("@"):
        return {group}
    listed = subprocess.run([analyze, "syscall-filter", group], capture_output=True, text=True, check=True).stdout
    words = [line.strip() for line in listed.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return {call for word in words for call in members(analyze, word)}


def allowed_calls(analyze: str) -> set[str]:
    """What SystemCallFilter= of the service leaves, line by line as systemd reads them."""
    allowed: set[str] = set()
    for value in [value for key, value in settings(SERVICE) if key == "SystemCallFilter"]:
        calls = {call for group in value.removeprefix("~").split() for call in members(analyze, group)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


@pytest.mark.debian
def test_daemon_makes_only_system_calls_the_unit_allows(needs_program: NeedsProgram, tmp_path: Path) -> None:
    trace = tmp_path / "calls"
    config = write_config(tmp_path, "127.0.0.1:0", workers=2)
    strace = [needs_program("strace"), "--follow-forks", "--quiet=all", f"--output={trace}", "--interruptible=never"]
    with running([*strace, SMTPMAILD, "--config", str(config)], tmp_path / "log") as process:
        send_message(int(says(PORT, process, tmp_path / "log")[1]))
        daemon = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        subprocess.run(["kill", "-TERM", str(daemon)], check=True)
        assert process.wait(20) == 0
    made = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert "fsync" in made or "syncfs" in made, "the trace is empty"
    assert made - BECOMING - allowed_calls(needs_program("systemd-analyze")) == set()
