"""The units in systemd/, as systemd itself judges them, and the daemon under the limits they set.

No test starts a service: the exposure and the syntax come from systemd-analyze, offline; the socket is handed over by
systemd-socket-activate; the ban on making code at run time is set by hand with the same prctl.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parent.parent / "systemd"
SERVICE = UNITS / "smtpmaild.service"
SOCKET = UNITS / "smtpmaild.socket"
#: The exposure level of systemd-analyze: 0 is a sealed box, 10 no sandbox at all; a bare service scores 9.6.
HIGHEST_EXPOSURE = 2.0

pytestmark = pytest.mark.debian
NeedsProgram = Callable[[str], str]


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


def test_service_is_hardened(needs_program: NeedsProgram) -> None:
    assert exposure(needs_program("systemd-analyze"), SERVICE) <= HIGHEST_EXPOSURE


def test_bare_service_would_be_seen(needs_program: NeedsProgram, tmp_path: Path) -> None:
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert exposure(needs_program("systemd-analyze"), bare) > HIGHEST_EXPOSURE


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
