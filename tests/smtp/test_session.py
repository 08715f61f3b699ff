"""The session as its driver sees it: events, pauses, limits, and that no input makes it say anything malformed.

What a client sees is told by the transcripts.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_driver import (
    ENVELOPE,
    GREETING,
    OPTIONS,
    Driver,
    agree,
    assert_enhanced,
    codes,
    has_enhanced_codes,
    parse_replies,
)

from smtpmaild.smtp import reply as replies
from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address
from smtpmaild.smtp.events import (
    Body,
    Command,
    Connected,
    Data,
    EndOfData,
    Event,
    Hello,
    LineTooLong,
    Mail,
    Rcpt,
    XForward,
)
from smtpmaild.smtp.extension import Dialect, Extension, ServerOptions
from smtpmaild.smtp.lines import LineBuffer
from smtpmaild.smtp.reply import Reply
from smtpmaild.smtp.session import ServerSession


def refuse(kind: type, reply: Reply) -> Callable[[Event], Reply | None]:
    return lambda event: reply if isinstance(event, kind) else agree(event)


# What is told to the driver


def test_events_of_a_message() -> None:
    driver = Driver()
    driver.feed(
        b"EHLO client.example\r\nMAIL FROM:<> SIZE=20 body=8bitmime\r\nRCPT TO:<U@Local.Example>\r\nDATA\r\n"
        b"Subject: x\r\n\r\n..\r\n.\r\n"
    )
    connected, hello, mail, rcpt, data, body, end = driver.events
    assert isinstance(connected, Connected)
    assert connected.success.code == 220
    assert isinstance(hello, Hello)
    assert (hello.verb, hello.domain) == ("EHLO", "client.example")
    assert "SIZE 1000" in hello.keywords
    assert isinstance(mail, Mail)
    assert mail.reverse_path == NULL_REVERSE_PATH
    assert mail.parameters == {"SIZE": "20", "BODY": "8bitmime"}
    assert isinstance(rcpt, Rcpt)
    assert rcpt.forward_path == Address("U", "local.example", "")
    assert rcpt.parameters == {}
    assert data == Data()
    assert body == Body(b"Subject: x\r\n\r\n.\r\n")
    assert end == EndOfData(17, None)


def test_helo_has_no_keywords() -> None:
    driver = Driver()
    assert driver.feed(b"HELO client.example\r\n") == b"250 mx.example Requested mail action okay, completed\r\n"
    hello = driver.events[-1]
    assert isinstance(hello, Hello)
    assert (hello.verb, hello.keywords) == ("HELO", ())


def test_rset_is_always_told() -> None:
    driver = Driver()
    driver.feed(GREETING + b"RSET\r\n")
    assert driver.events[-1] == Command("RSET", "", replies.RSET_OK)


def test_what_needs_no_decision_is_not_told() -> None:
    driver = Driver()
    driver.feed(b"NOOP x\r\nVRFY x\r\nEXPN x\r\nHELP\r\nTURN\r\nSEND FROM:<a@b>\r\nQUIT\r\n")
    assert len(driver.events) == 1
    assert driver.session.is_closed


@pytest.mark.parametrize(
    ("line", "verb", "argument", "success"),
    [
        (b"NOOP x", "NOOP", "x", 250),
        (b"VRFY user", "VRFY", "user", 252),
        (b"EXPN list", "EXPN", "list", 502),
        (b"HELP mail", "HELP", "mail", 214),
        (b"SOML FROM:<a@b>", "SOML", "FROM:<a@b>", 502),
        (b"TURN", "TURN", "", 502),
        (b"QUIT", "QUIT", "", 221),
    ],
)
def test_what_a_driver_listens_for(line: bytes, verb: str, argument: str, success: int) -> None:
    driver = Driver(replace(OPTIONS, listens=frozenset([verb])))
    driver.feed(line + b"\r\n")
    event = driver.events[-1]
    assert isinstance(event, Command)
    assert (event.verb, event.argument, event.success.code) == (verb, argument, success)


def test_quit_closes_even_without_effect() -> None:
    driver = Driver(replace(OPTIONS, listens=frozenset(["QUIT"])))
    driver.session.receive_data(b"QUIT\r\n")
    assert driver.session.next_event() is not None
    driver.session.reply(replies.NOOP_OK, effect=False)
    assert driver.session.is_closed


def test_quit_that_is_listened_for_closes_whatever_is_answered() -> None:
    driver = Driver(
        replace(OPTIONS, listens=frozenset(["QUIT"])), answer=refuse(Command, Reply(550, "5.7.1", "Stay a while"))
    )
    assert driver.feed(b"QUIT\r\nNOOP\r\n") == b"550 5.7.1 Stay a while\r\n"
    assert driver.session.is_closed


def test_listening_offers_no_extension() -> None:
    """A driver with a callback for XFORWARD must not make every stranger a trusted peer."""
    session = ServerSession(Dialect(replace(OPTIONS, listens=frozenset(["XFORWARD", "BDAT", "HELP"])), ()))
    session.next_event()
    session.reply(Reply(220, "", "Hello"))
    session.receive_data(b"EHLO x\r\n")
    session.next_event()
    session.reply(Reply(250, "", "Hello"))
    session.data_to_send()
    session.receive_data(b"XFORWARD NAME=x\r\nBDAT 1\r\nHELP\r\n")
    assert session.next_event() is None
    assert codes(session.data_to_send()) == [500, 500, 500]


def test_xforward() -> None:
    driver = Driver()
    assert codes(driver.feed(GREETING + b"XFORWARD NAME=x ADDR=[UNAVAILABLE]\r\n")) == [250, 250]
    assert driver.events[-1] == XForward({"name": "x", "addr": None})


@pytest.mark.parametrize("line", [b"NOOP " + b"x" * 600, b"NOOP " + b"x" * 520])
def test_long_line_where_the_driver_listens(line: bytes) -> None:
    driver = Driver(
        replace(OPTIONS, listens=frozenset(["linetobig"]), bad_commands=1),
        answer=refuse(LineTooLong, Reply(552, "5.2.3", "line too long")),
    )
    assert codes(driver.feed(line + b"\r\n")) == [552]
    assert isinstance(driver.events[-1], LineTooLong)
    assert codes(driver.feed(line + b"\r\n")) == [552, 421], "counts as a bad command"
    assert driver.session.is_closed


# Pauses


def test_input_waits_behind_an_event() -> None:
    session = ServerSession(Dialect(OPTIONS))

    def flags() -> tuple[bool, bool]:
        return session.has_begun, session.is_paused

    assert flags() == (False, False)
    session.receive_data(b"EHLO a\r\nEHLO b\r\n")
    assert isinstance(session.next_event(), Connected)
    assert flags() == (False, True)
    assert session.next_event() is None
    assert session.data_to_send() == b""
    session.reply(Reply(220, "", "Hello"))
    assert flags() == (True, False)
    for domain in ("a", "b"):
        event = session.next_event()
        assert isinstance(event, Hello)
        assert event.domain == domain
        assert session.next_event() is None
        session.reply(event.success)
    assert session.next_event() is None


def test_reply_without_event() -> None:
    session = ServerSession(Dialect(OPTIONS))
    with pytest.raises(RuntimeError, match="without an event"):
        session.reply(replies.NOOP_OK)
    session.next_event()
    session.close()
    with pytest.raises(RuntimeError, match="without an event"):
        session.reply(replies.NOOP_OK)


def test_replies_of_a_group_leave_in_one_piece() -> None:
    session = ServerSession(Dialect(OPTIONS))
    session.next_event()
    session.reply(Reply(220, "", "Hello"))
    session.receive_data(b"NOOP\r\nNOOP\r\n")
    assert session.next_event() is None
    assert session.data_to_send() == b"220 Hello\r\n" + replies.NOOP_OK.wire * 2
    assert session.data_to_send() == b""


def test_is_reading_body() -> None:
    driver = Driver()
    session = driver.session
    for data, is_reading in [
        (ENVELOPE, False),
        (b"DATA\r\n", True),
        (b"x\r\n.", True),
        (b"\r\n", False),
        (ENVELOPE + b"BDAT 5\r\nab", True),
        (b"c\r\n", False),
        (b"BDAT 2 LAST\r\n\r", True),
        (b"\n", False),
    ]:
        driver.feed(data)
        assert session.is_reading_body is is_reading, data


# What is refused here: every mistake with its code and enhanced code

MISTAKES = [
    (b"", b"HELO", "501 Syntax"),
    (b"", b"EHLO  ", "501 Syntax"),
    (b"", b"MAIL FROM:<a@b>", "503 5.5.1"),
    (b"", b"XYZZY", "500 5.5.2"),
    (b"", b"", "500 5.5.2"),
    (b"", b"VRFY", "501 5.5.4"),
    (b"", b"EXPN", "501 5.5.4"),
    (b"", b"EXPN list", "502 5.5.1"),
    (b"", b"VRFY user", "252 2.5.0"),
    (b"", b"RSET x", "501 5.5.4"),
    (b"", b"QUIT x", "501 5.5.4"),
    (b"", b"NOOP \xff", "500 5.5.2"),
    (b"", b"NOOP " + b"x" * 506, "500 5.5.2"),
    (b"", b"NOOP\n", "500 5.5.2"),
    (GREETING, b"MAIL", "501 5.1.7"),
    (GREETING, b"MAIL TO:<a@b>", "501 5.1.7"),
    (GREETING, b"MAIL FROM:a@b", "501 5.1.7"),
    (GREETING, b"MAIL FROM:<a@b>X", "501 5.5.4"),
    (GREETING, b"MAIL FROM:<a@b> SIZE=1 SIZE=1", "501 5.5.4"),
    (GREETING, b"MAIL FROM:<a@b> SIZE=\xc2\xb2", "501 5.5.4"),
    (GREETING, b"MAIL FROM:<a@b> SIZE=1001", "552 5.3.4"),
    (GREETING, b"MAIL FROM:<a@b> AUTH=<>", "555 5.5.4"),
    (GREETING, b"MAIL FROM:<\xc3\xa9@b>", "550 5.6.7"),
    (GREETING, b"MAIL FROM:<a@\xc3\xa9.example>", "550 5.6.7"),
    (b"HELO x\r\n", b"MAIL FROM:<a@b> SIZE=1", "555 5.5.4"),
    (b"HELO x\r\n", b"MAIL FROM:<a@b> ", "250 2.1.0"),
    (GREETING, b"RCPT TO:<u@x>", "503 5.5.1"),
    (ENVELOPE, b"MAIL FROM:<a@b>", "503 5.5.1"),
    (ENVELOPE, b"RCPT TO:", "501 5.1.3"),
    (ENVELOPE, b"RCPT TO:<>", "501 5.1.3"),
    (ENVELOPE, b"RCPT FROM:<u@x>", "501 5.1.3"),
    (ENVELOPE, b"RCPT TO:<u@x> NOTIFY=NEVER", "555 5.5.4"),
    (ENVELOPE, b"RCPT TO:<\xc3\xa9@x>", "553 5.6.7"),
    (ENVELOPE + b"RCPT TO:<u@x>\r\n" * 4, b"RCPT TO:<u@x>", "452 4.5.3"),
    (ENVELOPE, b"DATA x", "501 5.5.4"),
    (GREETING + b"MAIL FROM:<a@b>\r\n", b"DATA", "554 5.5.1"),
    (GREETING + b"MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<u@x>\r\n", b"DATA", "503 5.5.1"),
    (ENVELOPE, b"XFORWARD NAME=x", "503 5.5.1"),
    (GREETING, b"XFORWARD NAME", "501 5.5.4"),
    (ENVELOPE, b"BDAT 1 x", "501 5.5.4"),
]


@pytest.mark.parametrize(("before", "line", "expected"), MISTAKES)
def test_mistake(before: bytes, line: bytes, expected: str) -> None:
    driver = Driver()
    driver.feed(before)
    output = driver.feed(line + (b"" if line.endswith(b"\n") else b"\r\n"))
    assert output.decode().startswith(expected + " ")
    assert len(codes(output)) == 1


def test_budget_of_bad_commands() -> None:
    driver = Driver(replace(OPTIONS, bad_commands=2))
    assert codes(driver.feed(b"A\r\nNOOP\r\nB\r\nC\r\nNOOP\r\n")) == [500, 250, 500, 500, 421]
    assert driver.session.is_closed
    assert driver.session.farewell == replies.TOO_MANY_ERRORS


# What bounds it


def test_client_that_never_reads_stalls() -> None:
    session = ServerSession(Dialect(OPTIONS))
    total = b"EHLO x\r\n" * 100_000
    answered = 0
    session.receive_data(total)
    while (event := session.next_event()) is not None:
        answered += 1
        session.reply(agree(event) or replies.LOCAL_ERROR)
    stalled = [session.is_stalled]
    assert answered < 1000
    assert len(session.data_to_send()) < 66_000
    # and goes on where it was
    stalled.append(session.is_stalled)
    assert stalled == [True, False]
    assert isinstance(session.next_event(), Hello)


def test_client_that_never_reads_stalls_on_what_is_answered_here() -> None:
    session = ServerSession(Dialect(OPTIONS))
    session.next_event()
    session.reply(Reply(220, "", "Hello"))
    session.receive_data(b"HELP\r\n" * 100_000)
    assert session.next_event() is None
    assert session.is_stalled
    assert len(session.data_to_send()) < 66_000


def test_endless_body_line_makes_no_events() -> None:
    driver = Driver()
    driver.feed(ENVELOPE + b"DATA\r\n")
    for _ in range(200):
        driver.feed(b"x" * 65536)
    assert [type(event) for event in driver.events[-2:]] == [Rcpt, Data]
    assert driver.feed(b"\r\n.\r\nNOOP\r\n") == replies.MESSAGE_TOO_BIG.wire + replies.NOOP_OK.wire
    end = driver.events[-1]
    assert isinstance(end, EndOfData)
    assert end.size == 200 * 65536 + 2


# The verdicts of the driver


def test_banner_554_leaves_only_quit() -> None:
    driver = Driver(answer=refuse(Connected, Reply(554, "", "No service")))
    assert driver.banner == b"554 No service\r\n"
    assert codes(driver.feed(b"EHLO x\r\nNOOP\r\nMAIL FROM:<>\r\nQUIT\r\n")) == [503, 503, 503, 221]
    assert driver.session.is_closed


def test_greetings_have_no_enhanced_code() -> None:
    """RFC 2034 §4, whatever a policy says."""
    driver = Driver(answer=refuse(Hello, Reply(550, "5.7.1", "no\nno")))
    assert driver.feed(b"EHLO x\r\nHELO x\r\n") == b"550-no\r\n550 no\r\n" * 2
    assert Driver(answer=refuse(Connected, Reply(421, "4.3.2", "Busy"))).banner == b"421 Busy\r\n"


def test_banner_421_closes() -> None:
    driver = Driver(answer=refuse(Connected, Reply(421, "", "Busy")))
    assert driver.session.is_closed
    assert driver.feed(b"EHLO x\r\n") == b""
    assert driver.session.farewell == Reply(421, "", "Busy")


@pytest.mark.parametrize("kind", [Hello, Mail, Rcpt, Data, EndOfData, Command])
def test_421_closes_wherever_it_is_given(kind: type) -> None:
    farewell = Reply(421, "4.7.0", "Enough")
    driver = Driver(answer=refuse(kind, farewell))
    output = driver.feed(ENVELOPE + b"DATA\r\n.\r\nRSET\r\nNOOP\r\n")
    assert output.endswith(b"421 Enough\r\n" if kind is Hello else b"421 4.7.0 Enough\r\n")
    assert driver.session.is_closed
    assert driver.session.farewell == farewell
    assert codes(output).count(421) == 1


@pytest.mark.parametrize(
    ("kind", "line"), [(Rcpt, b"RCPT TO:<u@x>"), (LineTooLong, b"NOOP " + b"x" * 600)], ids=["recipient", "long line"]
)
def test_421_is_said_once_even_at_the_end_of_a_budget(kind: type, line: bytes) -> None:
    options = replace(OPTIONS, refused_recipients=0, bad_commands=0, listens=frozenset(["linetobig"]))
    driver = Driver(options, answer=refuse(kind, Reply(421, "4.7.0", "Enough")))
    assert driver.feed(GREETING + b"MAIL FROM:<>\r\n" + line + b"\r\n").endswith(b"OK\r\n421 4.7.0 Enough\r\n")


def test_421_in_answer_to_bdat_is_sent() -> None:
    """Although any other refusal of a BDAT waits for its octets."""
    driver = Driver(answer=refuse(Data, Reply(421, "4.7.0", "Enough")))
    assert driver.feed(ENVELOPE + b"BDAT 10\r\n").endswith(b"421 4.7.0 Enough\r\n")
    assert driver.session.is_closed


@pytest.mark.parametrize(
    ("kind", "reply", "then", "expected"),
    [
        # a refused greeting: as if it had not been sent
        (Hello, Reply(550, "5.7.1", "no"), b"MAIL FROM:<a@b>\r\n", [503]),
        (Mail, Reply(550, "5.7.1", "no"), b"MAIL FROM:<a@b>\r\nRCPT TO:<u@x>\r\n", [550, 503]),
        (Rcpt, Reply(550, "5.1.1", "no"), b"DATA\r\n", [554]),
        # a refused DATA keeps the recipients
        (Data, Reply(451, "4.7.1", "no"), b"DATA\r\nRCPT TO:<u@x>\r\n", [451, 250]),
        # a refused message is over
        (EndOfData, Reply(550, "5.7.1", "no"), b"DATA\r\n", [503]),
        (Command, Reply(550, "5.7.1", "no"), b"RSET\r\n", [550]),
    ],
)
def test_refusal(kind: type, reply: Reply, then: bytes, expected: list[int]) -> None:
    driver = Driver(answer=refuse(kind, reply))
    driver.feed(ENVELOPE + b"DATA\r\n.\r\n")
    assert codes(driver.feed(then)) == expected


def test_refused_ehlo_leaves_the_transaction() -> None:
    """RFC 5321 §4.1.4: the server "MUST stay in the same state after transmitting these replies"."""
    said: list[Event] = []

    def second_hello(event: Event) -> Reply | None:
        said.append(event)
        is_second = isinstance(event, Hello) and event.domain == "again"
        return Reply(550, "5.7.1", "no") if is_second else agree(event)

    driver = Driver(answer=second_hello)
    assert codes(driver.feed(ENVELOPE + b"EHLO again\r\nDATA\r\n"))[-2:] == [550, 354]


def test_refused_bdat_is_answered_when_its_octets_were_read() -> None:
    driver = Driver(answer=refuse(Data, Reply(451, "4.7.1", "no")))
    assert codes(driver.feed(ENVELOPE + b"BDAT 10\r\nQUIT\r\n")) == [250, 250, 250]
    assert codes(driver.feed(b"NOOP")) == [451]
    assert codes(driver.feed(b"BDAT 6\r\nQUIT\r\n")) == [503], "until LAST or RSET"
    assert codes(driver.feed(b"BDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<a@b>\r\n")) == [503, 250]


def test_budget_of_refused_recipients() -> None:
    driver = Driver(replace(OPTIONS, refused_recipients=2), answer=refuse(Rcpt, Reply(550, "5.1.1", "no")))
    output = driver.feed(GREETING + b"MAIL FROM:<>\r\n" + b"RCPT TO:<u@x>\r\n" * 9)
    assert codes(output) == [250, 250, 550, 550, 550, 421]
    assert driver.session.is_closed


def test_refused_recipients_are_counted_over_the_session() -> None:
    driver = Driver(replace(OPTIONS, refused_recipients=2), answer=refuse(Rcpt, Reply(450, "4.2.1", "no")))
    output = driver.feed(GREETING + b"MAIL FROM:<>\r\nRCPT TO:<u@x>\r\nRSET\r\n" * 9)
    assert codes(output)[-2:] == [450, 421]
    assert codes(output).count(450) == 3


# effect=False: the reply is sent, nothing moves (the job switch of callbacks)


@pytest.mark.parametrize(
    ("kind", "then", "expected"),
    [
        (Hello, b"MAIL FROM:<a@b>\r\n", [503]),
        (Mail, b"RCPT TO:<u@x>\r\n", [503]),
        (Rcpt, b"DATA\r\n", [554]),
        (Data, b"NOOP\r\n", [250]),
        (Command, b"RSET\r\nRCPT TO:<u@x>\r\n", [250, 250]),
    ],
)
def test_reply_without_effect(kind: type, then: bytes, expected: list[int]) -> None:
    driver = Driver(effect=lambda event: not isinstance(event, kind))
    driver.feed(ENVELOPE + (b"DATA\r\n" if kind is Data else b""))
    assert codes(driver.feed(then)) == expected


@pytest.mark.parametrize("kind", [Connected, EndOfData])
def test_what_cannot_be_undone_takes_effect_nevertheless(kind: type) -> None:
    """The banner was sent, the body was read: nobody may be asked for the same again, for ever."""
    driver = Driver(effect=lambda event: not isinstance(event, kind))
    driver.feed(ENVELOPE + b"DATA\r\n.\r\n")
    assert sum(isinstance(event, kind) for event in driver.events) == 1
    assert codes(driver.feed(b"MAIL FROM:<a@b>\r\n")) == [250]


@pytest.mark.parametrize(("answer", "code"), [(replies.START_MAIL_INPUT, 451), (Reply(452, "4.3.1", "full"), 452)])
def test_bdat_without_effect_drops_its_octets(answer: Reply, code: int) -> None:
    driver = Driver(answer=refuse(Data, answer), effect=lambda event: not isinstance(event, Data))
    assert codes(driver.feed(ENVELOPE + b"BDAT 6 LAST\r\nQUIT\r\nRCPT TO:<u@x>\r\n"))[-2:] == [code, 250]
    assert not any(isinstance(event, Body) for event in driver.events)


# Ends


def test_close_with_a_reply() -> None:
    driver = Driver()
    driver.session.close(replies.INTERNAL_ERROR)
    assert driver.session.data_to_send() == replies.INTERNAL_ERROR.wire
    assert driver.session.is_closed
    assert driver.session.farewell == replies.INTERNAL_ERROR
    driver.session.close(replies.SHUTTING_DOWN)
    assert driver.session.data_to_send() == b"", "once is enough"
    assert driver.feed(b"NOOP\r\n") == b""


def test_quit_forgets_what_is_behind_it() -> None:
    driver = Driver()
    assert codes(driver.feed(b"QUIT\r\n" + b"NOOP\r\n" * 1000)) == [221]
    assert [len(part) for part in gc.get_referents(driver.session) if isinstance(part, LineBuffer)] == [0]
    assert driver.session.farewell is not None
    assert driver.session.farewell.code == 221


def test_shut_down_answers_the_next_command() -> None:
    driver = Driver()
    driver.session.shut_down()
    assert driver.feed(b"NO") == b""
    assert codes(driver.feed(b"OP\r\nNOOP\r\n")) == [421]
    assert driver.session.is_closed


@pytest.mark.parametrize(
    ("before", "during"),
    [
        (b"DATA\r\nx", b"\r\n.\r\n"),
        (b"BDAT 3 LAST\r\nx", b"\r\n"),
        (b"BDAT 1\r\nx", b"BDAT 2 LAST\r\n\r\n"),
    ],
)
def test_shut_down_lets_a_body_end(before: bytes, during: bytes) -> None:
    driver = Driver()
    driver.feed(ENVELOPE + before)
    driver.session.shut_down()
    assert codes(driver.feed(during)) == [250]
    assert isinstance(driver.events[-1], EndOfData)
    assert codes(driver.feed(b"NOOP\r\n")) == [421]


def test_shut_down_after_a_failed_chunk() -> None:
    driver = Driver()
    driver.feed(ENVELOPE + b"BDAT 1\r\n\n")
    driver.session.shut_down()
    assert codes(driver.feed(b"BDAT 1\r\nx")) == [421]


# BDAT: nothing of a message ever becomes a command


@pytest.mark.parametrize(
    "line",
    [
        b"BDAT",
        b"BDAT x",
        b"BDAT -1",
        b"BDAT 1 LAST LAST",
        b"bdat 1 " + b" " * 510 + b"LAST",
        b"BDAT 1\x00",
        b"BDAT \xb2",
        b"BDAT \xc2\xb2",
        b"BDAT\t1",
    ],
)
@pytest.mark.parametrize("before", [b"", GREETING, ENVELOPE, ENVELOPE + b"BDAT 1\r\nx"])
def test_malformed_bdat_closes(before: bytes, line: bytes) -> None:
    driver = Driver()
    driver.feed(before)
    output = driver.feed(line + b"\r\nMAIL FROM:<evil@x>\r\n")
    assert codes(output) == [501]
    assert_enhanced(output)
    assert driver.session.is_closed


@pytest.mark.parametrize("before", [b"", GREETING, GREETING + b"MAIL FROM:<a@b>\r\n"])
def test_octets_of_a_bdat_out_of_order_are_no_commands(before: bytes) -> None:
    driver = Driver()
    driver.feed(before)
    for split in (b"", b"N"):
        output = driver.feed(b"BDAT 12\r\nQUIT\r\nQUIT\r\n" + split) + driver.feed(b"NOOP\r\n"[len(split) :])
        assert codes(output) in ([503, 250], [554, 250])


# No input makes it say anything malformed, and how the input is cut makes no difference

LINES = [
    b"EHLO client.example", b"HELO client.example", b"EHLO \xc3\xa9\xff", b"MAIL FROM:<>", b"MAIL FROM:<a@b> SIZE=10",
    b"MAIL FROM:<a@b> BODY=BINARYMIME", b"MAIL FROM:<\xc3\xa9@b> SMTPUTF8", b"MAIL FROM:<a@\xc3\xa9> SMTPUTF8",
    b"MAIL FROM:<a@b> SIZE=9999999", b"MAIL FROM:<a@b> X=Y", b"RCPT TO:<u@x>", b"RCPT TO:<\xc3\xa9@x>",
    b"RCPT TO:<postmaster>", b"RCPT TO:<u@[IPv6:::1]>", b"RCPT TO:u@x", b"DATA", b".", b"..", b"DATA x", b"RSET",
    b"RSET x", b"NOOP", b"QUIT x", b"VRFY", b"VRFY u", b"EXPN u", b"HELP", b"TURN", b"XFORWARD NAME=x",
    b"XCLIENT ADDR=192.0.2.1", b"XCLIENT LOGIN=u",
    b"XFORWARD X=\x1b[2J", b"BDAT 0", b"BDAT 3", b"BDAT 7", b"BDAT 4 LAST", b"BDAT 0 LAST", b"BDAT 2000 LAST",
    b"", b" ", b"Subject: x", b"x" * 300, b"NOOP " + b"x" * 520, b"NOOP \x00", b"NOOP \xc2\x85", b"\xff\xfe",
    b"R\xc5\xbfET",
]  # fmt: skip
ENDS = [b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\n", b"\r\n\x00.\r\n", b""]
lines = st.builds(bytes.__add__, st.sampled_from(LINES), st.sampled_from(ENDS))
transactions = st.sampled_from([ENVELOPE, ENVELOPE + b"DATA\r\n", ENVELOPE + b"BDAT 3\r\nabc", GREETING, b""])
dialogues = st.builds(
    lambda start, rest: start + b"".join(rest),
    transactions,
    st.lists(st.one_of(lines, st.binary(max_size=9)), max_size=14),
)
option_sets = st.sampled_from(
    [
        OPTIONS,
        replace(OPTIONS, message_size=0, body_line=20, bad_commands=3),
        replace(OPTIONS, message_size=40, allow_bare_lf=True),
        replace(OPTIONS, keep_bare_newlines=True, body_line=0, recipients=1, bad_commands=1000),
        replace(OPTIONS, listens=frozenset(["linetobig", "NOOP", "VRFY", "TURN"])),
    ]
)


@given(dialogues, option_sets, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=350)
def test_how_input_is_cut_makes_no_difference(dialogue: bytes, options: ServerOptions, random: Random) -> None:
    whole = Driver(options)
    output = whole.feed(dialogue)
    cut = Driver(options)
    pieces, start = b"", 0
    while start < len(dialogue):
        end = start + random.choice([1, 1, 2, 5, 40])
        pieces += cut.feed(dialogue[start:end])
        start = end
    assert pieces == output
    assert cut.facts() == whole.facts()
    assert cut.session.is_closed == whole.session.is_closed
    assert cut.session.is_reading_body == whole.session.is_reading_body


@given(dialogues, option_sets)
@settings(deadline=None, max_examples=300)
def test_every_reply_is_well_formed_and_has_its_enhanced_code(dialogue: bytes, options: ServerOptions) -> None:
    driver = Driver(options)
    driver.feed(dialogue)
    for output in driver.own:
        assert_enhanced(output)
    for event, output in driver.others:
        parse_replies(output)
        if has_enhanced_codes(event):
            assert_enhanced(output)


texts = st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"a", b"\x00", b"QUIT", b"\xff" * 70])).map(
    b"".join
)


@given(texts, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=120)
def test_any_message_arrives_as_it_was_sent(text: bytes, random: Random) -> None:
    driver = Driver(replace(OPTIONS, keep_bare_newlines=True, body_line=0, message_size=0))
    by_dots = text + b"\r\n"
    stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in by_dots.split(b"\r\n"))
    driver.feed(ENVELOPE + b"DATA\r\n" + stuffed + b".\r\n" + ENVELOPE)
    assert Body(by_dots) in driver.events
    rest = text
    while rest:
        size = random.randint(1, len(rest))
        driver.feed(b"BDAT %d\r\n%b" % (size, rest[:size]))
        rest = rest[size:]
    assert codes(driver.feed(b"BDAT 0 LAST\r\n")) == [250]
    assert driver.events[-1] == EndOfData(len(text), None)
    assert not text or driver.events[-2] == Body(text)


@given(st.lists(st.binary(max_size=200), max_size=20))
@settings(deadline=None, max_examples=120)
def test_random_bytes_are_answered_or_ignored(chunks: list[bytes]) -> None:
    driver = Driver()
    for chunk in chunks:
        parse_replies(driver.feed(chunk))


def test_without_enhanced_codes_no_reply_has_one() -> None:
    session = ServerSession(Dialect(OPTIONS, ()))
    session.next_event()
    session.reply(Reply(220, "", "Hello"))
    session.receive_data(b"NOOP\r\nXYZ\r\nMAIL FROM:<>\r\nQUIT\r\n")
    assert session.next_event() is None
    assert session.data_to_send().splitlines()[1:] == [
        b"250 Ok",
        b"500 Syntax error: unrecognized command",
        b"503 Send HELO or EHLO first",
        b"221 mx.example Service closing transmission channel",
    ]


def test_other_dialect_in_mid_session() -> None:
    """A program adds an extension or a callback while the session runs; the transaction goes on."""
    driver = Driver()
    assert codes(driver.feed(ENVELOPE + b"XPAINT red\r\n"))[-1] == 500
    driver.session.speak(Dialect(OPTIONS, [Extension("XCOLOUR", verbs=("XPAINT",))]))
    assert codes(driver.feed(b"XPAINT red\r\nBDAT 1\r\nDATA\r\n")) == [250, 500, 354]
    assert driver.events[-2] == Command("XPAINT", "red", replies.COMMAND_OK)
