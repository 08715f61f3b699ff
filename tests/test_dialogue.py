"""Protocol and receiver joined: what a driver sees of a session, and what it does with what must wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from receiving import Says, Store, log_of, make_service

from smtpmaild.dialogue import CONNECTION_LOST, Dialogue
from smtpmaild.envelope import Peer, Session
from smtpmaild.policy import Policy
from smtpmaild.policy.chain import Event as Moment
from smtpmaild.policy.chain import Step
from smtpmaild.service import Service
from smtpmaild.smtp.reply import INTERNAL_ERROR, Reply

REFUSED = Reply(550, "5.7.1", "No")
MESSAGE = (
    b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<mail@local.example>\r\nDATA\r\nS: x\r\n\r\nhello\r\n.\r\n"
)


class Wire:
    """A driver without a socket. work: what the dialogue spawned and nobody has run yet."""

    def __init__(self, service: Service) -> None:
        self.work: list[Coroutine[object, object, None]] = []
        self.changes = 0
        self.service = service
        self.dialogue = Dialogue(service, Peer("192.0.2.1", 4711), self.work.append, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def start(self) -> str:
        self.dialogue.advance()
        return self.output()

    def output(self) -> str:
        return self.dialogue.protocol.data_to_send().decode()

    def send(self, data: bytes) -> list[str]:
        """The codes of the replies."""
        self.dialogue.receive_data(data)
        return self.codes()

    def codes(self) -> list[str]:
        return [line[:3] for line in self.output().splitlines() if line[3] == " "]

    def work_on(self) -> None:
        """Run what was spawned, and what that spawns."""
        while self.work:
            asyncio.run(self.work.pop(0))

    def log(self, event: str) -> dict[str, Any]:
        return log_of(self.service).only(event)


def wire(*policies: Policy, **more: Any) -> Wire:
    it = Wire(make_service(*policies, **more))
    it.start()
    return it


def test_the_first_advance_sends_the_banner() -> None:
    it = Wire(make_service())
    assert it.dialogue.receiver.session.session_id
    assert it.start().startswith("220 mx.example ")
    assert it.changes == 1
    assert it.service.metrics.sessions_opened == it.service.metrics.sessions_open == 1


def test_a_pipelined_session_is_one_answer() -> None:
    store = Store()
    it = wire(stores={"mail": store})
    assert it.send(MESSAGE + MESSAGE + b"QUIT\r\n") == ["250", "250", "250", "354", "250"] * 2 + ["221"]
    assert it.changes == 2
    assert [parcel.message for parcel in store.parcels] == [b"S: x\r\n\r\nhello\r\n"] * 2
    it.dialogue.stop(CONNECTION_LOST)
    assert it.log("session_closed")["reason"] == ""  # both said goodbye


def test_every_decision_may_wait() -> None:
    store = Store()
    it = wire(Says(later=True), stores={"mail": store})
    assert it.send(MESSAGE) == []  # the banner is not decided yet
    assert it.dialogue.is_busy
    it.work_on()
    assert it.codes() == ["220", "250", "250", "250", "354", "250"]
    assert store.parcel.message == b"S: x\r\n\r\nhello\r\n"


def test_commands_the_protocol_refused_are_in_the_log_of_the_session() -> None:
    wire = Wire(make_service())
    wire.start()
    wire.send(
        b"EHLO c.example\r\nFOO b\xc3\xa4r\r\nRCPT TO:<a@b.example>\r\nMAIL FROM:<a@b.example> SIZE=99999999999\r\n\r\n"
    )
    wire.dialogue.stop(CONNECTION_LOST)
    assert wire.log("session_closed")["refused_commands"] == [
        "FOO b?r: 500 5.5.2 Syntax error: unrecognized command",
        "RCPT TO:<a@b.example>: 503 5.5.1 Send MAIL first",
        "MAIL FROM:<a@b.example> SIZE=99999999999: 552 5.3.4 Message size exceeds the limit",
        ": 500 5.5.2 Syntax error: unrecognized command",
    ]


def test_refused_commands_in_the_log_are_bounded() -> None:
    wire = Wire(make_service())
    wire.start()
    wire.send(b"X" * 400 + b"\r\n" + b"FOO\r\n" * 30)
    wire.dialogue.stop(CONNECTION_LOST)
    refused = wire.log("session_closed")["refused_commands"]
    assert len(refused) == 20
    assert refused[0].startswith("X" * 120 + ": 500")


def test_input_waits_in_order_behind_a_slow_store() -> None:
    store = Store(answers_at_once=False)
    it = wire(stores={"mail": store})
    assert it.send(MESSAGE + b"NOOP\r\n") == ["250", "250", "250", "354"]
    assert it.dialogue.is_busy
    assert it.dialogue.is_storing
    assert it.send(b"QUIT\r\n") == []
    store.parcel.finish()
    assert it.codes() == ["250", "250", "221"]
    assert not it.dialogue.is_storing


def test_a_full_store_holds_the_body() -> None:
    store = Store(breaks_after=(2,))
    it = wire(stores={"mail": store})
    it.send(MESSAGE[: MESSAGE.index(b"hello")])
    assert it.dialogue.is_busy
    assert not it.dialogue.is_storing
    assert it.send(b"hello\r\n.\r\n") == []
    store.parcel.drained()
    assert it.codes() == ["250"]
    assert store.parcel.message == b"S: x\r\n\r\nhello\r\n"


def test_rset_between_chunks_forgets_the_message() -> None:
    store = Store()
    it = wire(stores={"mail": store})
    it.send(MESSAGE[: MESSAGE.index(b"DATA")])
    assert it.send(b"BDAT 4\r\nhalfRSET\r\n") == ["250", "250"]
    assert store.parcel.is_aborted
    assert it.send(MESSAGE) == ["250", "250", "250", "354", "250"]


def test_a_refused_part_is_answered_at_the_end_of_the_body() -> None:
    store = Store()
    it = wire(Says({"part": REFUSED}), stores={"mail": store})
    assert it.send(MESSAGE + b"NOOP\r\n") == ["250", "250", "250", "354", "550", "250"]
    assert store.parcel.is_aborted


# Our own mistakes


def break_routing(it: Wire) -> None:
    def route(*_: object) -> None:
        raise RuntimeError("a bug")

    it.dialogue.receiver.service.router.route = route  # type: ignore[method-assign,assignment]


def assert_failed(it: Wire) -> None:
    assert it.codes()[-1] == "421"
    assert it.dialogue.protocol.is_closed
    assert "a bug" in it.log("session_failed")["traceback"]
    it.dialogue.stop(CONNECTION_LOST)
    assert it.log("session_closed")["reason"] == str(INTERNAL_ERROR)


def test_a_bug_ends_the_session_and_only_that() -> None:
    it = wire()
    break_routing(it)
    it.dialogue.receive_data(MESSAGE)
    assert_failed(it)


def test_a_bug_behind_a_policy_that_waits_ends_the_session() -> None:
    it = wire(Says(later=True))
    break_routing(it)
    it.work_on()
    it.dialogue.receive_data(MESSAGE)
    it.work_on()
    assert_failed(it)
    assert not it.dialogue.is_busy


def test_a_decision_that_is_cancelled_ends_the_session() -> None:
    async def wait(session: Session) -> None:
        raise asyncio.CancelledError

    it = wire()
    it.dialogue.receiver.chain = it.service.chain.with_step(Moment.EHLO, Step("mine", wait))
    it.dialogue.receive_data(b"EHLO c.example\r\n")
    with pytest.raises(asyncio.CancelledError):
        it.work_on()
    assert it.codes() == ["421"]
    assert it.dialogue.protocol.is_closed
    assert not it.dialogue.is_busy


def breaks(session: Session, verb: str, reply: Reply) -> Reply:
    raise RuntimeError("a bug")


def test_an_extension_that_breaks_a_reply_ends_the_session() -> None:
    it = wire(filters={"DATA": [breaks]})
    it.dialogue.receive_data(MESSAGE)
    assert_failed(it)


def test_an_extension_that_breaks_the_reply_of_a_slow_store_ends_the_session() -> None:
    store = Store(answers_at_once=False)
    it = wire(filters={"DATA": [breaks]}, stores={"mail": store})
    it.dialogue.receive_data(MESSAGE)
    store.parcel.finish()
    assert_failed(it)


@pytest.mark.parametrize("later", [False, True])
def test_an_extension_that_breaks_the_reply_to_a_timeout_ends_the_session(later: bool) -> None:
    async def wait(session: Session) -> None:
        pass

    it = wire(filters={"timeout": [breaks]})
    it.send(b"EHLO c.example\r\n")
    if later:
        it.dialogue.receiver.chain = it.service.chain.with_step(Moment.TIMEOUT, Step("slow", wait))
    it.dialogue.time_out()
    it.work_on()
    assert_failed(it)


# The end


def test_a_lost_connection_is_the_reason() -> None:
    it = wire()
    it.dialogue.stop(CONNECTION_LOST)
    it.dialogue.stop("again")
    assert it.log("session_closed")["reason"] == CONNECTION_LOST
    assert it.service.metrics.sessions_open == 0


def test_a_refused_session_says_why() -> None:
    it = wire()
    it.dialogue.refuse(Reply(421, "4.7.0", "Too many connections"))
    assert it.codes() == ["421"]
    it.dialogue.stop(CONNECTION_LOST)
    assert it.log("session_closed")["reason"] == "421 4.7.0 Too many connections"


def test_a_decision_that_comes_after_the_end_is_not_said() -> None:
    """The daemon stops while a policy waits; the client still reads our goodbye."""
    it = wire(Says(later=True))
    it.work_on()
    it.dialogue.receive_data(b"EHLO c.example\r\n")
    it.output()
    it.dialogue.refuse(Reply(421, "4.3.2", "Shutting down"))
    assert it.codes() == ["421"]
    it.work_on()
    assert it.codes() == []
    assert not it.dialogue.is_busy
    assert log_of(it.service).named("session_failed") == []


@pytest.mark.parametrize("later", [False, True])
def test_a_timeout_ends_the_session(later: bool) -> None:
    async def wait(session: Session) -> Reply:
        return Reply(421, "4.4.2", "Asleep?")

    it = wire()
    if later:
        it.dialogue.receiver.chain = it.service.chain.with_step(Moment.TIMEOUT, Step("slow", wait))
    it.dialogue.time_out()
    assert it.dialogue.is_busy is later
    it.work_on()
    assert it.codes() == ["421"]
    assert it.dialogue.protocol.is_closed
    assert not it.dialogue.is_busy
    it.dialogue.stop(CONNECTION_LOST)
    assert it.log("session_closed")["reason"].startswith("421 4.4.2 ")


def test_a_connection_that_is_lost_while_a_timeout_waits_is_over() -> None:
    async def wait(session: Session) -> Reply:
        return Reply(421, "4.4.2", "Asleep?")

    it = wire()
    it.dialogue.receiver.chain = it.service.chain.with_step(Moment.TIMEOUT, Step("slow", wait))
    it.dialogue.time_out()
    it.dialogue.stop(CONNECTION_LOST)
    it.work_on()
    assert it.codes() == []
    assert it.log("session_closed")["reason"] == CONNECTION_LOST


def test_a_client_that_leaves_while_its_message_is_stored_is_not_answered() -> None:
    store = Store(answers_at_once=False)
    it = wire(stores={"mail": store})
    it.send(MESSAGE)
    it.dialogue.stop(CONNECTION_LOST)
    store.parcel.finish()
    assert it.codes() == []
    assert it.log("message_accepted")["size"] == 15
    assert not store.parcel.is_aborted


def test_a_client_that_leaves_while_a_policy_waits_is_forgotten() -> None:
    it = wire(Says(later=True))
    it.work_on()
    it.dialogue.receive_data(b"EHLO c.example\r\n")
    it.output()
    it.dialogue.stop(CONNECTION_LOST)
    it.work_on()
    assert it.codes() == []
    assert not it.dialogue.is_busy


def test_listeners_of_the_end_may_wait() -> None:
    heard: list[str] = []

    async def wait(session: Session, reason: str) -> None:
        heard.append(reason)

    it = wire()
    it.dialogue.receiver.chain = it.service.chain.with_step(Moment.STOP_SESSION, Step("slow", wait))
    it.dialogue.stop("why")
    it.work_on()
    assert heard == ["why"]


def over(it: Wire) -> Callable[..., Reply]:
    def quit_(*_: object) -> Reply:
        it.dialogue.receiver.is_over = True
        return Reply(250, "2.0.0", "That was all")

    return quit_


def test_a_callback_may_end_the_session_after_its_reply() -> None:
    it = wire(options={"listens": frozenset(["NOOP"])})
    it.dialogue.receiver.chain = it.service.chain.with_step(Moment.NOOP, Step("mine", over(it)))
    assert it.send(b"NOOP\r\nNOOP\r\n") == ["250"]
    assert it.dialogue.protocol.is_closed
    it.dialogue.stop(CONNECTION_LOST)
    assert it.log("session_closed")["reason"] == ""


def test_callbacks_may_change_in_mid_session() -> None:
    it = wire()
    assert it.send(b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRSET\r\n") == ["250", "250", "250"]
    it.dialogue.change(make_service(Says({"mail": REFUSED}), extensions=()))
    assert it.send(b"MAIL FROM:<a@c.example>\r\n") == ["550"]
    assert it.send(b"MAIL FROM:<a@c.example> SIZE=1\r\n") == ["555"]
