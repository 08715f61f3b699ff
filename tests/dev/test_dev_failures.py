from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from smtpmaild.content import Content
from smtpmaild.dev.failures import STALL_SECONDS, Failure, Failures, parse
from smtpmaild.envelope import Recipient, Route, Rule, Session, Transaction
from smtpmaild.policy import Answer
from smtpmaild.smtp.address import parse_mailbox
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply


class World:
    """Failures with a die that always falls alike, a clock that does not wait, and connections to be dropped."""

    def __init__(self, drawn: float = 0.5) -> None:
        self.dropped: list[Session] = []
        self.waited: list[float] = []
        self.failures = Failures(lambda: drawn, self._pause, self.dropped.append)

    async def _pause(self, seconds: float) -> None:
        self.waited.append(seconds)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("rcpt=451", Failure("rcpt", 451)),
        ("rcpt=451:0.1", Failure("rcpt", 451, probability=0.1)),
        ("connect=421:25%", Failure("connect", 421, probability=0.25)),
        ("mail=421:2x", Failure("mail", 421, times=2)),
        ("message=drop", Failure("message", "drop")),
        ("data=stall:.5:1x", Failure("data", "stall", probability=0.5, times=1)),
        ("rcpt=550:*@example.org", Failure("rcpt", 550, address="*@example.org")),
        ("rcpt=550:0.5:3x:a@b.example", Failure("rcpt", 550, 0.5, 3, "a@b.example")),
    ],
)
def test_failure_is_read_and_written_as_people_do(text: str, failure: Failure) -> None:
    assert parse(text) == failure
    assert parse(str(failure)) == failure


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rcpt", "not STAGE=CODE"),
        ("rcpt=451:", "not STAGE=CODE"),
        ("quit=451", "no stage 'quit', only connect, helo"),
        ("rcpt=250", "from 400 to 599, drop or stall, not 250"),
        ("rcpt=explode", "not 'explode'"),
        ("rcpt=451:often", "'often' is no probability"),
        ("rcpt=451:%", "a probability is a number from 0 to 1"),
        ("rcpt=451:7", "from 0% to 100%, not 7"),
        ("helo=550:a@b.example", "no address is known yet"),
    ],
)
def test_mistake_is_told(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        parse(text)


def rcpt(world: World, transaction: Transaction, text: str) -> Answer:
    address = parse_mailbox(text)
    assert address is not None
    return world.failures.rcpt(transaction, address)


def code_of(answer: Answer) -> int:
    assert isinstance(answer, Reply)
    return answer.code


def test_stages_are_asked_in_their_place(session: Session, transaction: Transaction) -> None:
    for stage in ("connect", "helo", "mail", "rcpt", "data", "message"):
        world = World()
        chosen = world.failures.add(Failure(stage, 451, text="chosen"))
        answers = {
            "connect": world.failures.connect(session),
            "helo": world.failures.helo(session),
            "mail": world.failures.mail(transaction),
            "rcpt": rcpt(world, transaction, "a@b.example"),
            "data": world.failures.data(transaction),
            "message": world.failures.message(transaction, Content(keep_body=False)),
        }
        answer = answers.pop(stage)
        assert isinstance(answer, Reply)
        enhanced = "" if stage in ("connect", "helo") else "4.0.0"
        assert answer == Reply(451, enhanced, "chosen")
        assert set(answers.values()) == {None}
        assert chosen.hits == 1


@pytest.mark.parametrize(("drawn", "fails"), [(0.09, True), (0.1, False)])
def test_probability_is_drawn(session: Session, drawn: float, fails: bool) -> None:
    world = World(drawn)
    world.failures.add(parse("connect=421:0.1"))
    assert (world.failures.connect(session) is not None) is fails


def test_times_are_counted(session: Session) -> None:
    world = World()
    world.failures.add(parse("connect=421:2x"))
    assert [world.failures.connect(session) is not None for _ in range(4)] == [True, True, False, False]
    assert world.failures.chosen == ()


def test_only_the_address_that_is_meant_fails(transaction: Transaction) -> None:
    world = World()
    world.failures.add(parse("rcpt=550:*@Bounce.example"))
    assert code_of(rcpt(world, transaction, "x@bounce.EXAMPLE")) == 550
    assert rcpt(world, transaction, "x@other.example") is None


def test_replacing_forgets_what_was_before(session: Session) -> None:
    world = World()
    world.failures.add(parse("connect=421"))
    world.failures.replace([parse("helo=550")])
    assert world.failures.connect(session) is None
    assert [str(one.failure) for one in world.failures.chosen] == ["helo=550"]


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("fail-451@example.org", 451),
        ("fail-550-rcpt@example.org", 550),
        ("Bob+FAIL-421-RCPT@example.org", 421),
        ("fail-550-data@example.org", None),
        ("myfail-550@example.org", None),
        ("fail-5501@example.org", None),
        ("bob@fail-550.example", None),
    ],
)
def test_recipient_asks_for_its_own_failure(transaction: Transaction, address: str, code: int | None) -> None:
    answer = rcpt(World(), transaction, address)
    assert (None if answer is None else code_of(answer)) == code


def test_sender_asks_for_a_failure_at_any_stage(transaction: Transaction) -> None:
    world = World()
    sender = parse_mailbox("fail-451@example.org")
    assert sender is not None
    transaction.envelope.reverse_path = sender
    assert code_of(world.failures.mail(transaction)) == 451
    assert rcpt(world, transaction, "a@b.example") is None

    sender = parse_mailbox("fail-452-rcpt@example.org")
    assert sender is not None
    transaction.envelope.reverse_path = sender
    assert world.failures.mail(transaction) is None
    assert code_of(rcpt(world, transaction, "a@b.example")) == 452


def test_recipient_asks_for_a_failure_of_the_message(transaction: Transaction) -> None:
    world = World()
    address = parse_mailbox("fail-552-message@example.org")
    assert address is not None
    assert rcpt(world, transaction, address.text) is None
    transaction.envelope.recipients.append(Recipient(address, Route(Rule("r"), RECIPIENT_OK)))
    assert world.failures.data(transaction) is None
    assert code_of(world.failures.message(transaction, Content(keep_body=False))) == 552


@pytest.mark.parametrize(
    "subject", [b"please fail-554", b"=?utf-8?q?fail-554=2Dmessage?=", b"a\r\n folded fail-554 line"]
)
def test_subject_asks_for_a_failure(transaction: Transaction, subject: bytes) -> None:
    content = Content(keep_body=False)
    content.write(b"From: a@b.example\r\nSubject: " + subject + b"\r\n\r\nfail-550\r\n")
    assert code_of(World().failures.message(transaction, content)) == 554


def test_drop_closes_the_connection(session: Session) -> None:
    world = World()
    world.failures.add(parse("helo=drop"))
    assert code_of(world.failures.helo(session)) == 421  # nobody hears it
    assert world.dropped == [session]


def test_stall_outlasts_the_client(session: Session) -> None:
    world = World()
    world.failures.add(parse("helo=stall"))
    answer = world.failures.helo(session)
    assert isinstance(answer, Awaitable)

    async def wait() -> object:
        return await answer

    assert isinstance(asyncio.run(wait()), Reply)
    assert world.waited == [STALL_SECONDS]
