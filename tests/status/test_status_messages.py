"""The last messages, a search among them, the life of one, and what is new."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from looking import Remembered, accepted
from remembering import NOW, Told, attempt, id_of, message, refusal, session

from smtpmaild.cli import main
from smtpmaild.status.messages import MOST, Messages

REFUSALS = [
    {"command": "MAIL", "argument": "a@b.example", "reply": "450 4.7.1 later", "rule": "greylist"},
    {
        "command": "RCPT",
        "argument": "x@y.example",
        "reply": "550 5.7.1 no",
        "rule": "rule 1",
        "reverse_path": "s@b.example",
    },
]


@pytest.fixture
def memory(tmp_path: Path) -> Remembered:
    memory = Remembered(tmp_path)
    accepted(memory, "Q1", subject="first", recipients=["a@x.example", "b@x.example"])
    accepted(memory, "Q2", subject="another", session_id="SQ1")
    memory.add("delivered", queue_id="Q1", recipient="a@x.example", reply="250 Ok")
    memory.add("session_closed", session_id="SQ1", listener="mx", peer="192.0.2.7:1", refusals=[], messages=2)
    memory.add("session_closed", session_id="SX", listener="mx", peer="203.0.113.9:1", refusals=REFUSALS)
    refused = {"reply": "554 5.6.0 virus", "decided_by": "scan", "reverse_path": ""}
    memory.add("message_refused", queue_id="Q3", session_id="SY", **refused)
    return memory


def latest(memory: Remembered, text: str = "") -> list[dict[str, Any]]:
    return asyncio.run(Messages(memory.read).latest(text))


def test_rows_are_messages_and_sessions_that_were_refused(memory: Remembered) -> None:
    rows = latest(memory)
    assert [(row["id"], row["outcome"]) for row in rows] == [
        ("Q3", "refused"),
        ("SX", "refused"),
        ("Q2", "accepted"),
        ("Q1", "accepted"),
    ]
    first, session = rows[-1], rows[1]
    assert (first["from"], first["to"], first["more"]) == ("carol@sender.example", "a@x.example", 1)
    assert (session["from"], session["to"], session["more"]) == ("s@b.example", "x@y.example", 1)
    assert (session["reply"], session["rule"]) == ("550 5.7.1 no", "rule 1")


def test_a_session_that_was_put_off(tmp_path: Path) -> None:
    memory = Remembered(tmp_path)
    memory.add("session_closed", session_id="SX", refusals=REFUSALS[:1])
    [row] = latest(memory)
    assert (row["outcome"], row["to"], row["more"]) == ("deferred", "", 0)


@pytest.mark.parametrize(
    ("text", "ids"), [("another", ["Q2"]), (" ANOTHER ", ["Q2"]), ("203.0.113.9", ["SX"]), ("zzz", [])]
)
def test_search(memory: Remembered, text: str, ids: list[str]) -> None:
    assert [row["id"] for row in latest(memory, text)] == ids


def test_rows_are_bounded(tmp_path: Path) -> None:
    memory = Remembered(tmp_path)
    for number in range(MOST + 5):
        accepted(memory, f"Q{number}")
    rows = latest(memory)
    assert len(rows) == MOST
    assert rows[0]["id"] == f"Q{MOST + 4}"


def life(memory: Remembered, name: str) -> list[str]:
    return [event["name"] for event in asyncio.run(Messages(memory.read).life(name))]


def test_a_life_has_its_session_and_not_its_neighbours(memory: Remembered) -> None:
    assert life(memory, "Q1") == ["message_accepted", "delivered", "session_closed"]
    assert life(memory, "Q2") == life(memory, "q2") == ["message_accepted", "session_closed"]
    assert life(memory, "SX") == ["session_closed"]
    assert life(memory, "nobody") == []
    assert life(memory, "virus") == [], "an id is asked for, not any text"


def test_the_longest_life_is_told_from_its_end(tmp_path: Path) -> None:
    memory = Remembered(tmp_path)
    memory.tell(*(attempt("Q1", "deferred", at=NOW + number, attempts=number) for number in range(600)))
    told = asyncio.run(Messages(memory.read).life("Q1"))
    assert [one["facts"]["attempts"] for one in told] == [*range(100, 600)]


S1, Q1, Q2, REPORT = (id_of(number, NOW - 1) for number in range(4))
LIVED: list[Told] = [
    (NOW, "policy_would_refuse", {"policy": "helo_syntax", "stage": "EHLO", "session_id": S1, "reply": "501 no"}, None),
    message(Q1, session_id=S1, at=NOW + 1, to="carol@remote.example", route="relay:smarthost"),
    message(Q2, session_id=S1, at=NOW + 2),
    session(
        S1,
        at=NOW + 3,
        messages=2,
        refusals=[refusal("no1@local.example"), refusal("no2@local.example")],
        refused_at=[(NOW + 0.5, Q1), (NOW + 1.5, Q2)],
    ),
    attempt(Q1, "deferred", at=NOW + 4, reply="451 later", next_attempt=NOW + 304),
    attempt(Q2, at=NOW + 5),
    (NOW + 6, "queue_changed", {"queue_id": Q1, "verb": "retry", "user": "root", "recipient": "carol@x"}, None),
    attempt(Q1, "bounced", at=NOW + 304, attempts=2, reply="550 no"),
    (NOW + 305, "report_made", {"queue_id": REPORT, "about": Q1, "action": "failed"}, None),
    attempt(REPORT, at=NOW + 306, recipient="alice@sender.example"),
]
CONFIG = """\
listeners: [{name: mx, listen: ["127.0.0.1:2525"]}]
local_domains: {example.com: {deliver: mail}}
deliver_to: {mail: {type: discard}}
history: {}
"""


@pytest.mark.parametrize(
    ("name", "events"),
    [
        (Q1, ["policy_would_refuse", "message_accepted", "session_closed", "deferred", "queue_changed", "bounced"]
         + ["report_made"]),
        (Q2, ["policy_would_refuse", "message_accepted", "session_closed", "delivered"]),
        (S1, [name for _, name, _, _ in LIVED[:-1]]),
        (REPORT, ["report_made", "delivered"]),
    ],
)  # fmt: skip
def test_a_page_tells_the_life_that_trace_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, events: list[str]
) -> None:
    memory = Remembered(tmp_path)
    for told in LIVED:  # in chunks of their own: each is found by its own names
        memory.tell(told)
    (tmp_path / "smtp.yaml").write_text(CONFIG)
    with pytest.raises(SystemExit):
        main(["trace", "--json", "-c", str(tmp_path / "smtp.yaml"), name])
    traced = json.loads(capsys.readouterr().out)
    paged = asyncio.run(Messages(memory.read).life(name))
    assert [event["name"] for event in paged] == events
    assert [(event["name"], event["facts"]) for event in paged] == [
        (event.pop("event"), {key: value for key, value in event.items() if key not in ("number", "time")})
        for event in traced["events"]
    ]


def test_news_begin_now(memory: Remembered) -> None:
    messages = Messages(memory.read)

    async def main() -> list[list[str]]:
        told = []
        for name in ("", "Q8", "Q9", ""):
            if name:
                accepted(memory, name)
            told.append([row["id"] for row in await messages.news()])
        return told

    assert asyncio.run(main()) == [[], ["Q8"], ["Q9"], []]
