"""Every event of the contract: what its callback gets, what it answers without words, and what success does."""

from __future__ import annotations

import pytest
from talk import ENVELOPE, Talk, esmtp

from smtpmaild.embedding import Address, Content
from smtpmaild.embedding.events import EVENTS, event_of
from smtpmaild.embedding.said import Said
from smtpmaild.embedding.session import Smtp
from smtpmaild.policy.chain import Event

ANN = Address("ann", "a.example", "ann@a.example")
BOB = Address("bob", "b.example", "bob@b.example")
HELLO = ENVELOPE[:1]
SENDER = ENVELOPE[:2]
KEYWORDS = [
    "PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", "HELP",
    "LIMITS RCPTMAX=1000",
]  # fmt: skip


class Callback:
    """Returns what it was made with, and remembers what it was called with."""

    def __init__(self, said: Said = None) -> None:
        self.said = said
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, session: Smtp, *arguments: object) -> Said:
        self.calls.append(arguments)
        return self.said


def test_every_event_has_a_row() -> None:
    assert set(EVENTS) == set(Event)


def test_event_names_in_any_case() -> None:
    assert event_of("Data-Init") is Event.DATA_INIT
    assert event_of("LINETOBIG") is Event.LINE_TOO_LONG
    with pytest.raises(ValueError, match="there is no event 'data_init'; there are banner, HELO, "):
        event_of("data_init")


#: event, what goes before, the command, and: arguments, reply to None, to True, to False, to words
COMMANDS = [
    ("HELO", (), "HELO client.example", ("client.example",),
     "250 mx.example Requested mail action okay, completed", "250 mx.example Requested mail action okay, completed",
     "550 Failure", "250 hello"),
    ("MAIL", HELLO, "MAIL FROM:<ann@a.example>", (ANN,),
     "250 2.1.0 sender ann@a.example OK", "250 2.1.0 sender ann@a.example OK", "550 5.0.0 Failure", "250 2.0.0 hello"),
    ("RCPT", SENDER, "RCPT TO:<bob@b.example>", (BOB,),
     "250 2.1.5 recipient bob@b.example OK", "250 2.1.5 recipient bob@b.example OK", "550 5.0.0 Failure",
     "250 2.0.0 hello"),
    ("DATA-INIT", ENVELOPE, "DATA", (),
     "354 Start mail input; end with <CRLF>.<CRLF>", "354 Start mail input; end with <CRLF>.<CRLF>",
     "550 5.0.0 Failure", "354 hello"),
    ("RSET", ENVELOPE, "RSET", (),
     "250 2.0.0 Requested mail action okay, completed", "250 2.0.0 Requested mail action okay, completed",
     "550 5.0.0 Failure", "250 2.0.0 hello"),
    ("NOOP", (), "NOOP x", (), "250 2.0.0 Ok", "250 2.0.0 Ok", "550 5.0.0 Failure", "250 2.0.0 hello"),
    ("VRFY", (), "VRFY  ann b", ("ann b",),
     "252 2.5.0 Cannot VRFY user, but will accept message and attempt delivery", "250 2.0.0 Ok", "550 5.0.0 Failure",
     "250 2.0.0 hello"),
    ("EXPN", (), "EXPN staff", ("staff",),
     "502 5.5.1 Command not implemented", "250 2.0.0 Ok", "550 5.0.0 Failure", "250 2.0.0 hello"),
    ("HELP", (), "HELP MAIL", ("MAIL",), "214 2.0.0 Commands:*", "214 2.0.0 Commands:*", "550 5.0.0 Failure",
     "214 2.0.0 hello"),
    *(
        (verb, (), verb, (), "502 5.5.1 Command not implemented", "250 2.0.0 Ok", "550 5.0.0 Failure",
         "250 2.0.0 hello")
        for verb in ("SEND", "SOML", "SAML", "TURN")
    ),
    ("QUIT", (), "QUIT", (), "221 2.0.0 mx.example Service closing transmission channel",
     "221 2.0.0 mx.example Service closing transmission channel", "550 5.0.0 Failure", "221 2.0.0 hello"),
    ("XFORWARD", HELLO, "XFORWARD NAME=mail.example ADDR=[UNAVAILABLE]", ({"name": "mail.example", "addr": None},),
     "250 2.0.0 OK", "250 2.0.0 OK", "550 5.0.0 Failure", "250 2.0.0 hello"),
    ("linetobig", (), "NOOP " + 2000 * "x", (), "500 5.5.2 Command line too long", "500 5.5.2 Command line too long",
     "550 5.0.0 Failure", "500 5.0.0 hello"),
]  # fmt: skip


