"""`smtpmaild user`: what a postmaster types, and what the file has then."""

from __future__ import annotations

import json
import os
import pty
import select
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from running import Runner

from smtpmaild.auth import users_edit
from smtpmaild.auth.schemes import hash_password, parse

CONFIG = """\
listeners: [{{name: local, listen: ["127.0.0.1:2525"], auth: required, auth_without_tls: true}}]
accounts: {{{accounts}}}
local_domains: {{a.example: {{deliver: nowhere}}}}
deliver_to: {{nowhere: {{type: discard}}}}
"""
SHA = "{SHA}0vxRJJChUDZGC1SJQBQ51tpUB/o="  # of "pencil"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capfd, monkeypatch)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_text(f"# ours\nalice:{SHA}:1000:extra\ncarol:!\n")
    path.chmod(0o640)
    return path


def stored(path: Path, name: str) -> str:
    (line,) = [line for line in path.read_text().splitlines() if line.startswith(f"{name}:")]
    return line.split(":")[1]


@pytest.mark.parametrize(("options", "scheme"), [((), "ARGON2ID"), (("--scram",), "SCRAM-SHA-256")])
def test_add(run: Runner, users: Path, options: tuple[str, ...], scheme: str) -> None:
    ran = run(
        "user", "add", "bob@example.com", "--file", str(users), "--password-file", "-", *options, stdin=b"s3cret\n"
    )
    assert (ran.status, ran.out, ran.err) == (0, f"{users}: bob@example.com added\n", "")
    hashed = parse(stored(users, "bob@example.com"))
    assert (hashed.scheme, hashed.verify("s3cret")) == (scheme, True)
    assert stat.S_IMODE(users.stat().st_mode) == 0o640


@pytest.mark.parametrize(("command", "name"), [("add", "bob"), ("passwd", "alice")])
def test_the_first_account_without_scram_is_doubted(run: Runner, users: Path, command: str, name: str) -> None:
    users.write_text(f"alice:{hash_password('pencil', scram=True)}\n")
    file = ("--file", str(users), "--password-file", "-")
    note = f"note: all accounts have SCRAM keys; without --scram for '{name}' SCRAM ends at the next reload\n"
    assert run("user", command, name, *file, stdin=b"x").err == note
    assert run("user", "passwd", name, *file, stdin=b"x").err == ""  # it has ended
    assert run("user", "passwd", name, *file, "--scram", stdin=b"x").err == ""


def test_passwd_keeps_the_rest_of_the_line(run: Runner, users: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"n\xc3\xa9w\r\n")
    ran = run("user", "passwd", "alice", "--file", str(users), "--password-file", str(tmp_path / "password"))
    assert (ran.status, ran.out) == (0, f"{users}: alice changed\n")
    assert parse(stored(users, "alice")).verify("n\u00e9w")
    assert users.read_text().splitlines()[1].endswith(":1000:extra")


def test_remove(run: Runner, users: Path) -> None:
    assert run("user", "remove", "alice", "--file", str(users)).out == f"{users}: alice removed\n"
    assert users.read_text() == "# ours\ncarol:!\n"


@pytest.mark.parametrize(
    ("name", "password", "status", "said"),
    [
        ("alice", b"pencil", 0, "alice: the password is right (stored as SHA)\n"),
        ("ALICE", b"pencil\n", 0, "alice: the password is right (stored as SHA)\n"),
        ("alice", b"pen", 77, "wrong password (stored as SHA)\n"),
        ("carol", b"pencil", 77, "the account 'carol' is locked: no password is right\n"),
        ("mallory", b"pencil", 67, "there is no account 'mallory'\n"),
    ],
)
def test_verify(run: Runner, users: Path, name: str, password: bytes, status: int, said: str) -> None:
    ran = run("user", "verify", name, "--file", str(users), "--password-file", "-", stdin=password)
    assert (ran.status, ran.out + ran.err) == (status, said)


