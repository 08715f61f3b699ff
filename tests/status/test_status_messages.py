"""The last messages, a search among them, the life of one, and what is new."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from looking import Remembered, accepted

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
def memory() -> Remembered:
    memory = Remembered()
    accepted(memory, "Q1", subject="first", recipients=["a@x.example", "b@x.example"])
    accepted(memory, "Q2", subject="another", session_id="SQ1")
    memory.add("delivered", queue_id="Q1", recipient="a@x.example", reply="250 Ok")
    memory.add("session_closed", session_id="SQ1", listener="mx", peer="192.0.2.7:1", refusals=[], messages=2)
    memory.add("session_closed", session_id="SX", listener="mx", peer="203.0.113.9:1", refusals=REFUSALS)
    memory.add("message_refused", queue_id="Q3", session_id="SY", reply="554 5.6.0 virus", decided_by="scan")
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


def test_a_session_that_was_put_off() -> None:
    memory = Remembered()
    memory.add("session_closed", session_id="SX", refusals=REFUSALS[:1])
    [row] = latest(memory)
    assert (row["outcome"], row["to"], row["more"]) == ("deferred", "", 0)


@pytest.mark.parametrize(
    ("text", "ids"), [("another", ["Q2"]), (" ANOTHER ", ["Q2"]), ("203.0.113.9", ["SX"]), ("zzz", [])]
)
def test_search(memory: Remembered, text: str, ids: list[str]) -> None:
    assert [row["id"] for row in latest(memory, text)] == ids


def test_rows_are_bounded() -> None:
    memory = Remembered()
    for number in range(MOST + 5):
        accepted(memory, f"Q{number}")
    rows = latest(memory)
    assert len(rows) == MOST
    assert rows[0]["id"] == f"Q{MOST + 4}"


def life(memory: Remembered, name: str) -> list[str]:
    return [event["name"] for event in asyncio.run(Messages(memory.read).life(name))]


def test_a_life_has_its_session_and_not_its_neighbours(memory: Remembered) -> None:
    assert life(memory, "Q1") == ["message_accepted", "delivered", "session_closed"]
    assert life(memory, "SX") == ["session_closed"]
    assert life(memory, "nobody") == []


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
