"""The log that names nobody: each kind of fact, facts nobody has thought of, and tracebacks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from receiving import RecordingLog
from remembering import attempt, id_of, message, refusal, session

from smtpmaild.privacy.log import Private, PrivateMemory
from smtpmaild.privacy.pseudonyms import Pseudonyms


@pytest.fixture
def known() -> Pseudonyms:
    return Pseudonyms(lambda: (1, b"k" * 32), words=("var", "mail"))


def told(known: Pseudonyms, event: str, **facts: Any) -> dict[str, Any]:
    log = RecordingLog()
    Private(log, known).info(event, **facts)
    return log.only(event)


def recorded(known: Pseudonyms, event: str, facts: Mapping[str, Any], trace: Any) -> tuple[dict[str, Any], Any]:
    found: list[tuple[dict[str, Any], Any]] = []
    PrivateMemory(lambda _, facts, trace: found.append((facts, trace)), known)(event, dict(facts), trace)
    return found[0]


FACTS: Mapping[str, tuple[object, str]] = {
    "reverse_path": ("secret@x.example", "u-X@x.example"),
    "recipients": (["secret@x.example", "secret@y.example"], "['u-X@x.example', 'u-X@y.example']"),
    "user": ("secret", "n-X"),
    "uid": (1000, "n-X"),
    "client_certificate": ("CN=secret", "n-X"),
    "message_id": ("<secret@x>", "n-X"),
    "subject": ("secret", ""),
    "peer": ("192.0.2.1:4000", "ip-X"),
    "proxy": ("[2001:db8::1]:4000", "ip-X"),
    "helo": ("secret.pool.x.example", "n-X.x.example"),
    "client_name": ("secret.pool.x.example", "n-X.x.example"),
    "reply": ("550 <secret@x.example> at 192.0.2.1", "550 <u-X@x.example> at ip-X"),
    "replies": (["250 secret@x.example"], "['250 u-X@x.example']"),
    "forwarded": ({"addr": "192.0.2.1", "name": "secret.a.example", "login": "secret", "port": None},
                  "{'addr': 'ip-X', 'name': 'n-X.a.example', 'login': 'n-X', 'port': None}"),
    "refused_commands": (["RCPT TO:<secret>: 501 5.1.3 Syntax", "VRFY secret", "secret@x.example: 500 what"],
                         "['RCPT ...: 501 5.1.3 Syntax', 'VRFY ...: ', '...: 500 what']"),
    "something_new": ({"secret@x.example": ("192.0.2.1", 7, None)}, "{'u-X@x.example': ['ip-X', 7, None]}"),
    "an_object": (ValueError("secret@x.example"), "u-X@x.example"),
    "queue_id": ("660E3F12830DBF50E0", "660E3F12830DBF50E0"),
    "rules": (["local_domains.x.example"], "['local_domains.x.example']"),
    "seconds": (0.5, "0.5"),
    "sockets": ("127.0.0.1:25", "127.0.0.1:25"),
}  # fmt: skip


@pytest.mark.parametrize("name", FACTS)
def test_each_kind_of_fact(known: Pseudonyms, name: str) -> None:
    value, shown = FACTS[name]
    found = told(known, "anything", **{name: value})
    assert re.sub(r"(u|ip|n)-[0-9a-f]{10}", r"\1-X", str(found[name])) == shown


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "EHLO", "VRFY", "DATA"])
def test_refusals(known: Pseudonyms, command: str) -> None:
    one = {
        **refusal("secret@x.example"),
        "command": command,
        "reply": "550 secret@x.example",
        "reverse_path": "secret@y",
    }
    (found,) = told(known, "session_closed", refusals=[one])["refusals"]
    assert "secret" not in str(found)
    assert (found["command"], found["rule"]) == (command, one["rule"])


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("550 Secret: no such user", "550 u-X: no such user"),
        ("550 secret-service secrets", "550 secret-service secrets"),
        ("250 Ok", "250 Ok"),
    ],
)
def test_recipient_is_spoken_of_without_his_domain(known: Pseudonyms, reply: str, shown: str) -> None:
    found = told(known, "bounced", recipient="secret@x.example", reply=reply)
    assert re.sub(r"u-[0-9a-f]{10}", "u-X", found["reply"]) == shown


def test_who_is_called_as_a_code(known: Pseudonyms) -> None:
    assert told(known, "bounced", recipient="550@x.example", reply="550 no 550 here")["reply"].startswith("550 no u-")
    assert told(known, "bounced", recipient="", reply="550 no")["reply"] == "550 no"


def test_trace_of_the_history(known: Pseudonyms) -> None:
    _, _, facts, trace = message(id_of(1), to="secret@local.example", subject="secret", message_id="<secret@x>")
    private_facts, found = recorded(known, "message_accepted", facts, trace)
    assert private_facts == told(known, "message_accepted", **facts)
    assert "secret" not in str(found)
    assert found[0][0][1:3] == ("local_domains.local.example", "smtp.yaml:9")
    assert recorded(known, "session_closed", {}, ([(1.0, "Q")],)) == ({}, ([(1.0, "Q")],))
    assert recorded(known, "message_refused", {"recipient": "secret@x.example"}, None)[1] is None


def test_paths_of_stores(known: Pseudonyms) -> None:
    found = told(known, "store_failed", path="/var/mail/secret/new", step="write", cause="No space")
    assert re.fullmatch(r"/var/mail/n-[0-9a-f]{10}/n-[0-9a-f]{10}", found["path"])
    assert told(known, "users_file_read", path="/etc/users")["path"] == "/etc/users"


def test_tracebacks_are_text(known: Pseudonyms) -> None:
    log = RecordingLog()
    private = Private(log, known)
    try:
        raise ValueError("secret@x.example said 192.0.2.1")
    except ValueError as error:
        private.exception("policy_failed", policy="p")
        private.error("agent_failed", exc_info=error)
        private.warning("x", cause="secret@x.example")
    for event in ("policy_failed", "agent_failed"):
        text = log.only(event)["exception"]
        assert text.startswith("Traceback") and "raise ValueError" in text
        assert "secret@" not in text.splitlines()[-1]
        assert "192.0.2.1" not in text.splitlines()[-1]
    assert "secret" not in json.dumps(log.only("x"))


def test_events_of_the_history_name_nobody(known: Pseudonyms) -> None:
    for _, name, facts, trace in (
        message(id_of(1)),
        session(id_of(0), refusals=[refusal("bob@local.example")]),
        attempt(id_of(1), reply="250 carol@remote.example taken"),
    ):
        found = str(recorded(known, name, facts, trace))
        assert not re.search(r"alice|bob|carol|192\.0\.2", found)