@pytest.mark.parametrize("row", COMMANDS, ids=[row[0] for row in COMMANDS])
@pytest.mark.parametrize("case", ["none", "true", "false", "words"])
def test_event_of_a_command(
    row: tuple[str, tuple[str, ...], str, tuple[object, ...], *tuple[str, ...]], case: str
) -> None:
    event, before, command, arguments, *replies = row
    said: dict[str, Said] = {"none": None, "true": True, "false": False, "words": (True, None, "hello")}
    callback = Callback(said[case])
    session = esmtp(xforward=True)
    session.set_callback(event, callback)
    reply = Talk(session, *before)(command)
    expected = replies[list(said).index(case)]
    assert reply == expected or (expected.endswith("*") and reply.startswith(expected[:-1]))
    assert callback.calls == [arguments]


#: Without a callback, contract bug (a): 250 where it should be 502.
@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("VRFY x", "252 2.5.0 "), ("EXPN x", "502 5.5.1 "), ("HELP", "214 2.0.0 "), ("SEND", "502 5.5.1 "),
        ("SOML", "502 5.5.1 "), ("SAML", "502 5.5.1 "), ("TURN", "502 5.5.1 "), ("NOOP", "250 2.0.0 "),
    ],
)  # fmt: skip
def test_commands_without_a_callback_answer_once(line: str, reply: str) -> None:
    answer = Talk(esmtp())(line)
    assert answer.startswith(reply)
    assert "\r\n" not in answer  # bug (c): TURN said 502 and 250


@pytest.mark.parametrize("verb", ["EXPN", "TURN", "SEND"])
def test_undecided_callback_leaves_the_refusal(verb: str) -> None:
    """Bug (b): a list-valued default reply was taken for success."""
    session = esmtp()
    session.set_callback(verb, lambda _session, *_arguments: (None, 250, "ignored"))
    assert Talk(session)(f"{verb} x") == "502 5.5.1 Command not implemented"


def test_ehlo_passes_the_keyword_lines() -> None:
    callback = Callback()
    session = esmtp()
    session.set_callback("EHLO", callback)
    reply = Talk(session)("EHLO client.example")
    assert callback.calls == [("client.example", KEYWORDS)]
    assert reply.split("\r\n") == [
        "250-mx.example Service ready", *(f"250-{line}" for line in KEYWORDS[:-1]), f"250 {KEYWORDS[-1]}"
    ]  # fmt: skip


def test_banner() -> None:
    callback = Callback()
    session = esmtp()
    session.set_callback("banner", callback)
    assert Talk(session).banner == "220 mx.example ESMTP smtpmaild Service ready\r\n"
    assert callback.calls == [()]


def test_banner_in_words() -> None:
    session = esmtp(application="Mailer")
    assert Talk(session).banner == "220 mx.example ESMTP Mailer Service ready\r\n"
    session.set_callback("banner", Callback((True, 220, "mx.example welcome")))
    assert Talk(session).banner == "220 mx.example welcome\r\n"


@pytest.mark.parametrize("said", [False, (False, 550, "No")], ids=["false", "550"])
def test_refused_banner_leaves_only_quit(said: Said) -> None:
    session = esmtp()
    session.set_callback("banner", Callback(said))
    talk = Talk(session)
    assert talk.banner.startswith("554 ")
    assert talk("EHLO x").startswith("503 ")
    assert not talk.is_closed
    assert talk("QUIT").startswith("221 ")
    assert talk.is_closed


def test_banner_421_closes() -> None:
    session = esmtp()
    session.set_callback("banner", Callback((False, 421, "Later")))
    talk = Talk(session)
    assert talk.banner == "421 Later\r\n"
    assert talk.send(b"") == ""
    assert talk.is_closed


def test_data_gets_the_content() -> None:
    seen: list[tuple[bytes, bytes, int]] = []

    def data(_session: Smtp, content: Content) -> None:
        seen.append((content.read(), content.header, content.size))

    session = esmtp()
    session.set_callback("DATA", data)
    assert Talk(session, *ENVELOPE).message() == "250 2.0.0 message sent"
    body = b"Subject: hi\r\n\r\n.dot\r\nlast line\r\n"
    assert seen == [(body, b"Subject: hi\r\n", len(body))]


def test_data_part_gets_every_byte_once() -> None:
    """In the original the tail and the last part never came, and dots were still stuffed."""
    callback = Callback()
    session = esmtp()
    session.set_callback("DATA-PART", callback)
    talk = Talk(session, *ENVELOPE, "DATA")
    for octet in b"ab\r\n..c\r\nlast\r\n.\r\n":
        reply = talk.send(bytes([octet]))
    assert reply == "250 2.0.0 message sent"
    assert b"".join(part for (part,) in callback.calls) == b"ab\r\n.c\r\nlast\r\n"  # type: ignore[misc]


def test_body_of_a_dot_alone_is_the_empty_message() -> None:
    """The original waited for ever."""
    callback = Callback()
    session = esmtp()
    session.set_callback("DATA-PART", callback)
    assert Talk(session, *ENVELOPE).message(b".\r\n") == "250 2.0.0 message sent"
    assert callback.calls == []


