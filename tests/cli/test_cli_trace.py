"""`smtpmaild trace`: what it prints, what it says where it finds nothing, and that hostile facts stay text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from remembering import NOW, append, attempt, id_of, message, refusal, session, settings_in
from running import Runner

from smtpmaild.history.store import Store

Q1, S1 = id_of(1), id_of(0)
CONFIG = """\
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"]}
local_domains:
  example.com: {deliver: mail}
deliver_to:
  mail: {type: discard}
"""
HOSTILE = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>\u202egnp.exe\r\nInjected: 1"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv("TZ", "UTC")
    return Runner(capfd, monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "smtp.yaml"
    path.write_text(CONFIG + "history: {}\n")
    return str(path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(settings_in(tmp_path), print)
    yield store
    store.close()


def test_a_life_is_told_in_order(run: Runner, config: str, store: Store) -> None:
    append(
        store,
        [
            message(Q1, session_id=S1, at=NOW + 1, to="carol@remote.example", route="relay:smarthost"),
            session(S1, at=NOW + 2, refusals=[refusal("no@local.example")], refused_at=[(NOW + 0.5, Q1)]),
            attempt(Q1, at=NOW + 86400),
        ],
    )
    ran = run("trace", Q1, "-c", config)
    assert ran.status == 0
    assert (
        ran.out
        == f"""\
message {Q1} from <alice@sender.example> to carol@remote.example, "Hello"
2026-09-21 UTC
14:13:20.000  192.0.2.1:4000 connects to listener mx
                session {S1}
                greets as client.example
14:13:20.500  RCPT TO:<no@local.example> refused
                550 5.1.1 No such mailbox
                by local_domains.local.example (smtp.yaml:9)
14:13:21.000  message {Q1} from <alice@sender.example>, 4.1 kB accepted
                250 2.0.0 Ok: queued as {Q1}
                carol@remote.example: by local_domains.local.example (smtp.yaml:9)
                    queued for carol@remote.example, to go by relay:smarthost
14:13:22.000  session closed after 500 ms
2026-09-22 UTC
14:13:20.000  {Q1} delivered to carol@remote.example
                mx.remote.example [192.0.2.99]:25 said: 250 2.0.0 thanks
                attempt 1 by relay:smarthost, 1.5 s after it came
              = delivered
