"""A session of LMTP as its driver sees it: how many replies the end of a message takes, and what they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_driver import OPTIONS, agree, assert_enhanced, codes

from smtpmaild.smtp.events import Connected, EndOfData, Event, Hello
from smtpmaild.smtp.extension import Dialect, Security, ServerOptions
from smtpmaild.smtp.reply import Reply
from smtpmaild.smtp.session import ServerSession

LMTP = replace(OPTIONS, is_lmtp=True)
OK = Reply(250, "2.0.0", "Ok")
FULL = Reply(452, "4.2.2", "Full")
NO = Reply(550, "5.7.1", "No")
GONE = Reply(421, "4.7.0", "Gone")
ENVELOPE = (
    b"LHLO client.example\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@local.example>\r\nRCPT TO:<v@local.example>\r\n"
    b"RCPT TO:<u@local.example>\r\n"
)


class Teller:
    """Agrees to everything, but answers the end of data as it is told."""

    def __init__(self, *answers: Reply, options: ServerOptions = LMTP) -> None:
        self.session = ServerSession(Dialect(options))
        self.answers = answers
        self.ends: list[EndOfData] = []
        self.feed(b"")

    def feed(self, data: bytes) -> bytes:
        self.session.receive_data(data)
        while event := self.session.next_event():
            self._answer(event)
        return self.session.data_to_send()

    def _answer(self, event: Event) -> None:
        if isinstance(event, EndOfData):
            self.ends.append(event)
            if event.failure is None and self.answers:
                self.session.reply_each(self.answers)
                return
        reply = agree(event)
        if reply is not None:
            self.session.reply(reply)


def test_each_recipient_gets_its_reply() -> None:
    teller = Teller(OK, FULL, NO)
    teller.feed(ENVELOPE)
    assert teller.feed(b"DATA\r\nx\r\n.\r\nNOOP\r\n").splitlines()[1:] == [
        b"250 2.0.0 Ok", b"452 4.2.2 Full", b"550 5.7.1 No", b"250 2.0.0 Ok"
    ]  # fmt: skip
    assert not teller.session.is_closed
    assert teller.session.farewell is None
    assert teller.feed(b"RCPT TO:<u@local.example>\r\n").startswith(b"503 5.5.1 Send MAIL")


def test_success_is_ok_for_each() -> None:
    teller = Teller()
    teller.feed(ENVELOPE)
    assert codes(teller.feed(b"DATA\r\nx\r\n.\r\n")) == [354, 250, 250, 250]
    assert teller.ends[0].success == OK


@pytest.mark.parametrize("answers", [(OK, GONE, OK), (GONE, OK, OK), (OK, OK, GONE)])
def test_421_closes_when_all_are_told(answers: Sequence[Reply]) -> None:
    teller = Teller(*answers)
    teller.feed(ENVELOPE)
    assert codes(teller.feed(b"DATA\r\nx\r\n.\r\nNOOP\r\n")) == [354, *(answer.code for answer in answers)]
    assert teller.session.is_closed
    assert teller.session.farewell == GONE


@pytest.mark.parametrize("answers", [(), (OK,), (OK, OK), (OK, OK, OK, OK)])
def test_as_many_answers_as_recipients(answers: Sequence[Reply]) -> None:
    session = Teller().session
    session.receive_data(ENVELOPE + b"DATA\r\n.\r\n")
    while (event := session.next_event()) and not isinstance(event, EndOfData):
        session.reply(agree(event) or NO)
    with pytest.raises(RuntimeError, match="as many replies"):
        session.reply_each(answers)
    session.reply_each([OK] * 3)  # it still waits
    assert codes(session.data_to_send())[-4:] == [354, 250, 250, 250]


def test_only_the_end_of_data_is_answered_for_each() -> None:
    session = ServerSession(Dialect(LMTP))
    assert isinstance(session.next_event(), Connected)
    with pytest.raises(RuntimeError):
        session.reply_each([OK])
    session.reply(OK)
    with pytest.raises(RuntimeError):
        session.reply_each([OK])


def test_smtp_has_one_answer() -> None:
    teller = Teller(OK, options=OPTIONS)
    teller.feed(ENVELOPE.replace(b"LHLO", b"EHLO"))
    assert codes(teller.feed(b"DATA\r\nx\r\n.\r\n")) == [354, 250]


def test_greeting_is_an_event_like_ehlo() -> None:
    session = ServerSession(Dialect(LMTP))
    assert isinstance(session.next_event(), Connected)
    session.reply(OK)
    session.receive_data(b"LHLO client.example\r\n")
    event = session.next_event()
    assert isinstance(event, Hello)
    assert (event.verb, event.domain) == ("LHLO", "client.example")
    assert event.keywords == Dialect(LMTP).keywords
    assert "SMTPUTF8" in event.keywords


@pytest.mark.parametrize(
    ("options", "refused"), [({"starttls": True, "requires_tls": True}, 530), ({"requires_auth": True}, 530)]
)
def test_lhlo_is_understood_before_tls_and_auth(options: dict[str, bool], refused: int) -> None:
    teller = Teller(options=replace(LMTP, **options))  # type: ignore[arg-type]
    assert codes(teller.feed(b"LHLO c\r\nMAIL FROM:<a@b>\r\nEHLO c\r\n")) == [250, refused, 500]


def test_every_security_speaks_lmtp() -> None:
    dialect = Dialect(replace(LMTP, starttls=True))
    for security in Security:
        assert dialect.at(security).is_lmtp
        assert "LHLO" in dialect.at(security).help.text.split()
        assert "EHLO" not in dialect.at(security).help.text.split()


CHUNK = st.one_of(st.binary(max_size=30), st.just(b"x" * 600))


@given(
    recipients=st.integers(0, 4),
    chunks=st.lists(CHUNK, min_size=1, max_size=4),
    answers=st.lists(st.sampled_from([OK, FULL, NO]), min_size=4, max_size=4),
    by_data=st.booleans(),
)
def test_replies_to_a_message_can_be_counted(
    recipients: int, chunks: Sequence[bytes], answers: Sequence[Reply], by_data: bool
) -> None:
    """By a client that knows no more than which RCPT were accepted, and where it said LAST (RFC 2033 §4.2, §4.3)."""
    teller = Teller(*answers[:recipients])
    teller.feed(b"LHLO c\r\nMAIL FROM:<a@b>\r\n" + b"RCPT TO:<u@local.example>\r\n" * recipients)
    if by_data:
        body = (b"\r\n" + b"".join(chunks)).replace(b"\r\n.", b"\r\n..")[2:]
        expected = 1 + recipients if recipients else 1
        said = teller.feed(b"DATA\r\n" + (body + b"\r\n.\r\n" if recipients else b""))
    else:
        *firsts, last = chunks
        data = b"".join(b"BDAT %d\r\n%b" % (len(chunk), chunk) for chunk in firsts)
        said = teller.feed(data + b"BDAT %d LAST\r\n%b" % (len(last), last))
        expected = len(firsts) + max(1, recipients)
    assert len(codes(said)) == expected
    assert_enhanced(said)
    assert teller.feed(b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"
