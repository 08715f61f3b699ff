"""What `check` says of accounts: of the users file, as it is on the disk, and of Dovecot's socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from smtpmaild.auth.throttle import ThrottleLimits
from smtpmaild.config import ConfigError, load

CONFIG = """\
listeners: [{{name: local, listen: ["127.0.0.1:2525"], auth: required, auth_without_tls: true{more}}}]
accounts: {{{accounts}}}
local_domains: {{a.example: {{deliver: nowhere}}}}
deliver_to: {{nowhere: {{type: discard}}}}
"""
SHA = "{SHA}0vxRJJChUDZGC1SJQBQ51tpUB/o="
KEYS = (
    "{SCRAM-SHA-256}4096,/8U06tBWuxrwOWuj+2JQ5w==,22x0MZN7FnaaRqDKlKvnPM1eHPT7JECeErRG4PEWUok=,"
    "dpkQ7Nk/FbTymVvB0mvVcOT3Be/30Qe59ILcnVYwt5Q="
)


def said(folder: Path, *, accounts: str = "users_file: users", more: str = "") -> list[str]:
    path = folder / "smtp.yaml"
    path.write_text(CONFIG.format(accounts=accounts, more=more))
    try:
        found = load(path).warnings
    except ConfigError as error:
        found = tuple(error.mistakes)
    return [one.message.replace(str(folder), "FOLDER") for one in found]


def write(folder: Path, *lines: str, mode: int = 0o640) -> None:
    path = folder / "users"
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)


def test_good_file(tmp_path: Path) -> None:
    write(tmp_path, f"alice:{SHA}")
    assert said(tmp_path) == []


def test_mistakes_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, "alice:pencil", f"bob:{SHA}", "carol:{PLAIN}pencil")
    assert said(tmp_path) == [
        "FOLDER/users:1: this is no hash of a known kind",
        "FOLDER/users:3: {PLAIN} keeps the password readable: store a hash of it",
    ]


def test_file_for_everybody(tmp_path: Path) -> None:
    write(tmp_path, f"alice:{SHA}", mode=0o644)
    assert said(tmp_path) == ["FOLDER/users: every user can read it: chmod o-rwx it"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask for others")
def test_file_that_the_daemon_cannot_read(tmp_path: Path) -> None:
    write(tmp_path, f"alice:{SHA}")
    path = tmp_path / "smtp.yaml"
    path.write_text(CONFIG.format(accounts="users_file: users", more="") + "user: nobody\n")
    assert [one.message for one in load(path).warnings] == [f"{tmp_path}/users: Permission denied"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([f"alice:{KEYS}", f"bob:{SHA}"], "'bob' has no SCRAM keys"),
        ([], "there are no accounts"),
        ([f"alice:{KEYS}"], ""),
    ],
)
def test_scram_that_is_wanted(tmp_path: Path, lines: list[str], reason: str) -> None:
    write(tmp_path, *lines)
    warning = f"SCRAM-SHA-256 is not offered: {reason} in FOLDER/users; `smtpmaild user passwd --scram` makes them"
    assert said(tmp_path, more=", mechanisms: [SCRAM-SHA-256, PLAIN]") == ([warning] if reason else [])
    assert said(tmp_path) == []  # nobody asked for it


def test_dovecot_socket(tmp_path: Path) -> None:
    accounts = "dovecot_socket: auth"
    assert said(tmp_path, accounts=accounts) == ["FOLDER/auth: No such file or directory"]
    path = tmp_path / "auth"
    path.write_text("")
    assert said(tmp_path, accounts=accounts) == ["FOLDER/auth: this is no socket"]
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert said(tmp_path, accounts=accounts) == []
        if os.getuid() == 0:
            path.chmod(0o600)
            (tmp_path / "smtp.yaml").write_text(CONFIG.format(accounts=accounts, more="") + "user: nobody\n")
            (warning,) = load(tmp_path / "smtp.yaml").warnings
            assert warning.message == f"{path}: Permission denied"


def test_throttle(tmp_path: Path) -> None:
    write(tmp_path)
    said(tmp_path, accounts="users_file: users, failures: 3, failures_forgotten_after: 1h, failure_delay: 20s")
    accounts = load(tmp_path / "smtp.yaml").accounts
    assert accounts is not None
    # a delay that begins longer than it may grow stays as it is
    assert accounts.throttle == ThrottleLimits(3, 3600.0, 20.0, 20.0)