def test_list(run: Runner, users: Path) -> None:
    assert run("user", "list", "--file", str(users)).out == "alice  SHA\ncarol  locked\n"
    assert json.loads(run("user", "list", "--file", str(users), "--json").out) == [
        {"name": "alice", "scheme": "SHA", "locked": False},
        {"name": "carol", "scheme": "", "locked": True},
    ]
    users.write_text("")
    assert run("user", "list", "--file", str(users)).out == ""


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("add", "alice", "--password-file", "-"), 73, "there is an account 'alice' already: `smtpmaild user"),
        (("add", "a:b", "--password-file", "-"), 65, "a user name is not empty, has neither a colon"),
        (("passwd", "mallory", "--password-file", "-"), 67, "there is no account 'mallory'"),
        (("remove", "mallory"), 67, "there is no account 'mallory'"),
    ],
)
def test_refused(run: Runner, users: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    before = users.read_text()
    ran = run("user", *arguments, "--file", str(users), stdin=b"pencil")
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(said)
    assert users.read_text() == before


@pytest.mark.parametrize("password", [b"", b"\n", b"two\nlines", b"\xff", b"x" * 5000])
def test_what_is_no_password(run: Runner, users: Path, password: bytes) -> None:
    ran = run("user", "add", "bob", "--file", str(users), "--password-file", "-", stdin=password)
    assert ran.status == 65
    assert "bob" not in users.read_text()


def test_trouble_with_the_file(run: Runner, users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = str(tmp_path / "nowhere" / "users")
    ran = run("user", "list", "--file", nowhere)
    assert (ran.status, ran.err) == (66, f"{nowhere}: No such file or directory\n")
    assert run("user", "add", "bob", "--file", nowhere, "--password-file", "-", stdin=b"x").status == 66

    users.write_text("alice:pencil\nbob:{PLAIN}pencil\n")
    ran = run("user", "list", "--file", str(users))
    assert ran.status == 65
    assert [line.partition(" ")[0] for line in ran.err.splitlines()] == [f"{users}:1:", f"{users}:2:"]
    users.chmod(0o604)
    ran = run("user", "list", "--file", str(users))
    assert (ran.status, ran.err) == (65, f"{users}: every user can read it: chmod o-rwx it\n")

    def forbidden(path: str, name: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(users_edit, "remove", forbidden)
    assert run("user", "remove", "alice", "--file", str(users)).status == 77

    def busy(path: str, name: str) -> None:
        raise users_edit.BusyError("somebody else is changing it")

    monkeypatch.setattr(users_edit, "remove", busy)
    assert run("user", "remove", "alice", "--file", str(users)).status == 75


def write_config(folder: Path, accounts: str) -> str:
    path = folder / "smtp.yaml"
    path.write_text(CONFIG.format(accounts=accounts))
    return str(path)


@pytest.mark.parametrize("before", [True, False])
def test_file_of_the_configuration(run: Runner, tmp_path: Path, before: bool) -> None:
    config = write_config(tmp_path, "users_file: accounts")
    arguments = ("user", "add", "bob", "--password-file", "-")
    ran = run("--config", config, *arguments, stdin=b"x") if before else run(*arguments, "-c", config, stdin=b"x")
    assert (ran.status, ran.out) == (0, f"{tmp_path}/accounts: bob added\n")
    assert run("user", "verify", "bob", "-c", config, "--password-file", "-", stdin=b"x").status == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_new_file_is_for_the_group_of_the_daemon(run: Runner, tmp_path: Path) -> None:
    config = write_config(tmp_path, "users_file: accounts")
    Path(config).write_text(Path(config).read_text() + "user: nobody\ngroup: '12345'\n")
    tmp_path.chmod(0o755)
    assert run("user", "add", "bob", "-c", config, "--password-file", "-", stdin=b"x").status == 0
    status = (tmp_path / "accounts").stat()
    assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 0o640)
    # a user whom the machine does not know is a warning there, and no reason not to add an account
    (tmp_path / "accounts").unlink()
    Path(config).write_text(Path(config).read_text().replace("nobody", "no-such-user"))
    assert run("user", "add", "bob", "-c", config, "--password-file", "-", stdin=b"x").status == 0


def test_which_file(run: Runner, tmp_path: Path) -> None:
    assert run("user", "list").status == 64
    config = write_config(tmp_path, "dovecot_socket: /run/dovecot/auth")
    ran = run("user", "list", "-c", config)
    assert (ran.status, ran.err) == (78, f"{config}: the section 'accounts' names no users_file\n")


def test_missing_extra_is_named(run: Runner, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)
    ran = run("user", "add", "bob", "--file", str(users), "--password-file", "-", stdin=b"x")
    assert ran.status == 73
    assert "pip install 'smtpmaild[auth]'" in ran.err


def test_prompts_show_nothing_and_ask_twice(users: Path) -> None:
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "smtpmaild", "user", "add", "bob", "--file", str(users)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=root, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    ) as process:
        os.close(terminal)
        shown = b""
        for asked, answer in ((b"Password:", b"s3cret\n"), (b"confirmation:", b"s3cret\n"), (b"added", b"")):
            while asked not in shown:
                assert select.select([master], [], [], 10.0)[0], shown
                shown += os.read(master, 1024)
            os.write(master, answer)
        assert process.wait(10.0) == 0
    os.close(master)
    assert b"s3cret" not in shown
    assert parse(stored(users, "bob")).verify("s3cret")
