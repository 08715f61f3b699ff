"""The receiver where there is a queue: mail held back, its urgency, and stores that cannot take their part now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from receiving import Store
from test_receiver import DATA, DEFERRED, EHLO, FULL, SENDER_OK, Desk, desk, end, mail, rcpt

from smtpmaild.service import WAIT, Result
from smtpmaild.sink import Outcome
from smtpmaild.smtp.events import Body
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply

BROKEN = Reply(554, "5.3.0", "Broken")


def with_queue(mail_says: Outcome, spool_says: Outcome = MESSAGE_ACCEPTED, *, queue: Store | None = None) -> Desk:
    stores = {"mail": Store(mail_says), "spool": Store(spool_says), "queue": queue or Store()}
    return desk(stores=stores, queue="queue")


def store(it: Desk, name: str) -> Store:
    found = it.service.sinks[name]
    assert isinstance(found, Store)
    return found


def send(it: Desk, *recipients: str) -> Result:
    it.says(EHLO, mail(), *(rcpt(one, NOTIFY="NEVER") for one in recipients), DATA, Body(b"a: 1\r\n"), Body(b"\r\n"))
    return it.say(end(8))


def test_what_a_store_cannot_take_now_goes_into_the_queue() -> None:
    it = with_queue(FULL)
    reply = send(it, "mail+spool@local.example", "spool@local.example", "mail@other.example")
    assert isinstance(reply, Reply)
    kept = store(it, "queue").parcel
    assert str(reply) == f"250 2.0.0 Ok: queued as {store(it, 'spool').parcel.envelope.queue_id}"
    assert kept.message == b"a: 1\r\n\r\n"
    assert kept.chunks[0] == store(it, "spool").parcel.chunks[0]  # our Received field
    found = [(one.sink, one.route, one.recipient.text) for one in kept.destinations]
    assert found == [
        ("queue", "local/mail", "mail+spool@local.example"),
        ("queue", "local/mail", "mail@other.example"),
    ]
    assert [dict(one.parameters) for one in kept.envelope.recipients] == [{"NOTIFY": "NEVER"}] * 2
    facts = it.log.only("stores_deferred")
    assert facts["queued_as"] == kept.envelope.queue_id != facts["queue_id"]
    assert facts["stores"] == ["mail"]
    assert it.log.only("message_accepted")["size"] == 8


@pytest.mark.parametrize(
    ("mail_says", "spool_says", "reply"),
    [
        (MESSAGE_ACCEPTED, MESSAGE_ACCEPTED, "250 2.0.0"),
        (FULL, DEFERRED, "452 4.3.1"),  # nobody has it: the client sends it again
        (FULL, BROKEN, "452 4.3.1"),
        (BROKEN, MESSAGE_ACCEPTED, "554 5.3.0"),
    ],
)
def test_where_stores_agree_the_queue_gets_nothing(mail_says: Reply, spool_says: Reply, reply: str) -> None:
    it = with_queue(mail_says, spool_says)
    assert str(send(it, "mail+spool@local.example")).startswith(reply)
    assert store(it, "queue").parcel.is_aborted


def test_a_queue_that_is_in_trouble_too_leaves_it_to_the_client() -> None:
    it = with_queue(FULL, queue=Store(DEFERRED))
    assert send(it, "mail+spool@local.example") is FULL
    assert it.log.only("stores_deferred")["queued_as"] == ""
    # The queue is one of the stores that failed.
    it = with_queue(MESSAGE_ACCEPTED, queue=Store(DEFERRED))
    assert send(it, "mail+queue@local.example") is DEFERRED
    assert [parcel.is_aborted for parcel in store(it, "queue").parcels] == [False, True]


def test_a_queue_that_answers_later_is_waited_for() -> None:
    it = with_queue(FULL, queue=Store(answers_at_once=False))
    assert send(it, "mail+spool@local.example") is WAIT
    store(it, "queue").parcel.finish()
    (reply,) = it.later
    assert isinstance(reply, Reply)
    assert reply.code == 250


def test_a_client_that_goes_meanwhile_changes_nothing() -> None:
    it = with_queue(FULL, queue=Store(answers_at_once=False))
    assert send(it, "mail+spool@local.example") is WAIT
    it.receiver.stop("connection lost")
    store(it, "queue").parcel.finish()
    assert it.later == []
    assert not store(it, "queue").parcel.is_aborted


def test_a_message_that_is_given_up_is_given_up_everywhere() -> None:
    it = with_queue(MESSAGE_ACCEPTED)
    it.says(EHLO, mail(), rcpt("mail+spool@local.example"), DATA, Body(b"a: 1\r\n"))
    it.receiver.stop("connection lost")
    assert store(it, "queue").parcel.is_aborted


def test_a_reserve_that_is_full_stops_the_reading() -> None:
    queue = Store(breaks_after=(2,))
    it = with_queue(MESSAGE_ACCEPTED, queue=queue)
    it.says(EHLO, mail(), rcpt("mail+spool@local.example"), DATA)
    assert it.say(Body(b"a: 1\r\n")) is WAIT
    queue.parcel.drained()
    assert it.later == [None]


def test_one_store_needs_no_reserve() -> None:
    it = with_queue(FULL)
    assert send(it, "mail@local.example") is FULL
    assert store(it, "queue").parcels == []


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