def test_what_follows_the_dot_is_answered_and_the_message_kept() -> None:
    """The original answered 453 to a QUIT in the same packet and lost the message."""
    seen: list[bytes] = []
    session = esmtp()
    session.set_callback("DATA", lambda _session, content: seen.append(content.read()))
    talk = Talk(session, *ENVELOPE)
    assert talk.message(b"x\r\n.\r\nQUIT\r\n").startswith("250 2.0.0 message sent\r\n221 ")
    assert seen == [b"x\r\n"]


def test_refused_part_is_drained_then_answered_once() -> None:
    """The original ran the rest of the body as commands."""
    parts = Callback((False, 554, "5.7.1 No"))
    data = Callback()
    session = esmtp()
    session.set_callback("DATA-PART", parts)
    session.set_callback("DATA", data)
    talk = Talk(session, *ENVELOPE, "DATA")
    assert talk.send(b"bad\r\n") == ""
    assert talk.send(b"MAIL FROM:<evil@x.example>\r\nQUIT\r\n") == ""
    assert talk.send(b".\r\n") == "554 5.7.1 No"
    assert (len(parts.calls), data.calls) == (1, [])
    assert talk("MAIL FROM:<>") == "250 2.1.0 sender <> OK"


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r"])
def test_only_crlf_dot_crlf_ends_a_body(ending: bytes) -> None:
    talk = Talk(esmtp(), *ENVELOPE, "DATA")
    assert talk.send(b"x" + ending + b"MAIL FROM:<evil@x.example>\r\n") == ""
    assert talk.send(b".\r\n").startswith("550 5.6.0 ")


def test_xforward_values_add_up() -> None:
    callback = Callback()
    session = esmtp(xforward=True)
    session.set_callback("XFORWARD", callback)
    talk = Talk(session, "EHLO x")
    talk("XFORWARD name=one ADDR=192.0.2.1")
    talk("XFORWARD Name=two HELO=+41")
    expected = {"name": "two", "addr": "192.0.2.1", "helo": "A"}
    assert callback.calls[-1] == (expected,)
    assert dict(session.forwarded) == expected
    assert session.peer.host == ""  # the peer itself stays beside


def test_refused_xforward_changes_nothing() -> None:
    session = esmtp(xforward=True)
    session.set_callback("XFORWARD", Callback(False))
    Talk(session, "EHLO x", "XFORWARD NAME=one")
    assert session.forwarded == {}


def test_xforward_is_offered_only_by_option() -> None:
    session = esmtp()
    session.set_callback("XFORWARD", Callback())
    talk = Talk(session)
    assert "XFORWARD" not in talk("EHLO x")
    assert talk("XFORWARD NAME=x").startswith("500 ")


@pytest.mark.parametrize("name", ["DATA-INIT", "DATA-PART", "BANNER", "TIMEOUT", "STOP_SESSION", "LINETOBIG"])
def test_events_are_no_commands(name: str) -> None:
    callback = Callback()
    session = esmtp()
    session.set_callback(name, callback)
    talk = Talk(session, *ENVELOPE)
    callback.calls.clear()
    assert talk(f"{name} x").startswith("500 ")
    assert callback.calls == []


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (None, "421 4.4.2 mx.example Timeout exceeded, closing transmission channel\r\n"),
        ((True, None, "4.4.2 bye"), "421 4.4.2 bye\r\n"),
        (False, "550 5.0.0 Failure\r\n"),
    ],
)
def test_timeout(said: Said, reply: str) -> None:
    callback = Callback(said)
    session = esmtp()
    session.set_callback("timeout", callback)
    Talk(session, "EHLO x")
    assert session.time_out().decode() == reply
    assert callback.calls == [()]
    assert session.process_once(b"NOOP\r\n") == (b"", True)


@pytest.mark.parametrize(
    ("last", "error", "expected"),
    [
        ("QUIT", "", None),  # both sides said goodbye
        ("NOOP", "", None),  # the peer closed
        ("NOOP", "broken pipe", "broken pipe"),
    ],
)
def test_stop_session(last: str, error: str, expected: str | None) -> None:
    """Bug (d): the original wrote 250 to a closed peer."""
    callback = Callback((True, 250, "for nobody"))
    session = esmtp()
    session.set_callback("stop_session", callback)
    Talk(session, last)
    session.stop(error)
    session.stop(error)
    assert callback.calls == [(expected,)]
    assert session.process_once(b"NOOP\r\n")[0] == b""


def test_stop_session_after_our_own_end() -> None:
    callback = Callback()
    session = esmtp(bad_commands=0)
    session.set_callback("stop_session", callback)
    assert Talk(session, "WHAT").is_closed
    session.stop()
    assert callback.calls == [("421 4.7.0 Too many errors, closing transmission channel",)]


def test_long_line_is_answered_and_the_session_goes_on() -> None:
    session = esmtp(bad_commands=1)
    session.set_callback("linetobig", Callback((True, 552, "line too long")))
    talk = Talk(session)
    assert talk("NOOP " + 600 * "x") == "552 5.0.0 line too long"
    assert talk("NOOP") == "250 2.0.0 Ok"
    assert "421 4.7.0" in talk("NOOP " + 600 * "x")  # the count is bounded
    assert talk.is_closed
