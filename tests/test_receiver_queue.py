"""The receiver where there is a queue: mail held back, and its urgency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from test_receiver import DATA, EHLO, SENDER_OK, desk, end, mail, rcpt
from test_reception import store, with_queue

from smtpmaild.smtp.events import Body
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply


@pytest.mark.parametrize("words", [{"HOLDFOR": "3600"}, {"HOLDUNTIL": "2100-01-01T00:00:00Z"}])
def test_mail_that_is_held_back_waits_in_the_queue_whoever_it_is_for(words: Mapping[str, str]) -> None:
    it = with_queue(MESSAGE_ACCEPTED)
    it.says(EHLO, mail(**words), rcpt("mail+spool@local.example"), rcpt("queue@far.example"), DATA, Body(b"\r\n"))
    assert str(it.say(end(2))).startswith("250 2.0.0 Ok: queued")
    parcel = store(it, "queue").parcel
    assert [one.route for one in parcel.destinations] == ["local/mail", "local/spool", ""]
    assert parcel.envelope.release_at > parcel.envelope.received_at + 3599
    assert store(it, "mail").parcels == store(it, "spool").parcels == []


def trusting(most: int) -> dict[str, Any]:
    return {"most_urgent": lambda session: most if session.listener == "mx" else 0}


@pytest.mark.parametrize(
    ("asked", "most", "given", "reply"),
    [
        ("9", 9, "9", SENDER_OK),
        ("-9", 0, "-9", SENDER_OK),
        ("5", 3, "3", Reply(250, "2.3.6", "3 is the new priority assigned to the message")),
    ],
)
def test_priority_is_as_high_as_the_client_is_trusted(asked: str, most: int, given: str, reply: Reply) -> None:
    it = desk(**trusting(most))
    said = it.says(EHLO, mail(**{"MT-PRIORITY": asked, "SIZE": "2"}), rcpt(), DATA, Body(b"\r\n"), end(2))
    assert str(said[1]) == str(reply)
    parcel = store(it, "mail").parcel
    assert parcel.envelope.parameters == {"MT-PRIORITY": given, "SIZE": "2"}
    assert it.log.only("message_accepted")["priority"] == asked  # RFC 6710 §4.1: "SHOULD be logged"
    assert f"\r\n\tpriority {asked};\r\n".encode() in parcel.chunks[0]


@pytest.mark.parametrize(("priorities", "parameters"), [("MIXER", {"MT-PRIORITY": "0"}), ("", {})])
def test_who_says_nothing_of_priority_has_the_ordinary_one(priorities: str, parameters: Mapping[str, str]) -> None:
    """RFC 6710 §4.2: the value "determined by the procedure from Section 4.1 MUST appear" at the next hop."""
    it = desk(options={"priorities": priorities})
    it.says(EHLO, mail(), rcpt(), DATA, Body(b"\r\n"), end(2))
    parcel = store(it, "mail").parcel
    assert parcel.envelope.parameters == parameters
    assert b"priority" not in parcel.chunks[0]
    assert "priority" not in it.log.only("message_accepted")
