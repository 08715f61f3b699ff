"""Success that is told: to whom, when, and what happens when it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from receiving import RecordingLog, Store

from smtpmaild.envelope import Destination, Envelope, Peer, Recipient, Route, Rule
from smtpmaild.queue import Entry, QueuedMessage, State
from smtpmaild.queue.dsn import HEADER_LIMIT, Reports
from smtpmaild.queue.reports import Action, Told
from smtpmaild.sink import Outcome
from smtpmaild.sink.reporting import ReportingSink
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, RECIPIENT_OK, Reply

FULL = Reply(452, "4.3.1", "Full")
WANTED = "FAILURE,success"


def to(name: str, notify: str = "", *, places: int = 1) -> Recipient:
    address = Address(name, "x.example", f"{name}@x.example")
    destinations = tuple(Destination("mail", "x.example", f"{name}{n}", "", address) for n in range(places))
    return Recipient(address, Route(Rule("r"), RECIPIENT_OK, destinations), {"NOTIFY": notify} if notify else {})


class House:
    """A store with reports before it, and a queue that takes them or does not."""

    def __init__(
        self,
        *recipients: Recipient,
        outcome: Outcome = MESSAGE_ACCEPTED,
        error: OSError | None = None,
        is_queue: bool = False,
    ) -> None:
        self.store = Store(outcome)
        self.log = RecordingLog()
        self.told: list[tuple[QueuedMessage, Sequence[Told]]] = []
        self.put: list[Entry] = []
        self.order: list[str] = []
        self.error = error
        self.outcomes: list[Outcome] = []
        self.reports = Reports("mx.example", lambda _: "relay:mx", self.log, 1.0)
        sender = Address("a", "y.example", "a@y.example")
        self.envelope = Envelope("1" * 18, "S", "mx", "mx.example", Peer("192.0.2.1"), "c", "ESMTP", 1e9, sender)
        self.envelope.recipients = [*recipients]
        self.sink = ReportingSink(self.store, self.report, self.take, is_queue=is_queue)

    def report(self, message: QueuedMessage, told: Sequence[Told]) -> Sequence[Entry]:
        self.told.append((message, told))
        return self.reports(message, told)

    def take(self, make: Callable[[], Sequence[Entry]], done: Callable[[OSError | None], object]) -> None:
        self.put += make()
        self.order.append("put")
        done(self.error)

    def deliver(self, *chunks: bytes) -> None:
        destinations = [one for each in self.envelope.recipients for one in each.route.destinations]
        delivery = self.sink.begin(self.envelope, destinations, lambda: None)
        for chunk in chunks or (b"Received: x\r\n", b"Subject: y\r\n\r\nHello\r\n"):
            delivery.write(chunk)
        delivery.commit(self.done)

    def done(self, outcome: Outcome) -> None:
        self.order.append("done")
        self.outcomes.append(outcome)


def test_success_is_told_before_the_answer() -> None:
    house = House(to("b", WANTED), to("c"), to("d", "NEVER"))
    house.deliver()
    ((message, (told,)),) = house.told
    assert (message.queue_id, message.reverse_path.text) == ("1" * 18, "a@y.example")
    assert (told.action, told.recipient.address.text, told.recipient.state) == (
        Action.DELIVERED,
        "b@x.example",
        State.DELIVERED,
    )
    assert house.order == ["put", "done"]
    assert house.outcomes == [MESSAGE_ACCEPTED]
    ((report, (recipient,)),) = house.put
    assert recipient.address.text == "a@y.example"
    with report.body.open() as stream:
        text = stream.read()
    assert b"\r\nAction: delivered\r\nStatus: 2.0.0\r\n" in text
    assert b"\r\nReceived: x\r\nSubject: y\r\n\r\n--" in text
    assert b"Hello" not in text


def test_who_did_not_ask_passes_straight_through() -> None:
    house = House(to("b"), to("c", "FAILURE"))
    house.deliver()
    assert house.order == ["done"]
    assert house.told == []
    assert house.store.parcel.message == b"Subject: y\r\n\r\nHello\r\n"


def test_failure_is_told_by_its_reply() -> None:
    house = House(to("b", WANTED), outcome=FULL)
    house.deliver()
    assert (house.order, house.outcomes) == (["done"], [FULL])


def actions(house: House) -> list[tuple[str, Action]]:
    house.deliver()
    return [(one.recipient.address.local_part, one.action) for _, told in house.told for one in told]


def test_only_those_whose_mail_arrived_are_told() -> None:
    house = House(to("b", WANTED), to("c", WANTED), outcome=[FULL, MESSAGE_ACCEPTED])
    assert actions(house) == [("c", Action.DELIVERED)]


def test_address_with_several_places_is_expanded_once() -> None:
    """Whoever has the first of them tells."""
    outcome = [MESSAGE_ACCEPTED, MESSAGE_ACCEPTED, FULL, MESSAGE_ACCEPTED]
    house = House(to("b", WANTED, places=2), to("c", WANTED, places=2), outcome=outcome)
    assert actions(house) == [("b", Action.EXPANDED)]


def test_queue_is_no_mailbox() -> None:
    house = House(to("b", WANTED), to("c", WANTED, places=2), is_queue=True)
    assert actions(house) == [("c", Action.EXPANDED)]
    assert actions(House(to("b", WANTED), is_queue=True)) == []


def test_queue_that_takes_nothing_keeps_no_mail_from_arriving() -> None:
    house = House(to("b", WANTED), error=OSError(28, "No space left on device"))
    house.deliver()
    assert house.outcomes == [MESSAGE_ACCEPTED]


def test_no_more_than_a_header_is_kept() -> None:
    house = House(to("b", WANTED))
    house.deliver(b"Received: x\r\n", *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 100, b"\r\n", b"body")
    assert house.told[0][0].body.size == HEADER_LIMIT


@pytest.mark.parametrize("notify", ["", WANTED])
def test_abort_reaches_the_store(notify: str) -> None:
    house = House(to("b", notify))
    house.sink.begin(house.envelope, (), lambda: None).abort()
    assert house.store.parcel.is_aborted


def test_everything_else_is_the_store_s() -> None:
    house = House(to("b"))
    house.sink.prepare()
    house.sink.start(lambda _: None)
    house.store.trouble = FULL
    assert house.sink.unhealthy() is FULL
    assert house.sink.locate(to("b").route.destinations[0]) == "/var/mail/mail/b0"
    house.sink.stop()
