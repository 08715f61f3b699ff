"""A message on its way into the stores, through the receiver: who gets it, what they say together, who has to wait."""

from __future__ import annotations

from typing import Any

import pytest
from receiving import Parcel, Says, Store
from test_receiver import BROKEN, DATA, DEFERRED, EHLO, FULL, WELCOME, Desk, desk, end, mail, rcpt

from smtpmaild.envelope import Envelope
from smtpmaild.service import WAIT, Result
from smtpmaild.sink import Outcome
from smtpmaild.smtp import reply as replies
from smtpmaild.smtp.events import Body
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply


def test_every_store_gets_the_message_once_with_all_its_recipients() -> None:
    mail_store, spool = Store(), Store()
    it = desk(stores={"mail": mail_store, "spool": spool})
    it.says(EHLO, mail(), rcpt("mail@a.example"), rcpt("mail+spool@b.example"), DATA, Body(b"text"), end(4))
    assert [to.domain for to in mail_store.parcel.destinations] == ["a.example", "b.example"]
    assert [to.domain for to in spool.parcel.destinations] == ["b.example"]
    assert mail_store.parcel.message == spool.parcel.message == b"text"
    assert it.log.only("message_accepted")["rules"] == ["local_domains.a.example", "local_domains.b.example"]


OUTCOMES: list[tuple[Outcome, Outcome, str]] = [
    # what two stores say, the code the client hears
    (WELCOME, WELCOME, "250 2.0.0 Ok"),
    (WELCOME, FULL, "452 4.3.1"),  # it tries again: a store may get the message twice, none loses it
    (FULL, WELCOME, "452 4.3.1"),
    (WELCOME, BROKEN, "554 5.3.0"),
    (BROKEN, FULL, "452 4.3.1"),
    (FULL, BROKEN, "452 4.3.1"),
    ([WELCOME, FULL], WELCOME, "452 4.3.1"),  # a store may answer for each recipient
    ([WELCOME, BROKEN], [WELCOME, WELCOME], "554 5.3.0"),
]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("first", "second", "said"), OUTCOMES)
def test_the_worst_reply_of_the_stores_counts(at_once: bool, first: Outcome, second: Outcome, said: str) -> None:
    stores = [Store(first, answers_at_once=at_once), Store(second, answers_at_once=at_once)]
    it = desk(stores=dict(zip(("mail", "spool"), stores, strict=True)))
    it.says(EHLO, mail(), rcpt("mail+spool@local.example"), DATA, Body(b"text"))
    reply = it.say(end(4))
    if not at_once:
        assert reply is WAIT
        stores[1].parcel.finish(second)
        assert it.later == []  # not before all have answered
        stores[0].parcel.finish(first)
        (reply,) = it.later
    assert str(reply).startswith(said)
    metrics = it.service.metrics
    counts = (metrics.messages_accepted, metrics.messages_deferred, metrics.messages_refused)
    assert counts == tuple(said.startswith(digit) for digit in "245")


def test_a_store_that_answers_at_once_waits_for_a_slow_one() -> None:
    fast, slow = Store(), Store(answers_at_once=False)
    it = desk(stores={"mail": fast, "spool": slow})
    it.says(EHLO, mail(), rcpt("mail+spool@local.example"), DATA)
    assert it.say(end()) is WAIT
    slow.parcel.finish()
    (reply,) = it.later
    assert isinstance(reply, Reply)
    assert reply.is_positive


class BrokenStore(Store):
    def begin(self, envelope: Envelope, destinations: Any, drained: Any) -> Any:
        return BrokenParcel(self, envelope, destinations, drained)


class BrokenParcel(Parcel):
    def commit(self, done: Any) -> None:
        raise RuntimeError("a bug")


def test_what_is_committed_is_never_aborted_even_by_a_bug() -> None:
    stores = {"mail": Store(answers_at_once=False), "spool": BrokenStore(), "third": Store()}
    it = desk(stores=stores)
    it.says(EHLO, mail(), rcpt("mail+spool+third@local.example"), DATA)
    with pytest.raises(RuntimeError):
        it.say(end())
    it.receiver.stop("421")
    assert not stores["mail"].parcel.is_aborted
    assert stores["third"].parcel.is_aborted


def test_the_failure_of_a_store_is_in_the_log_of_the_message() -> None:
    it = desk(stores={"mail": Store(FULL)})
    assert it.send(b"text") == FULL
    assert it.log.only("message_deferred")["reply"] == str(FULL)
    assert it.session.messages == 0


def test_a_verdict_replaces_the_words_but_not_the_failure_of_a_store() -> None:
    assert desk(Says({"message": WELCOME})).send(b"text") == WELCOME
    assert desk(Says({"message": WELCOME}), stores={"mail": Store(FULL)}).send(b"text") == FULL


def test_where_nothing_is_stored_nothing_is_said_of_a_queue() -> None:
    it = desk(stores={})
    it.says(EHLO, mail(), DATA, Body(b"text"))  # as with embedding: callbacks take the message
    assert it.say(end(4)) == replies.MESSAGE_ACCEPTED


# Back-pressure


def test_a_full_store_stops_the_reading_until_it_has_drained() -> None:
    store = Store(breaks_after=(2,))
    it = desk(stores={"mail": store})
    it.says(EHLO, mail(), rcpt(), DATA)
    assert it.say(Body(b"one")) is WAIT
    assert it.later == []
    store.parcel.drained()
    assert it.later == [None]
    assert it.say(Body(b"two")) is None
    assert it.say(end(6)) is not None
    assert store.parcel.message == b"onetwo"


def test_all_full_stores_must_have_drained() -> None:
    stores = {"mail": Store(breaks_after=(2,)), "spool": Store(breaks_after=(2,)), "third": Store()}
    it = desk(stores=stores)
    it.says(EHLO, mail(), rcpt("mail+spool+third@local.example"), DATA)
    assert it.say(Body(b"one")) is WAIT
    stores["mail"].parcel.drained()
    assert it.later == []
    stores["spool"].parcel.drained()
    assert it.later == [None]


def test_a_store_that_drains_too_late_is_not_heard() -> None:
    store = Store(breaks_after=(2,))
    it = desk(stores={"mail": store})
    it.says(EHLO, mail(), rcpt(), DATA, Body(b"one"))
    it.receiver.stop("connection lost")
    store.parcel.drained()
    assert it.later == []
    assert store.parcel.is_aborted


# A reserve for stores that cannot take their part now


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