"""
    )


def test_several_lives_the_newest_first(run: Runner, config: str, store: Store) -> None:
    append(store, [message(id_of(number), session_id=f"s{number}", at=NOW + number) for number in range(7)])
    ran = run("trace", "alice@sender.example", "-c", config, "--limit", "2")
    assert [line for line in ran.out.splitlines() if line.startswith("message")] == [
        f'message {id_of(number)} from <alice@sender.example> to bob@local.example, "Hello"' for number in (6, 5)
    ]
    assert ran.err == "\nThere is more: these are the newest 2; --limit shows others.\n"


def test_json_has_everything(run: Runner, config: str, store: Store) -> None:
    append(store, [message(Q1, subject=HOSTILE), attempt(Q1)])
    ran = run("trace", "bob@local.example", "-c", config, "--json")
    (line,) = ran.out.splitlines()
    assert line.isascii()
    life = json.loads(line)
    assert (life["kind"], life["id"], life["end"]) == ("message", Q1, "1 stored, 1 delivered")
    assert life["events"][0]["subject"] == HOSTILE
    assert life["events"][0]["time"] == "2026-09-21T14:13:20.000+00:00"


def test_hostile_facts_stay_text(run: Runner, config: str, store: Store) -> None:
    append(
        store,
        [
            message(Q1, subject=HOSTILE, helo=HOSTILE, sender=f"{HOSTILE}@x.example", reply=HOSTILE),
            session(S1, refusals=[refusal(HOSTILE)], refused_commands=[HOSTILE], reason=HOSTILE),
            attempt(Q1, "deferred", reply=HOSTILE, remote=HOSTILE),
            (NOW, "policy_failed", {"session_id": S1, HOSTILE: HOSTILE}, None),
        ],
    )
    ran = run("trace", Q1, "-c", config)
    assert ran.status == 0
    assert "\\x1b[2J" in ran.out and "\\u202e" in ran.out
    assert all(character.isprintable() or character == "\n" for character in ran.out)
    assert not any(line.startswith("Injected") for line in ran.out.splitlines())


def test_nothing_is_found(run: Runner, config: str, store: Store) -> None:
    append(store, [message(Q1)])
    ran = run("trace", "no\x1bbody@x.example", "-c", config)
    assert (ran.status, ran.out) == (66, "")
    assert ran.err == (
        f"Error: nothing is known of 'no\\x1bbody@x.example'. {store._settings.path} has 1 events since "
        "2026-09-21 14:13; it keeps 7 days or 500 MB\n"
    )


def test_nothing_has_happened(run: Runner, config: str, store: Store) -> None:
    ran = run("trace", "x", "-c", config)
    path = store._settings.path
    assert (ran.status, ran.out) == (66, "")
    assert ran.err == f"Error: there is no {path} yet: nothing has happened since `history` is on\n"
    store._connected()
    store.close()
    assert "has no events yet" in run("trace", "x", "-c", config).err


def test_nothing_is_recorded(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "smtp.yaml"
    path.write_text(CONFIG)
    ran = run("trace", "x", "-c", str(path))
    assert ran.status == 69
    assert "`history: {}` turns it on" in ran.err


def test_file_that_cannot_be_read(run: Runner, config: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    os.makedirs(os.path.dirname(store._settings.path))
    Path(store._settings.path).write_bytes(b"no database" * 999)
    ran = run("trace", "x", "-c", config)
    assert (ran.status, ran.err) == (74, f"Error: {store._settings.path}: file is not a database\n")

    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("smtpmaild.history.reading.os.stat", refused)
    assert run("trace", "x", "-c", config).status == 77


def test_what_is_asked(run: Runner, config: str) -> None:
    ran = run("trace", "-c", config)
    assert ran.status == 64
    assert "or --follow for everything" in ran.err


@pytest.fixture
def follow(run: Runner, config: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`trace --follow` that finds something new each time it looks, until there is nothing more."""

    def following(*arguments: str, new: list[list[object]]) -> str:
        def sleep(_: float) -> None:
            if not new:
                raise KeyboardInterrupt
            append(store, new.pop(0))  # type: ignore[arg-type]

        monkeypatch.setattr("time.sleep", sleep)
        ran = run("trace", *arguments, "--follow", "-c", config)
        assert ran.status == 130
        return ran.out

    return following


def test_follow_one(follow: Callable[..., str], store: Store) -> None:
    append(store, [message(Q1)])
    out = follow(Q1, new=[[attempt(Q1, "deferred", at=NOW + 1), message(id_of(2), session_id=id_of(3))], [session(S1)]])
    assert [line[14:] for line in out.splitlines() if line.startswith("14:")] == [
        "192.0.2.1:4000 connects to listener mx",
        f"message {Q1} from <alice@sender.example>, 4.1 kB accepted",
        f"{Q1} could not be delivered yet to carol@remote.example",
        "session closed after 500 ms",
    ]


def test_follow_everything(follow: Callable[..., str], store: Store) -> None:
    append(store, [message(Q1)])
    out = follow(new=[[attempt(Q1)], [(NOW, "reloaded", {}, None)]])
    assert f"{Q1} delivered to carol@remote.example" in out
    assert "reloaded" in out
    assert "accepted" not in out


def test_follow_in_json(follow: Callable[..., str], store: Store) -> None:
    append(store, [message(id_of(9))])
    out = follow(
        "carol@remote.example", "--json", new=[[attempt(Q1)], [message(Q1)], [message(id_of(8), session_id=id_of(7))]]
    )
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["delivered", "message_accepted"]
