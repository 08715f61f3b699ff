"""What callbacks may return, and what is made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from talk import Recorder, Talk, esmtp, replies_to

from smtpmaild.embedding import Reply
from smtpmaild.embedding.said import reply_of, verdict
from smtpmaild.embedding.session import Smtp
from smtpmaild.policy.chain import Event


@pytest.mark.parametrize(
    ("event", "said", "expected"),
    [
        (Event.MAIL, None, None),
        (Event.MAIL, True, None),  # success: the protocol's own reply
        (Event.MAIL, (True,), None),
        (Event.MAIL, (1, None, None), None),
        (Event.MAIL, (None, 550, "ignored"), None),  # undefined: the default decides
        (Event.MAIL, False, Reply(550, "5.0.0", "Failure")),
        (Event.MAIL, [0], Reply(550, "5.0.0", "Failure")),
        (Event.MAIL, (False, 450), Reply(450, "4.0.0", "Failure")),
        (Event.MAIL, (True, 251), Reply(251, "2.0.0", "Ok")),
        (Event.MAIL, (False, None, "Go away"), Reply(550, "5.0.0", "Go away")),
        (Event.MAIL, (False, 553, "5.1.8 Bad sender"), Reply(553, "5.1.8", "Bad sender")),
        (Event.MAIL, (False, 450, "5.1.8 is no 4yz"), Reply(450, "4.0.0", "5.1.8 is no 4yz")),
        (Event.MAIL, (True, 250, ""), Reply(250, "2.0.0", "")),
        (Event.MAIL, (True, 250, ["one", "two"]), Reply(250, "2.0.0", "one\ntwo")),
        (Event.MAIL, Reply(452, "4.3.1", "Full"), Reply(452, "4.3.1", "Full")),
        (Event.HELO, (False, 550, "No"), Reply(550, "", "No")),  # RFC 2034 section 4
        (Event.BANNER, False, Reply(554, "", "Failure")),
        (Event.DATA_INIT, (True, None, "Go"), Reply(354, "", "Go")),
        (Event.EXPN, True, Reply(250, "2.0.0", "Ok")),
        (Event.TIMEOUT, (True, 421, "Bye"), Reply(421, "4.0.0", "Bye")),
        (Event.TIMEOUT, Reply(421, "4.4.2", "Bye"), Reply(421, "4.4.2", "Bye")),
        (Event.LINE_TOO_LONG, (True, 552, "line too long"), Reply(552, "5.0.0", "line too long")),
    ],
)
def test_forms(event: Event, said: Any, expected: Reply | None) -> None:
    assert verdict(said, event) == expected


@pytest.mark.parametrize(
    ("event", "said", "error", "words"),
    [
        (Event.MAIL, "250 ok", TypeError, "a callback returns None, True, False, a Reply or"),
        (Event.MAIL, 550, TypeError, "not 550"),
        (Event.MAIL, (), TypeError, "a callback returns"),
        (Event.MAIL, (True, 250, "a", "b"), TypeError, "a callback returns"),
        (Event.MAIL, (True, "250", "ok"), TypeError, "a reply code is a number, not '250'"),
        (Event.MAIL, (True, 550, "no"), ValueError, "reply code 550 is no success of MAIL"),
        (Event.MAIL, (False, 250, "ok"), ValueError, "reply code 250 is no failure of MAIL"),
        (Event.MAIL, (True, 354), ValueError, "reply code 354 is no success"),
        (Event.MAIL, (False, 999), ValueError, "between 200 and 599"),
        (Event.DATA_INIT, (True, 250), ValueError, "reply code 250 is no success of DATA-INIT"),
        (Event.DATA_INIT, Reply(250, "", "ok"), ValueError, "reply code 250 is no success of DATA-INIT"),
        (Event.TIMEOUT, (True, 250), ValueError, "reply code 250 is no success of timeout"),
    ],
)
def test_slips(event: Event, said: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words.replace("(", "\\(")):
        verdict(said, event)


def test_coroutine_gives_the_same() -> None:
    async def said() -> tuple[bool, int]:
        return False, 450

    answer = verdict(said(), Event.RCPT)
    assert isinstance(answer, Awaitable)

    async def main() -> object:
        return await answer

    assert asyncio.run(main()) == Reply(450, "4.0.0", "Failure")


def test_reply_keeps_a_fitting_enhanced_code() -> None:
    assert reply_of(250, "ok", enhanced="2.1.5") == Reply(250, "2.1.5", "ok")
    assert reply_of(251, "2.1.9 ok", enhanced="2.1.5") == Reply(251, "2.1.9", "ok")
    assert reply_of(451, "ok", enhanced="5.1.5") == Reply(451, "4.0.0", "ok")


def test_empty_and_multi_line_texts_on_the_wire() -> None:
    """The original sent nothing for an empty text, and the client hung."""
    session = esmtp()
    session.set_callback("NOOP", lambda _session: (True, 250, ""))
    session.set_callback("HELP", lambda _session, _line: (True, 214, ["one", "two"]))
    talk = Talk(session)
    assert talk("NOOP") == "250 2.0.0 "
    assert talk("HELP") == "214-2.0.0 one\r\n214 2.0.0 two"


@pytest.mark.parametrize("event", ["HELO", "EHLO", "MAIL", "RCPT", "DATA-INIT", "DATA", "RSET", "NOOP", "VRFY"])
@pytest.mark.parametrize("is_async", [False, True])
def test_raising_callback_is_451_and_the_session_goes_on(event: str, is_async: bool) -> None:
    """Bug (e): it killed the server."""

    def fails(_session: Smtp, *_arguments: object) -> None:
        raise RuntimeError("oops")

    async def fails_later(_session: Smtp, *_arguments: object) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("oops")

    log = Recorder()
    session = esmtp(log=log)
    session.set_callback(event, fails_later if is_async else fails)
    commands = {
        "HELO": b"HELO x\r\n",
        "EHLO": b"EHLO x\r\n",
        "MAIL": b"EHLO x\r\nMAIL FROM:<a@b>\r\n",
        "RCPT": b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n",
        "DATA-INIT": b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
        "DATA": b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
        "RSET": b"RSET\r\n",
        "NOOP": b"NOOP\r\n",
        "VRFY": b"VRFY x\r\n",
    }
    output = asyncio.run(replies_to(session, commands[event] + b"QUIT\r\n"))
    *_, failed, bye = output.decode().splitlines()
    assert failed.replace("4.3.0 ", "") == "451 Local error in processing, try again later"
    assert ("4.3.0" in failed) is (event not in ("HELO", "EHLO"))  # RFC 2034 section 4
    assert bye.startswith("221 ")
    [facts] = [facts for name, facts in log.facts if name == "policy_failed"]
    assert facts["session_id"]  # the trace id


def test_raising_part_callback_refuses_the_message() -> None:
    def fails(_session: Smtp, _part: bytes) -> None:
        raise RuntimeError("oops")

    session = esmtp()
    session.set_callback("DATA-PART", fails)
    talk = Talk(session, "EHLO x", "MAIL FROM:<>", "RCPT TO:<a@b>")
    assert talk.message(b"x\r\n.\r\n").startswith("451 4.3.0 ")


def test_raising_stop_and_timeout_callbacks() -> None:
    def fails(_session: Smtp, *_arguments: object) -> None:
        raise RuntimeError("oops")

    log = Recorder()
    session = esmtp(log=log)
    session.set_callback("stop_session", fails)
    session.set_callback("timeout", fails)
    Talk(session)
    assert session.time_out().startswith(b"451 4.3.0 ")
    session.stop()
    assert log.events.count("policy_failed") == 2
