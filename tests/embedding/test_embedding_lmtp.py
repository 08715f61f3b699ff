"""LMTP sessions of a program: LHLO, and DATA asked about each recipient."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from talk import BODY, HOST, MESSAGE, Recorder, Talk, replies_to

from smtpmaild.embedding import Address, Content, Esmtp, Extension, Lmtp, Reply
from smtpmaild.embedding.said import Said

RECIPIENTS = ("ann@a.example", "bob@b.example", "ann@a.example")
ENVELOPE = ("LHLO client.example", "MAIL FROM:<>", *(f"RCPT TO:<{one}>" for one in RECIPIENTS))


def lmtp(**options: object) -> Lmtp:
    return Lmtp(**{"hostname": HOST, "log": Recorder(), **options})


def test_banner_and_greeting() -> None:
    session = lmtp()
    heard: list[tuple[str, list[str]]] = []
    session.set_callback("LHLO", lambda _session, name, keywords: heard.append((name, keywords)))
    session.set_callback("EHLO", lambda *_: pytest.fail("never said"))
    talk = Talk(session)
    assert talk.banner == f"220 {HOST} LMTP smtpmaild Service ready\r\n"
    assert talk("HELO x") == talk("EHLO x") == "500 5.5.1 This is LMTP: say LHLO"
    assert talk("MAIL FROM:<>") == "503 5.5.1 Send LHLO first"
    first, *keywords = talk("LHLO client.example").split("\r\n")
    assert first == f"250-{HOST} Service ready"
    assert heard == [("client.example", [line[4:] for line in keywords])]
    assert {"PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"} <= set(heard[0][1])
    assert "LHLO" in session.list_verbs()
    assert not {"HELO", "EHLO"} & set(session.list_verbs())
    with pytest.raises(ValueError, match="set a callback"):
        session.def_verb("LHLO", lambda *_: True)


def test_greeting_refused() -> None:
    session = lmtp()
    session.set_callback("LHLO", lambda *_: False)
    assert Talk(session)("LHLO x") == "550 Failure"


def test_data_is_asked_about_each_recipient_in_order() -> None:
    session = lmtp()
    asked: list[tuple[bytes, Any, Any]] = []

    def data(session: Lmtp, content: Content, recipient: Address) -> Said:
        asked.append((content.read(), recipient.text, session.context))
        return recipient.domain == "a.example"

    session.set_callback("DATA", data, "context")
    talk = Talk(session, *ENVELOPE)
    assert talk.message() == "250 2.0.0 Ok\r\n550 5.0.0 bob@b.example Failed\r\n250 2.0.0 Ok"
    assert asked == [(MESSAGE, recipient, "context") for recipient in RECIPIENTS]
    assert session.recipients is None
    assert talk("NOOP") == "250 2.0.0 Ok"


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (None, "250 2.0.0 Ok"),
        (True, "250 2.0.0 Ok"),
        ((True, 250, "2.1.5 Stored"), "250 2.1.5 Stored"),
        ((False, 452), "452 4.0.0 ann@a.example Failed"),
        (Reply(552, "5.2.2", "Mailbox full"), "552 5.2.2 Mailbox full"),
        ("nonsense", "451 4.3.0 Local error in processing, try again later"),
    ],
)
@pytest.mark.parametrize("is_later", [False, True])
def test_what_a_callback_may_say(said: Any, reply: str, is_later: bool) -> None:
    async def later(_session: Lmtp, _content: Content, recipient: Address) -> Said:
        await asyncio.sleep(0)
        return said if recipient.domain == "a.example" else True

    session = lmtp()
    session.set_callback("DATA", later if is_later else lambda *_: said)
    body = "\r\n".join((*ENVELOPE[:3], ENVELOPE[3], "DATA", "")).encode() + BODY
    *_, ann, bob = asyncio.run(replies_to(session, body)).decode().splitlines()
    assert ann == reply
    assert bob == (reply.replace("ann@a", "bob@b") if not is_later else "250 2.0.0 Ok")


def test_each_is_waited_for_before_the_next_is_asked() -> None:
    session, steps = lmtp(), []

    async def data(_session: Lmtp, _content: Content, recipient: Address) -> Said:
        steps.append(f"{recipient} asked")
        await asyncio.sleep(0)
        steps.append(f"{recipient} answered")
        return True

    session.set_callback("DATA", data)
    asyncio.run(replies_to(session, "\r\n".join((*ENVELOPE, "DATA", "")).encode() + BODY))
    assert steps == [f"{recipient} {what}" for recipient in RECIPIENTS for what in ("asked", "answered")]


def test_without_a_callback_each_is_told_ok() -> None:
    assert Talk(lmtp(), *ENVELOPE).message() == "\r\n".join(["250 2.0.0 Ok"] * 3)


def test_parts_are_not_asked_for_each_recipient() -> None:
    session, parts = lmtp(), []
    session.set_callback("DATA-PART", lambda _session, part: parts.append(part))
    Talk(session, *ENVELOPE).message()
    assert b"".join(parts) == MESSAGE


def test_refused_part_is_told_to_each() -> None:
    session = lmtp()
    session.set_callback("DATA-PART", lambda *_: (False, 554, "5.6.0 No"))
    session.set_callback("DATA", lambda *_: pytest.fail("refused already"))
    assert Talk(session, *ENVELOPE).message() == "\r\n".join(["554 5.6.0 No"] * 3)


def test_close_and_421() -> None:
    session = lmtp()
    session.set_callback("DATA", lambda session, *_: session.close())
    talk = Talk(session, *ENVELOPE)
    assert talk.message() == "\r\n".join(["250 2.0.0 Ok"] * 3)
    assert talk.is_closed

    session = lmtp()
    session.set_callback("DATA", lambda _session, _content, to: to.domain == "a.example" or (False, 421, "4.7.0 Off"))
    talk = Talk(session, *ENVELOPE)
    assert talk.message() == "250 2.0.0 Ok\r\n421 4.7.0 Off\r\n250 2.0.0 Ok"
    assert talk.is_closed


def test_bdat() -> None:
    session = lmtp()
    session.set_callback("DATA", lambda _session, _content, recipient: recipient.domain == "b.example")
    talk = Talk(session, *ENVELOPE)
    assert talk.send(b"BDAT 3\r\nx\r\n") == "250 2.0.0 3 octets received"
    assert talk.send(b"BDAT 0 LAST\r\n") == (
        "550 5.0.0 ann@a.example Failed\r\n250 2.0.0 Ok\r\n550 5.0.0 ann@a.example Failed"
    )


class Marked(Extension):
    """Changes the reply to each recipient."""

    modes: list[bool]

    def __init__(self, session: Esmtp) -> None:
        super().__init__(session)
        self.modes = []

    def verb(self) -> Any:
        return [("XMODES", lambda *_: (True, 250, f"{self.modes}"))]

    def reply(self) -> Any:
        return [("DATA", lambda _session, _verb, _success, code, text: (code, f"{text}!"))]

    def extend_mode(self, extended: bool) -> None:
        self.modes.append(extended)


def test_extensions_know_lhlo_and_change_each_reply() -> None:
    session = lmtp()
    session.register(Marked)
    session.set_callback("DATA", lambda _session, _content, recipient: recipient.domain == "b.example")
    talk = Talk(session, *ENVELOPE)
    assert talk("XMODES") == "250 2.0.0 [True]"
    assert talk.message() == (
        "550 5.0.0 ann@a.example Failed!\r\n250 2.0.0 Ok!\r\n550 5.0.0 ann@a.example Failed!"
    )  # fmt: skip
