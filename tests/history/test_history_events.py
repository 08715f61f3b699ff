"""What is kept of each event, as text and back; every name of an event has its key."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from remembering import NOW, Told, attempt, chunk, id_of, message, refusal, session

from smtpmaild.history import Event
from smtpmaild.history.events import (
    KEPT,
    events_of,
    events_with,
    host_of,
    key_of,
    mentions,
    names_of,
    needle_of,
)

HOSTILE = 'x\n"},<script>\x1b[2J\u202e\U0001f480\udcff'


def back(*told: Told) -> list[Event]:
    return [*events_of(chunk(*told).text, 7)]


def test_message_comes_back_with_its_trace() -> None:
    (event,) = back(message(id_of(1), message_id="<m@x>", tls="TLSv1.3 X"))
    assert (event.number, event.at, event.name) == (7, NOW, "message_accepted")
    assert event.facts["recipients"] == ["bob@local.example"]
    assert event.facts["accepted"] == [
        {
            "address": "bob@local.example",
            "rule": "local_domains.local.example",
            "where": "smtp.yaml:9",
            "to": [{"store": "mail", "mailbox": "bob", "domain": "local.example", "route": ""}],
        }
    ]
    assert event.facts["message_id"] == "<m@x>"
    assert event.facts["tls"] == "TLSv1.3 X"
    assert "rules" not in event.facts


def test_message_without_trace_keeps_its_recipients() -> None:
    at, name, facts, _ = message(id_of(1))
    (event,) = back((at, name, facts, None))
    assert event.facts == facts


def test_refusals_know_when() -> None:
    (event,) = back(session(id_of(0), refusals=[refusal("x@local.example")], refused_at=[(NOW - 0.2, id_of(1))]))
    assert event.facts["refused_at"] == [{"at": NOW - 0.2, "queue_id": id_of(1)}]
    assert event.facts["refusals"][0]["argument"] == "x@local.example"


@pytest.mark.parametrize("name", KEPT)
def test_every_event_comes_back(name: str) -> None:
    facts = {key: f"value of {key}" for key in KEPT[name]} | {"more": 1, "deep": {"list": [1, None]}}
    if "refusals" in facts:
        facts["refusals"] = [refusal("x@y.example")]
    (event,) = back((NOW, name, facts, None))
    assert event.facts == facts


def test_usual_event_has_no_rest() -> None:
    row = json.loads(chunk(attempt(id_of(1))).text)
    assert row[-1] == 1.5  # its age


def test_fact_that_is_missing_is_nothing() -> None:
    at, name, facts, trace = attempt(id_of(1))
    (event,) = back((at, name, {key: value for key, value in facts.items() if key != "remote"}, trace))
    assert event.facts["remote"] is None
    assert event.facts["age"] == 1.5


def test_traceback_is_left_to_the_log() -> None:
    (event,) = back((NOW, "policy_failed", {"policy": "x", "exc_info": ValueError("no JSON")}, None))
    assert event.facts == {"policy": "x"}


def test_what_is_no_json_becomes_text() -> None:
    (event,) = back((NOW, "stopping", {"seconds": 1j}, None))
    assert event.facts == {"seconds": "1j"}


def test_hostile_text_stays_one_value() -> None:
    text = chunk(message(id_of(1), subject=HOSTILE), session(id_of(0))).text
    assert b"\n" not in text
    first, second = events_of(text, 1)
    assert first.facts["subject"] == HOSTILE
    assert second.name == "session_closed"


NAMED: Mapping[str, tuple[Told, set[str]]] = {
    "message": (
        message(id_of(1), sender="Alice@Sender.example", to="BOB@local.example", user="Ann", message_id="<M@x>"),
        {id_of(1).lower(), id_of(0).lower(), "alice@sender.example", "bob@local.example", "ann", "<m@x>", "192.0.2.1"},
    ),
    "session": (
        session(id_of(0), peer="[2001:db8::1]:25", refusals=[refusal("No@local.example")], user="ann"),
        {id_of(0).lower(), "2001:db8::1", "no@local.example", "alice@sender.example", "ann"},
    ),
    "attempt": (attempt(id_of(1)), {id_of(1).lower(), "alice@sender.example", "carol@remote.example"}),
    "report": (
        (NOW, "report_made", {"queue_id": id_of(2), "about": id_of(1), "action": "failed"}, None),
        {id_of(1).lower(), id_of(2).lower()},
    ),
    "local": (session(id_of(0), peer="local"), {id_of(0).lower(), "local"}),
    "nobody": ((NOW, "reloaded", {}, None), set()),
}


@pytest.mark.parametrize("which", NAMED)
def test_every_name_has_its_key(which: str) -> None:
    told, names = NAMED[which]
    assert names_of(back(told)[0]) == names
    keys = chunk(told).keys
    assert {keys[at : at + 4] for at in range(0, len(keys), 4)} >= {key_of(name) for name in names}
    assert len(keys) == 4 * max(1, len(names))


@pytest.mark.parametrize(
    ("peer", "host"),
    [("192.0.2.1:25", "192.0.2.1"), ("[2001:db8::1]:25", "2001:db8::1"), ("local", "local"), ("", ""), ("x", "x")],
)
def test_host_of(peer: str, host: str) -> None:
    assert host_of(peer) == host


@pytest.mark.parametrize(
    "text", ["bob@LOCAL", "smtp.yaml:9", "HELLO", "4096", "grüße", '"quoted"', "\u202e", "accepted"]
)
def test_text_is_found(text: str) -> None:
    told = message(id_of(1), subject='Hello "quoted" Grüße\u202e')
    (event,) = back(told)
    assert mentions(event, text.lower())
    assert needle_of(text) in chunk(told).text.lower()


def test_other_text_is_not_found() -> None:
    (event,) = back(message(id_of(1)))
    assert not mentions(event, "nobody")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("nobody", []),
        ("", []),
        ("first", [5]),
        ("FIRST", [5]),
        ("session_closed", [7, 6]),  # the name of an event
        ("x@y.example", [7, 6, 5]),
        ('said "quoted"', [6]),
        ('[1795384414371,"session_closed",', [6]),  # what looks like a row, within a text
        ("\u00fcber", [6]),
    ],
)
def test_events_with_a_text_are_found_without_reading_the_others(text: str, numbers: list[int]) -> None:
    def message(subject: str) -> dict[str, object]:
        return {**dict.fromkeys(KEPT["message_accepted"], "x@y.example"), "subject": subject}

    trap = 'said "quoted" [1795384414371,"session_closed",1] \u00fcber'
    refusals = {**dict.fromkeys(KEPT["session_closed"]), "peer": "x@y.example:1"}
    told: list[Told] = [
        (1795384414.0, "message_accepted", message("first"), None),
        (1795384415.0, "message_accepted", message(trap), None),
        (1795384416.0, "session_closed", refusals, [[[1795384414371, "660E"]]]),
    ]
    body = chunk(*told).text
    found = [*events_with(body, needle_of(text), 5)]
    assert [event.number for event in found] == numbers
    assert all(event in [*events_of(body, 5)] for event in found)
