"""`smtpmaild reload`: what a plan says of the verdicts on record, and what the daemon is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from remembering import NOW, Told, id_of, message, refusal, session, write
from running import Runner

from smtpmaild.control import client
from smtpmaild.tls import self_signed

CONFIG = """\
hostname: mx.example.com
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"], tls: optional, auth: optional, reverse_dns: true}
tls: {self_signed: true}
accounts: {dovecot_socket: /nowhere/auth}
local_domains:
  local.example: {mailboxes: [bob], deliver: mail}
deliver_to: {mail: {type: discard}, other: {type: discard}}
queue: {path: queue}
history: {path: history.sqlite}
control: {socket: control.sock}
relay_rules:
  - {name: signed in, authenticated: true, relay: smarthost}
  - {name: office, client_names: ["*.office.example"], relay: smarthost}
  - {name: no, to_domains: [later.example], defer: true}
relays: {smarthost: {host: smtp.example.net}}
"""
ANN: dict[str, Any] = {"user": "ann", "tls": "TLSv1.3 X", "client_certificate": "CN=a"}
EVENTS: list[Told] = [
    message(id_of(1), at=NOW + 1),
    message(id_of(2), at=NOW + 2),
    message(id_of(3), to="x@far.example", route="relay:smarthost", **ANN),
    message(id_of(4), to="x@far.example", route="relay:smarthost", client_name="p.office.example", peer="local"),
    session(
        id_of(5),
        refusals=[
            {**refusal("x@far.example"), "reply": "550 5.7.1 Relaying denied", "rule": "no relay rule matched"},
            {**refusal("no@local.example"), "rule": "local_domains.local.example (smtp.yaml:7)"},
            {**refusal("x@later.example"), "reply": "450 4.7.1 Later", "rule": "no (smtp.yaml:15)"},
            {**refusal("x@far.example"), "reply": "550 5.7.1 Too early", "rule": "early_talker"},
            {**refusal("x@far.example"), "command": "EHLO"},
            {"command": "MAIL", "argument": "eve@x.example", "reply": "550 5.7.1 No", "rule": "gone"},
        ],
    ),
]  # fmt: skip


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capfd, monkeypatch)


def configured(folder: Path, text: str = CONFIG, *, with_history: bool = True) -> str:
    if with_history:
        Path(write(folder, EVENTS)).rename(folder / "history.sqlite")
    (folder / "smtp.yaml").write_text(text)
    return str(folder / "smtp.yaml")


def planned(run: Runner, path: str, *more: str) -> tuple[int, Any]:
    ran = run("reload", "-c", path, "--plan", "--json", *more)
    return ran.status, json.loads(ran.out)


def test_only_what_the_record_does_not_agree_with(run: Runner, tmp_path: Path) -> None:
    status, found = planned(run, configured(tmp_path))
    assert (status, found["decisions"], found["kinds"], found["left_out"]) == (1, 8, 7, {"early_talker": 1})
    (change,) = found["changes"]  # the rule that refused this sender is gone
    assert (change["count"], change["decision"]["sender"], change["decision"]["recipient"]) == (1, "eve@x.example", "")
    assert (change["decision"]["verdict"]["outcome"], change["after"]["outcome"]) == ("reject", "accept")


@pytest.mark.parametrize(
    ("old", "new", "count", "before", "after"),
    [
        ("deliver: mail}", "deliver: other}", 2, "accept to mail", "accept to other"),
        ("[bob]", "[carol]", 2, "accept to mail", "reject 550 5.1.1 No such mailbox here"),
        ("authenticated: true", "users: [eve]", 1, "accept to relay:smarthost", "reject 550 5.7.1 Relaying denied"),
        ("*.office.example", "*.home.example", 1, "accept to relay:smarthost", "reject 550 5.7.1 Relaying denied"),
        ("defer: true", "reject: true", 1, "defer 450 4.7.1 Later", "reject 550 5.7.1 Relaying denied"),
        ("[later.example]", "[far.example]", 1, "reject 550 5.7.1 Relaying denied", "defer 450 4.7.1 Not now"),
        ("tls: optional", "tls: implicit", 2, "accept to mail", "reject at listener 'mx' TLS comes first"),
        (
            "{mailboxes: [bob], ",
            "{mailboxes: [bob, ann], aliases: {bob: ann}, ",
            2,
            "accept to mail for bob@local.example",
            "accept to mail for ann@local.example",
        ),
        ("{name: mx,", "{name: in,", 2, "accept to mail", "reject there is no listener 'mx' any more"),
    ],
)
def test_what_would_change(
    run: Runner, tmp_path: Path, old: str, new: str, count: int, before: str, after: str
) -> None:
    assert old in CONFIG
    ran = run("reload", "-c", configured(tmp_path, CONFIG.replace(old, new)), "--plan")
    assert ran.status == 1
    assert "beside 8 verdicts on record since " in ran.out
    assert "1 by 'early_talker' cannot be tried" in ran.out
    assert f"     {count} x {before}  ->  {after}" in ran.out


def test_a_handshake_that_wants_a_certificate(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(self_signed.make("ca.example").decode())
    changed = CONFIG.replace("tls: optional", "tls: required, client_certificates: require")
    path = configured(tmp_path, changed.replace("self_signed: true", "self_signed: true, client_ca: ca.pem"))
    events = [message(id_of(1), tls="TLSv1.3 X"), message(id_of(2), tls="TLSv1.3 X", client_certificate="CN=a")]
    Path(tmp_path / "history.sqlite").unlink()
    Path(write(tmp_path, events)).rename(tmp_path / "history.sqlite")
    status, found = planned(run, path)
    assert (status, found["decisions"]) == (1, 2)
    (change,) = found["changes"]
    assert (change["count"], change["decision"]["certificate"]) == (1, "")
    assert change["after"]["reply"] == "listener 'mx' ends a handshake without a certificate"


def test_nothing_changes(run: Runner, tmp_path: Path) -> None:
    ran = run("reload", "-c", configured(tmp_path), "--plan", "--last", "1")
    assert (ran.status, "<eve@x.example>, 20" in ran.out) == (1, True)
    Path(tmp_path / "history.sqlite").unlink()
    Path(write(tmp_path, EVENTS[:3])).rename(tmp_path / "history.sqlite")
    ran = run("reload", "-c", str(tmp_path / "smtp.yaml"), "--plan")
    assert (ran.status, ran.out.splitlines()[1:]) == (0, ["no verdict would change"])


def test_without_a_history_there_are_the_tests(run: Runner, tmp_path: Path) -> None:
    without = CONFIG.replace("history: {path: history.sqlite}\n", "")
    ran = run("reload", "-c", configured(tmp_path, without, with_history=False), "--plan")
    assert (ran.status, ran.err[:1]) == (0, "")
    assert ran.out.startswith(
        f"{tmp_path}/smtp.yaml: no mistakes; it has no tests either\nno verdicts on record: the con"
    )
    hidden = CONFIG + "logging: {privacy: true}\n"
    assert "it has pseudonyms" in run("reload", "-c", configured(tmp_path, hidden, with_history=False), "--plan").out
    case = "tests: [{to: bob@local.example, expect: accept}]\n"
    ran = run("reload", "-c", configured(tmp_path, CONFIG + case, with_history=False), "--plan")
    assert "no mistakes; 1 test passes\nno verdicts on record: No such file or directory" in ran.out
    status, found = planned(run, configured(tmp_path, without + case, with_history=False))
    assert (status, found["tests"]) == (0, 1)
    ran = run("reload", "-c", configured(tmp_path, CONFIG + case.replace("accept", "reject")), "--plan")
    assert (ran.status, ran.out) == (78, "")


DONE = {"changed": ["relay_rules: office changed"], "restart": ["user"]}


def told(monkeypatch: pytest.MonkeyPatch, done: dict[str, Any]) -> None:
    def answer(path: str, verb: str) -> dict[str, Any]:
        assert (path.rpartition("/")[2], verb) == ("control.sock", "reload")
        return done

    monkeypatch.setattr(client, "answer", answer)


def test_the_daemon_is_told_after_a_plan(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, DONE)
    ran = run("reload", "-c", configured(tmp_path), "--plan", "--apply")
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "relay_rules: office changed")
    assert run("reload", "-c", str(tmp_path / "smtp.yaml"), "--apply").status == 64
