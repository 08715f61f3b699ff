"""Which files of a configuration lie open, and what the command prints and leaves as its status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smtpmaild.audit.rights import look_at, things
from smtpmaild.cli import main
from smtpmaild.config import load

CONFIG = """\
hostname: mx.example.com
listeners:
  - {name: mx, listen: ["0.0.0.0:25"], reverse_dns: true}
  - {name: local, listen: [run/smtp.sock], tls: optional, client_certificates: none}
  - {name: submission, listen: ["0.0.0.0:587"], role: submission}
accounts: {users_file: users}
tls:
  certificates: [{certificate: mx.pem, key: mx.key, key_passphrase_file: words}]
local_domains:
  example.com: {deliver: mail, aliases: {away: x@far.example, alice: alice}, relay: smarthost}
  lists.example.com: {deliver: smarthost}
deliver_to: {mail: {type: maildir, path: "mail/{domain}/{mailbox}"}, none: {type: discard}}
queue: {path: queue}
sendmail: {listener: local, drop: drop}
control: {socket: control.sock}
history: {path: history.sqlite}
relay_rules:
  - {name: staff, authenticated: true, tls: true, from_networks: [10.0.0.0/8], relay: smarthost}
  - {name: office, from_networks: [192.0.2.0/24], from_domains: [example.com], relay: mx}
  - {name: far, to_domains: [far.example], client_names: ["*.example.net"], deliver: none}
relays: {smarthost: {host: smtp.example.net, username: u, password_file: password, tls: verify}}
"""
SECRETS = {"users": "", "words": "open", "password": "secret"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("mx.example.com")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "mx.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "mx.key")
    for name, text in SECRETS.items():
        (tmp_path / name).write_text(text)
    for name in (*SECRETS, "mx.key"):
        (tmp_path / name).chmod(0o600)
    for name in ("run", "mail", "drop"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "smtp.yaml").write_text(CONFIG)
    (tmp_path / "smtp.yaml").chmod(0o644)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(folder: Path) -> list[str]:
    config = load("smtp.yaml")
    found = [problem for thing in things(config) for problem in look_at(config, thing).problems]
    return [problem.replace(f"{folder}/", "") for problem in found]


def test_everything_that_matters_is_looked_at(folder: Path) -> None:
    config = load("smtp.yaml")
    found = {thing.what: thing.path.removeprefix(f"{folder}/") for thing in things(config)}
    assert found == {
        "configuration": "smtp.yaml", "store mail": "mail", "queue": "queue", "drop directory": "drop",
        "socket of local": "run/smtp.sock", "users file": "users", "private key": "mx.key",
        "secret of relay smarthost": "password", "passphrase of a key": "words", "control socket": "control.sock",
        "history": "history.sqlite",
    }  # fmt: skip
    assert problems(folder) == []
    rights = {one.what: look_at(config, one) for one in things(config)}
    assert rights["queue"].mode == ""  # not there yet
    assert (rights["configuration"].mode, rights["configuration"].readers) == ("0644", ("everybody",))
    assert rights["users file"].readers == rights["users file"].writers == (rights["users file"].owner,)
    assert rights["private key"].where == "smtp.yaml:8"


@pytest.mark.parametrize(
    ("name", "mode", "problem"),
    [
        ("mx.key", 0o644, "every user can read the private key mx.key: chmod o-rwx it"),
        ("smtp.yaml", 0o646, "every user can write the configuration smtp.yaml: chmod o-w it"),
        ("mail", 0o707, "every user can write the store mail mail: chmod o-w it"),
        ("control.sock", 0o777, "every user can write the control socket control.sock: chmod o-w it"),
        ("history.sqlite", 0o604, "every user can read the history history.sqlite: chmod o-rwx it"),
        ("drop", 0o1733, ""),  # that is what it is for
        ("mail", 0o750, ""),
        ("run", 0o777, "every user can replace the socket of local run/smtp.sock: chmod o-w run"),
        ("run", 0o1777, ""),
    ],
)
def test_what_lies_open(folder: Path, name: str, mode: int, problem: str) -> None:
    for socket in ("run/smtp.sock", "control.sock", "history.sqlite"):
        (folder / socket).touch(mode=0o600)
    (folder / name).chmod(mode)
    assert problems(folder) == ([problem] if problem else [])


def test_owners_without_a_name_are_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> object:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("grp.getgrgid", nobody)
    config = load("smtp.yaml")
    rights = look_at(config, next(things(config)))
    assert rights.owner == str((folder / "smtp.yaml").stat().st_uid)
    assert rights.group == str((folder / "smtp.yaml").stat().st_gid)


def ran(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["audit", "-c", "smtp.yaml", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_report_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran() == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "smtp.yaml, serving as mx.example.com Listeners",
        "mx mx SMTP 0.0.0.0:25 no TLS no AUTH open to strangers",
        "submission submission SMTP 0.0.0.0:587 TLS required AUTH required no strangers: clients must sign in",
        "staff (smtp.yaml:18) from 10.0.0.0/8; signed in; with TLS to anywhere by smarthost",
        "office (smtp.yaml:19) from 192.0.2.0/24; sender in example.com to anywhere by mx",
        "far (smtp.yaml:20) named *.example.net to far.example into the store none",
        "local_domains.example.com (smtp.yaml:10) everybody to away@example.com by smarthost",
        "local_domains.lists.example.com (smtp.yaml:11) everybody to lists.example.com by smarthost",
        "Can a stranger relay? No: every kind of stranger was looked at (",
        "'staff' (smtp.yaml:18): strangers have not signed in",
        "local: it is reached from this machine or a private network only",
        "; 1 from a network known to 'office' (smtp.yaml:19)",
        "queue " + str(folder / "queue") + " not there",
        "Nothing found that should not be so",
    ):
        assert words in said


def test_statuses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mail").chmod(0o702)
    assert ran() == 1
    assert "1 thing to look at\n  smtp.yaml:12: every user can write the store mail" in capsys.readouterr().out
    many = ", ".join(f"d{number}.example" for number in range(40))
    text = CONFIG.replace("[far.example]", f"[{many}]").replace("relays:", "  - {name: all, relay: mx}\nrelays:")
    (folder / "smtp.yaml").write_text(text)
    assert ran() == 77
    out, err = capsys.readouterr()
    assert "rule 'all' is an open relay" in err
    assert "Can a stranger relay? YES\n  by 'all' (smtp.yaml:21), who is answered 250 2.1.5" in out
    assert " and 35 more " in out
    assert ran("--json") == 77
    found = json.loads(capsys.readouterr().out)
    assert found["can_strangers_relay"] is True
    assert found["counter_examples"][0]["command"].startswith(
        "smtpmaild try --config smtp.yaml --listener mx --client 1"
    )
    (folder / "smtp.yaml").write_text("hostname: x")
    assert ran() == 78
