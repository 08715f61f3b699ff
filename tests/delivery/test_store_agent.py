"""Mail from the queue into our own stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from queueing import address, entry
from receiving import Parcel, RecordingLog, Store

from smtpmaild.delivery import Passed
from smtpmaild.delivery.store import NOT_LOCAL, NOT_THERE, StoreAgent
from smtpmaild.envelope import Destination, Envelope, Route, Rule
from smtpmaild.routing import NO_SUCH_MAILBOX
from smtpmaild.sink import Outcome
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, RECIPIENT_OK, Reply

LATER = Reply(452, "4.3.1", "Full")


class Slow(Store):
    """Asks for a break after each block, and goes on soon."""

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Parcel:
        parcel = super().begin(envelope, destinations, drained)
        write = parcel.write

        def slow(chunk: bytes) -> bool:
            asyncio.get_running_loop().call_later(0.01, drained)
            write(chunk)
            return False

        parcel.write = slow  # type: ignore[method-assign]
        return parcel


def find(to: Address) -> Route | None:
    if to.domain != "local.example":
        return None
    if to.local_part == "nobody":
        return Route(Rule("local"), NO_SUCH_MAILBOX)
    names = to.local_part.split("+")
    return Route(Rule("local"), RECIPIENT_OK, tuple(Destination(name, to.domain, "m", "", to) for name in names))


def deliver(stores: dict[str, Store], to: str, body: bytes = b"Hello\r\n", only: str = "") -> Reply:
    async def scene() -> Reply:
        agent = StoreAgent(find, stores, "(queue)", "mx.example", RecordingLog(), only)
        message, recipients = entry(to, sender="", body=body)
        (outcome,) = await agent.deliver(message, recipients)
        assert outcome.passed is Passed.IN
        await agent.close()
        return outcome.reply

    return asyncio.run(scene())


def content(store: Store) -> bytes:
    (parcel,) = store.parcels
    return b"".join(parcel.chunks)


def test_each_store_gets_it_and_the_worst_of_them_is_the_outcome() -> None:
    stores = {"a": Store(), "b": Slow()}
    body = b"x" * 600_000
    assert deliver(stores, "a+b@local.example", body) == MESSAGE_ACCEPTED
    assert content(stores["a"]) == content(stores["b"]) == body
    assert stores["a"].parcels[0].envelope.reverse_path.is_null

    stores = {"a": Store(), "b": Store(outcome=LATER)}
    assert deliver(stores, "a+b@local.example") == LATER


def test_a_part_of_the_stores_gets_its_part() -> None:
    stores = {"a": Store(), "b": Store()}
    assert deliver(stores, "a+b@local.example", only="b") == MESSAGE_ACCEPTED
    assert (stores["a"].parcels, content(stores["b"])) == ([], b"Hello\r\n")
    assert deliver(stores, "b@local.example", only="a") == NOT_THERE
    assert deliver(stores, "nobody@local.example", only="a") == NO_SUCH_MAILBOX


def test_what_a_rule_put_into_a_store_gets_there() -> None:
    stores = {"a": Store()}
    assert deliver(stores, "Who@Far.example", only="a") == MESSAGE_ACCEPTED
    (to,) = stores["a"].parcel.destinations
    assert (to.sink, to.domain, to.mailbox) == ("a", "far.example", "who")


@pytest.mark.parametrize(
    ("queue", "reply"), [(MESSAGE_ACCEPTED, MESSAGE_ACCEPTED), (LATER, LATER)], ids=["kept", "not kept"]
)
def test_who_has_it_does_not_get_it_again(queue: Reply, reply: Reply) -> None:
    stores = {"a": Store(), "b": Store(outcome=LATER), "(queue)": Store(outcome=queue)}
    assert deliver(stores, "a+b@local.example") == reply
    parcel = stores["(queue)"].parcel
    assert [(to.route, to.recipient.text) for to in parcel.destinations] == [("local/b", "a+b@local.example")]
    assert b"".join(parcel.chunks) == b"Hello\r\n"
    assert parcel.envelope.queue_id != stores["a"].parcel.envelope.queue_id


def test_what_is_refused_for_good_is_not_kept() -> None:
    stores = {"a": Store(), "b": Store(outcome=NO_SUCH_MAILBOX), "(queue)": Store()}
    assert deliver(stores, "a+b@local.example") == NO_SUCH_MAILBOX
    assert stores["(queue)"].parcels == []


def test_store_in_trouble_is_not_begun_with() -> None:
    stores = {"a": Store(), "b": Store(trouble=LATER)}
    assert deliver(stores, "a+b@local.example") == LATER
    assert stores["a"].parcels == []


def test_what_goes_back_into_the_queue_is_another_message_there() -> None:
    stores = {"(queue)": Store(), "a": Store()}

    def onward(to: Address) -> Route:
        there = [Destination(name, to.domain, "m", "", to) for name in stores]
        return Route(Rule("local"), RECIPIENT_OK, tuple(there))

    async def scene() -> None:
        agent = StoreAgent(onward, stores, "(queue)", "mx.example", RecordingLog())
        message, recipients = entry("a@local.example")
        await agent.deliver(message, recipients)
        assert stores["a"].parcels[0].envelope.queue_id == message.queue_id
        assert stores["(queue)"].parcels[0].envelope.queue_id != message.queue_id

    asyncio.run(scene())


@pytest.mark.parametrize(("to", "reply"), [("nobody@local.example", NO_SUCH_MAILBOX), ("a@far.example", NOT_LOCAL)])
def test_nobody_there(to: str, reply: Reply) -> None:
    assert deliver({}, to) == reply


def test_body_that_cannot_be_read_leaves_nothing() -> None:
    class Broken:
        size = 3

        def open(self) -> object:
            raise OSError("gone")

    async def scene() -> None:
        store = Store()
        agent = StoreAgent(find, {"a": store}, "(queue)", "mx.example", RecordingLog())
        message, recipients = entry("a@local.example")
        object.__setattr__(message, "body", Broken())
        (outcome,) = await agent.deliver(message, recipients)
        assert outcome.reply.code == 451
        assert [parcel.is_aborted for parcel in store.parcels] == [True]

    asyncio.run(scene())


def test_stop_while_a_store_is_at_work_is_no_outcome() -> None:
    async def scene() -> None:
        store = Store(answers_at_once=False)
        agent = StoreAgent(find, {"a": store}, "(queue)", "mx.example", RecordingLog())
        task = asyncio.create_task(agent.deliver(*entry("a@local.example")))
        async with asyncio.timeout(5):
            while not (store.parcels and store.parcels[0].done):
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store.parcels[0].finish()  # nobody is left to hear it

    asyncio.run(scene())


def test_answer_for_each_counts_by_its_worst() -> None:
    each: Outcome = [MESSAGE_ACCEPTED, LATER]
    assert deliver({"a": Store(outcome=each)}, "a@local.example") == LATER
    assert address("a@local.example").domain == "local.example"
