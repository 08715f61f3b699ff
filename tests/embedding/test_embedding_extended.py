"""Extensions of a program's own: what they may bring, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from talk import ENVELOPE, Recorder, Talk, esmtp, replies_to

from smtpmaild.embedding import Address, Esmtp, Extension, Reply
from smtpmaild.embedding.said import Callback, Said


class Priority(Extension):
    """MT-PRIORITY in small (RFC 6710)."""

    modes: list[bool]

    def __init__(self, session: Esmtp) -> None:
        super().__init__(session)
        self.modes = []

    def keyword(self) -> str:
        return "XPRIORITY"

    def parameter(self) -> Sequence[str]:
        return ("MIXER", "STANAG4406")

    def verb(self) -> Sequence[tuple[str, Callback]]:
        return (("XPRIO", lambda _session, argument: (True, 250, f"modes {self.modes} {argument}")),)

    def option(self) -> Sequence[tuple[str, str, Callback]]:
        return (("MAIL", "xprio", self.take), ("rcpt", "XFAST", self.take_flag))

    def take(self, session: Esmtp, verb: str, address: Address, key: str, value: str) -> Said:
        if not (value.isascii() and value.isdigit()):
            return False, 501, f"5.5.4 Bad {key} of {verb} {address}"
        session.values["priority"] = int(value)
        return True

    def take_flag(self, session: Esmtp, verb: str, address: Address, key: str, value: str) -> None:
        session.values[key] = (verb, str(address), value)

    def extend_mode(self, extended: bool) -> None:
        self.modes.append(extended)


def with_extension(*extensions: type[Extension], **options: object) -> Esmtp:
    session = esmtp(**options)
    for extension in extensions:
        session.register(extension)
    return session


def test_keyword_verb_and_mode() -> None:
    talk = Talk(with_extension(Priority))
    assert "250 XPRIORITY MIXER STANAG4406" in talk("EHLO x").split("\r\n")
    talk("HELO x")
    assert talk("XPRIO  a") == "250 2.0.0 modes [True, False] a"
    assert "XPRIO" in talk("HELP")


def test_options_with_typed_values() -> None:
    seen: list[object] = []
    session = with_extension(Priority)
    session.set_callback("MAIL", lambda session, _address: seen.append(dict(session.values)))
    talk = Talk(session, "EHLO x")
    assert talk("MAIL FROM:<a@b> SIZE=10 Xprio=4").startswith("250 ")
    assert talk("RCPT TO:<c@d> XFAST").startswith("250 ")
    assert seen == [{"priority": 4}]
    assert session.values == {"priority": 4, "XFAST": ("RCPT", "c@d", "")}
    talk("RSET")
    assert session.values == {}


def test_option_may_refuse_before_the_callback() -> None:
    asked: list[object] = []
    session = with_extension(Priority)
    session.set_callback("MAIL", lambda _session, address: asked.append(address))
    talk = Talk(session, "EHLO x")
    assert talk("MAIL FROM:<a@b> XPRIO=high") == "501 5.5.4 Bad XPRIO of MAIL a@b"
    assert asked == []
    assert session.sender is None


@pytest.mark.parametrize(
    ("greeting", "line", "reply"),
    [
        ("EHLO x", "MAIL FROM:<a@b> XOTHER=1", "555 5.5.4 Unsupported option: XOTHER"),
        ("EHLO x", "MAIL FROM:<a@b> XFAST", "555 5.5.4 Unsupported option: XFAST"),  # of RCPT
        ("EHLO x", "MAIL FROM:<a@b> XPRIO=1 xprio=2", "501 5.5.4 XPRIO given twice"),
        ("HELO x", "MAIL FROM:<a@b> XPRIO=1", "555 5.5.4 Unsupported option: XPRIO"),
    ],
)
def test_options_that_are_none(greeting: str, line: str, reply: str) -> None:
    assert Talk(with_extension(Priority), greeting)(line) == reply


def test_options_in_order_sync_or_async() -> None:
    order: list[str] = []

    async def first(_session: Esmtp, _verb: str, _address: Address, key: str, _value: str) -> Said:
        await asyncio.sleep(0)
        order.append(key)
        return True, 250, "fine"

    def second(_session: Esmtp, _verb: str, _address: Address, key: str, _value: str) -> Said:
        order.append(key)
        return Reply(250, "2.1.0", "fine")

    class Two(Extension):
        def option(self) -> Sequence[tuple[str, str, Callback]]:
            return (("MAIL", "XA", first), ("MAIL", "XB", second))

    class Three(Extension):
        def option(self) -> Sequence[tuple[str, str, Callback]]:
            return (("MAIL", "XC", second),)

    session = esmtp()
    session.set_callback("MAIL", lambda _session, _address: order.append("callback"))
    session.register(Two)
    session.register(Three)
    asyncio.run(replies_to(session, b"EHLO x\r\nMAIL FROM:<a@b> XC=1 XB=1 XA=1\r\n"))
    assert order == ["XA", "XB", "XC", "callback"]


def test_option_that_raises_is_451() -> None:
    def fails(*_arguments: object) -> None:
        raise RuntimeError("oops")

    class Broken(Extension):
        def option(self) -> Sequence[tuple[str, str, Callback]]:
            return (("RCPT", "XB", fails),)

    talk = Talk(with_extension(Broken), *ENVELOPE[:2])
    assert talk("RCPT TO:<a@b> XB=1").startswith("451 4.3.0 ")
    assert talk("RCPT TO:<a@b>").startswith("250 ")


# Changed replies


def changing(name: str, change: Any) -> type[Extension]:
    class Changing(Extension):
        def reply(self) -> Sequence[tuple[str, Any]]:
            return ((name, change),)

    return Changing


@pytest.mark.parametrize(
    ("name", "before", "line", "reply"),
    [
        ("HELO", (), "HELO x", "250 mx.example Requested mail action okay, completed"),  # not in extended mode
        ("EHLO", (), "EHLO x", "250 changed"),
        ("MAIL", ENVELOPE[:1], "MAIL FROM:<a@b>", "250 2.1.0 changed"),
        ("rcpt", ENVELOPE[:2], "RCPT TO:<a@b>", "250 2.1.5 changed"),
        ("data-init", ENVELOPE, "DATA", "354 changed"),
        ("NOOP", ENVELOPE, "NOOP", "250 2.0.0 changed"),
        ("NOOP", (), "NOOP", "250 2.0.0 Ok"),  # not in extended mode
        ("RSET", ENVELOPE, "RSET", "250 2.0.0 changed"),
        ("HELP", ENVELOPE, "HELP", "214 2.0.0 changed"),
        ("VRFY", ENVELOPE, "VRFY x", "252 2.5.0 changed"),
        ("TURN", ENVELOPE, "TURN", "502 5.5.1 changed"),
        ("QUIT", ENVELOPE, "QUIT", "221 2.0.0 changed"),
        ("linetobig", ENVELOPE, "NOOP " + 600 * "x", "500 5.5.2 changed"),
    ],
)
def test_reply_of(name: str, before: tuple[str, ...], line: str, reply: str) -> None:
    extension = changing(name, lambda _session, _verb, _success, code, _text: (code, "changed"))
    assert Talk(with_extension(extension), *before)(line) == reply


def test_reply_to_the_end_of_data() -> None:
    extension = changing("DATA", lambda _session, _verb, _success, code, text: (code, f"2.6.0 {text}, thanks"))
    assert Talk(with_extension(extension), *ENVELOPE).message() == "250 2.6.0 message sent, thanks"


def test_reply_of_the_banner() -> None:
    extension = changing("banner", lambda _session, _verb, _success, code, text: (code, f"{text}!"))
    assert Talk(with_extension(extension)).banner == "220 mx.example ESMTP smtpmaild Service ready!\r\n"


@pytest.mark.parametrize("is_async", [False, True])
def test_reply_of_a_timeout(is_async: bool) -> None:
    async def timeout(_session: Esmtp) -> None:
        await asyncio.sleep(0)

    extension = changing("timeout", lambda _session, _verb, _success, code, _text: (code, "changed"))
    session = with_extension(extension, idle_timeout=0.02)
    if is_async:
        session.set_callback("timeout", timeout)
        output = asyncio.run(silent(session))
    else:
        Talk(session, "EHLO x")
        output = session.time_out()
    assert output.endswith(b"421 4.4.2 changed\r\n")


async def silent(session: Esmtp) -> bytes:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"EHLO x\r\n")
        await session.process(theirs)
        return ours.recv(10_000)


def test_changes_are_chained_and_see_everything() -> None:
    seen: list[tuple[object, ...]] = []

    def first(_session: Esmtp, verb: str, success: bool, code: int, text: str) -> tuple[int, str]:
        seen.append((verb, success, code, text))
        return 551, "5.1.6 first"

    def second(_session: Esmtp, verb: str, success: bool, code: int, text: str) -> Reply | None:
        seen.append((verb, success, code, text))
        return None

    def third(_session: Esmtp, _verb: str, _success: bool, code: int, text: str) -> Reply:
        return Reply(code, "5.1.7", f"{text} third")

    session = with_extension(changing("RCPT", first), keyworded(changing("RCPT", second), "B"))
    session.register(keyworded(changing("RCPT", third), "C"))
    session.set_callback("RCPT", lambda _session, _address: False)
    assert Talk(session, *ENVELOPE[:2])(ENVELOPE[2]) == "551 5.1.7 first third"
    assert seen == [("RCPT", False, 550, "Failure"), ("RCPT", False, 551, "first")]


def keyworded(extension: type[Extension], word: str) -> type[Extension]:
    class Named(extension):  # type: ignore[valid-type,misc]
        def keyword(self) -> str:
            return word

    return Named


@pytest.mark.parametrize(
    "change",
    [
        lambda *_arguments: 1 / 0,
        lambda *_arguments: (550, "now refused"),  # the state would not follow
        lambda *_arguments: "text",
    ],
)
def test_change_that_fails_leaves_the_reply(change: Any) -> None:
    log = Recorder()
    session = with_extension(changing("RCPT", change), log=log)
    assert Talk(session, *ENVELOPE[:2])(ENVELOPE[2]) == "250 2.1.5 recipient bob@b.example OK"
    assert log.events.count("reply_change_failed") == 1
    assert len(session.recipients or ()) == 1


# What is refused at registration


def bringing(**brings: object) -> type[Extension]:
    class Bringing(Extension):
        def keyword(self) -> str:
            return str(brings.get("keyword", "XB"))

        def verb(self) -> Any:
            return brings.get("verb", ())

        def option(self) -> Any:
            return brings.get("option", ())

        def reply(self) -> Any:
            return brings.get("reply", ())

    return Bringing


NOTHING = lambda *_arguments: None  # noqa: E731


@pytest.mark.parametrize(
    ("extension", "words"),
    [
        (bringing(keyword="XPRIORITY"), "the keyword XPRIORITY is taken: XPRIORITY cannot offer it too"),
        (bringing(keyword="SIZE"), "the keyword SIZE is taken"),
        (bringing(option=[("MAIL", "XPRIO", NOTHING)]), "the parameter of MAIL XPRIO is taken"),
        (bringing(option=[("MAIL", "size", NOTHING)]), "the parameter of MAIL SIZE is taken"),
        (bringing(option=[("RCPT", "xfast", NOTHING)]), "the parameter of RCPT XFAST is taken"),
        (bringing(option=[("RCPT", "XA", NOTHING), ("rcpt", "xa", NOTHING)]), "XB offers a parameter twice"),
        (bringing(option=[("DATA", "XA", NOTHING)]), "options belong to MAIL and RCPT, not to 'DATA'"),
        (bringing(verb=[("xprio", NOTHING)]), "the verb XPRIO is taken"),
        (bringing(verb=[("NOOP", NOTHING)]), "the verb NOOP is taken"),
        (bringing(verb=[("XPING", NOTHING)]), "the verb XPING is taken"),
        (bringing(reply=[("XNONE", NOTHING)]), "there is no verb 'XNONE' whose reply could be changed"),
    ],
)
def test_refused_extension_leaves_nothing(extension: type[Extension], words: str) -> None:
    session = with_extension(Priority)
    session.def_verb("XPING", NOTHING)
    before = Talk(session)("EHLO x"), session.list_verbs()
    with pytest.raises(ValueError, match=words):
        session.register(extension)
    talk = Talk(session)
    assert (talk("EHLO x"), session.list_verbs()) == before
    assert talk("MAIL FROM:<a@b> XA=1").startswith("555 ")


def test_extension_of_nothing() -> None:
    class Xnothing(Extension):
        pass

    assert "250 XNOTHING" in Talk(with_extension(Xnothing))("EHLO x").split("\r\n")


def test_own_verb_may_have_its_reply_changed() -> None:
    extension = bringing(
        verb=[("XPING", lambda _session, _argument: (True, 250, "pong"))],
        reply=[("xping", lambda _session, _verb, _success, code, text: (code, text.upper()))],
    )
    assert Talk(with_extension(extension), "EHLO x")("XPING") == "250 2.0.0 PONG"


def test_registered_in_mid_session() -> None:
    session = esmtp()
    talk = Talk(session, "EHLO x")
    session.register(Priority)
    assert talk("MAIL FROM:<a@b> XPRIO=1").startswith("250 ")
