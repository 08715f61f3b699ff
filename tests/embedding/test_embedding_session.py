"""A session of a program: setting up, what callbacks see and may do, and the ways to run it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from typing import Any

import pytest
from talk import BODY, ENVELOPE, MESSAGE, Recorder, Talk, esmtp, replies_to, smtp

from smtpmaild.embedding import Address, Esmtp, Peer, Smtp
from smtpmaild.embedding.said import Said

# Setting up


def test_old_protocol_knows_no_ehlo() -> None:
    talk = Talk(smtp())
    assert talk.banner == "220 mx.example SMTP smtpmaild Service ready\r\n"
    assert talk("EHLO x") == "500 Syntax error: unrecognized command"
    assert talk("HELO x") == "250 mx.example Requested mail action okay, completed"
    assert talk("MAIL FROM:<a@b> SIZE=1") == "555 Unsupported option: SIZE"
    assert talk("MAIL FROM:<a@b>") == "250 sender a@b OK"
    assert talk("RCPT TO:<Postmaster>") == "250 recipient Postmaster OK"
    assert talk.message() == "250 message sent"
    assert talk("HELP").startswith("214 Commands: ")
    assert "EHLO" not in talk("HELP")


def test_names_can_be_overridden() -> None:
    class Quick(Esmtp):
        protocol_name = "QESMTP"

    assert (
        Talk(Quick(HostName="a.example", APPLICATION="quick")).banner == "220 a.example QESMTP quick Service ready\r\n"
    )


def test_own_host_name_is_the_default() -> None:
    assert Talk(Esmtp()).banner.split()[1] == socket.gethostname()


def test_callback_is_replaced() -> None:
    session = esmtp()
    session.set_callback("NOOP", lambda _session: (True, 250, "one"))
    session.set_callback("noop", lambda _session: (True, 250, "two"))
    assert Talk(session)("NOOP") == "250 2.0.0 two"


def test_unknown_event() -> None:
    with pytest.raises(ValueError, match="there is no event 'BEFORE'"):
        esmtp().set_callback("BEFORE", lambda _session: None)


def test_context_is_that_of_the_running_callback() -> None:
    seen: list[object] = []

    def note(session: Smtp, *_arguments: object) -> None:
        seen.append(session.context)

    session = esmtp()
    session.set_callback("NOOP", note, context={"a": 1})
    session.set_callback("VRFY", note, context="b")
    session.set_callback("EXPN", note)
    session.def_verb("XPING", note)
    Talk(session, "NOOP", "VRFY x", "EXPN x", "VRFY x", "XPING")
    assert seen == [{"a": 1}, "b", None, "b", None]


def test_callback_set_in_mid_session() -> None:
    def hello(session: Smtp, _name: str, _keywords: list[str]) -> None:
        session.set_callback("RCPT", lambda _session, _address: (False, 550, "5.1.1 Nobody"))

    session = esmtp()
    session.set_callback("EHLO", hello)
    assert Talk(session, *ENVELOPE[:2])(ENVELOPE[2]) == "550 5.1.1 Nobody"
    session.set_callback("RCPT", lambda _session, _address: None)
    assert session.process_once(b"RCPT TO:<x@y>\r\n")[0].startswith(b"250 ")


# Verbs


def test_verbs_come_and_go_at_run_time() -> None:
    session = esmtp()
    talk = Talk(session)
    assert talk("XPING a  b").startswith("500 5.5.2 Syntax error: unrecognized command")
    session.def_verb("xping", lambda _session, argument: (True, 250, f"pong {argument}"))
    assert talk("XPing  a  b ") == "250 2.0.0 pong a  b"
    assert "XPING" in session.list_verbs()
    assert "XPING" in talk("HELP")
    session.undef_verb("XPING")
    assert talk("XPING").startswith("500 ")
    session.undef_verb("vrfy")
    session.set_callback("VRFY", lambda _session, _address: True)
    assert talk("VRFY x").startswith("500 ")
    assert "VRFY" not in session.list_verbs()
    session.def_verb("VRFY", lambda _session, _argument: None)
    assert talk("VRFY x").startswith("252 ")


def test_handler_comes_before_the_callback() -> None:
    session = esmtp()
    session.set_callback("NOOP", lambda _session: (False, 550, "callback"))
    session.def_verb("NOOP", lambda _session, _argument: (True, 250, "handler"))
    assert Talk(session)("NOOP") == "250 2.0.0 handler"
    session.undef_verb("NOOP")
    session.def_verb("NOOP", lambda _session, _argument: False)
    assert session.process_once(b"NOOP\r\n")[0] == b"550 5.0.0 Failure\r\n"


@pytest.mark.parametrize("verb", ["mail", "DATA", "BDAT", "EHLO", "QUIT"])
def test_verbs_of_the_protocol_have_callbacks(verb: str) -> None:
    with pytest.raises(ValueError, match="set a callback"):
        esmtp().def_verb(verb, lambda _session, _argument: None)


@pytest.mark.parametrize("line", [b"", b"   ", b"FROB x", b"M\xc5\xbfIL"])
def test_unknown_and_empty_commands(line: bytes) -> None:
    assert Talk(esmtp()).send(line + b"\r\n") == "500 5.5.2 Syntax error: unrecognized command"


# What callbacks see


def test_sender_and_recipients() -> None:
    seen: dict[str, object] = {}

    def note(event: str, session: Smtp) -> None:
        seen[event] = (session.sender, session.recipients)

    session = esmtp()
    for event in ("EHLO", "RCPT", "DATA-INIT", "DATA", "RSET"):
        session.set_callback(event, lambda session, *_arguments, event=event: note(event, session))
    ann, bob = Address("ann", "a.example", ""), Address("bob", "b.example", "")
    talk = Talk(session, *ENVELOPE)
    assert seen["EHLO"] == (None, None)  # the original said 1
    assert seen["RCPT"] == (ann, None)
    talk(ENVELOPE[2])
    assert session.recipients == [bob, bob]  # duplicates are kept
    assert session.queue_id != ""
    assert talk.message().startswith("250 ")
    assert seen["DATA-INIT"] == seen["DATA"] == (ann, [bob, bob])
    assert [session.sender, session.recipients, session.queue_id] == [None, None, ""]
    talk(ENVELOPE[1])
    talk(ENVELOPE[2])
    talk("RSET")
    assert seen["RSET"] == (ann, [bob])
    assert [session.sender, session.recipients] == [None, None]


def test_nothing_to_see_before_the_session() -> None:
    session = esmtp(peer=Peer("192.0.2.1", 25))
    assert (session.sender, session.recipients, session.values, session.forwarded) == (None, None, {}, {})
    assert (session.hello, session.queue_id, session.context) == ("", "", None)
    assert session.peer == Peer("192.0.2.1", 25)


@pytest.mark.parametrize("act", [lambda session: session.dojob(False), Smtp.close, Smtp.stop, Smtp.time_out])
def test_acting_before_the_session(act: Any) -> None:
    with pytest.raises(RuntimeError, match="running session"):
        act(esmtp())


def test_null_sender_is_a_sender() -> None:
    """The original took it for none: the MAIL after RSET failed 503."""
    session = esmtp()
    talk = Talk(session, "EHLO x", "MAIL FROM:<>")
    assert session.sender is not None
    assert session.sender.is_null
    assert talk("RSET").startswith("250 ")
    assert talk("MAIL FROM:<a@b>") == "250 2.1.0 sender a@b OK"
    assert talk("MAIL FROM:<a@b>").startswith("503 ")


def test_refused_recipient_leaves_the_others() -> None:
    session = esmtp()
    session.set_callback("RCPT", lambda _session, address: address.local_part != "eve")
    talk = Talk(session, *ENVELOPE[:2])
    assert talk("DATA") == "554 5.5.1 No valid recipients"
    assert talk("RCPT TO:<eve@b.example>") == "550 5.0.0 Failure"
    assert talk("DATA") == "554 5.5.1 No valid recipients"
    talk("RCPT TO:<bob@b.example>")
    assert talk("RCPT TO:<eve@b.example>") == "550 5.0.0 Failure"
    assert [str(address) for address in session.recipients or ()] == ["bob@b.example"]
    assert talk.message() == "250 2.0.0 message sent"


def test_hello_follows_the_accepted_one() -> None:
    session = esmtp()
    session.set_callback("EHLO", lambda _session, name, _keywords: name != "bad")
    talk = Talk(session, "EHLO good")
    assert session.hello == "good"
    assert talk("EHLO bad") == "550 Failure"
    assert session.hello == "good"


def test_refused_hello_keeps_the_transaction() -> None:
    session = esmtp()
    session.set_callback("EHLO", lambda _session, name, _keywords: name != "bad")
    talk = Talk(session, *ENVELOPE)
    talk("EHLO bad")
    assert talk(ENVELOPE[2]).startswith("250 ")
    assert len(session.recipients or ()) == 2
    talk("EHLO good")
    assert session.sender is None
    assert talk("RCPT TO:<a@b>").startswith("503 ")


def test_helo_ends_extended_mode_and_a_refused_ehlo_begins_it() -> None:
    session = esmtp()
    session.set_callback("EHLO", lambda _session, name, _keywords: name != "bad")
    talk = Talk(session, "HELO x")
    assert talk("MAIL FROM:<a@b> SIZE=1").startswith("555 ")
    talk("EHLO bad")
    assert talk("MAIL FROM:<a@b> SIZE=1").startswith("250 ")
    talk("HELO x")
    assert talk("MAIL FROM:<a@b> SIZE=1").startswith("555 ")


# dojob and close


def skip(said: Said) -> Any:
    def callback(session: Smtp, *_arguments: object) -> Said:
        session.dojob(False)
        return said

    return callback


@pytest.mark.parametrize(
    ("event", "before", "line", "reply", "after", "its_reply"),
    [
        ("HELO", (), "HELO x", "250 ", "MAIL FROM:<a@b>", "503 "),
        ("EHLO", (), "EHLO x", "250-", "MAIL FROM:<a@b>", "503 "),
        ("MAIL", ENVELOPE[:1], "MAIL FROM:<a@b>", "250 ", "RCPT TO:<a@b>", "503 "),
        ("RCPT", ENVELOPE[:2], "RCPT TO:<a@b>", "250 ", "DATA", "554 "),
        ("DATA-INIT", ENVELOPE, "DATA", "354 ", "NOOP", "250 "),
        ("RSET", ENVELOPE, "RSET", "250 ", "DATA", "354 "),
    ],
)
def test_dojob_false_sends_the_reply_only(
    event: str, before: tuple[str, ...], line: str, reply: str, after: str, its_reply: str
) -> None:
    session = esmtp()
    session.set_callback(event, skip(None))
    talk = Talk(session, *before)
    assert talk(line).startswith(reply)
    assert talk(after).startswith(its_reply)


def test_dojob_is_true_again_at_the_next_event() -> None:
    session = esmtp()
    session.set_callback("NOOP", skip(None))
    talk = Talk(session, "NOOP", *ENVELOPE)
    assert talk("DATA").startswith("354 ")


def test_dojob_false_keeps_the_envelope_as_it_was() -> None:
    session = esmtp()
    session.set_callback("MAIL", skip((False, 550, "no")))
    Talk(session, *ENVELOPE[:2])
    assert session.sender is None
    session.set_callback("MAIL", lambda _session, _address: None)
    session.set_callback("RCPT", skip(None))
    session.process_once(b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\n")
    assert session.recipients is None


def test_dojob_false_for_a_part_leaves_it_out_of_the_message() -> None:
    seen: list[bytes] = []
    session = esmtp()
    session.set_callback("DATA-PART", lambda session, part: session.dojob(b"secret" not in part))
    session.set_callback("DATA", lambda _session, content: seen.append(content.read()))
    talk = Talk(session, *ENVELOPE, "DATA")
    talk.send(b"one\r\n")
    talk.send(b"secret\r\n")
    talk.send(b"two\r\n")
    assert talk.send(b".\r\n").startswith("250 ")
    assert seen == [b"one\r\ntwo\r\n"]


def test_banner_end_of_data_and_quit_cannot_be_undone() -> None:
    session = esmtp()
    for event in ("banner", "DATA", "QUIT"):
        session.set_callback(event, skip(None))
    talk = Talk(session, *ENVELOPE)
    assert talk.message() == "250 2.0.0 message sent"
    assert session.sender is None
    assert talk("MAIL FROM:<>").startswith("250 ")
    assert talk("QUIT").startswith("221 ")
    assert talk.is_closed


def test_dojob_false_for_xforward() -> None:
    session = esmtp(xforward=True)
    session.set_callback("XFORWARD", skip(None))
    assert Talk(session, "EHLO x")("XFORWARD NAME=x").startswith("250 ")
    assert session.forwarded == {}


@pytest.mark.parametrize("said", [None, False, (False, 450, "no")])
def test_quit_closes_in_every_case(said: Said) -> None:
    session = esmtp()
    session.set_callback("QUIT", lambda _session: said)
    talk = Talk(session)
    assert talk("QUIT") != ""
    assert talk.is_closed


def test_close_ends_after_the_reply() -> None:
    ends: list[object] = []

    def noop(session: Smtp) -> Said:
        session.close()
        return True, 250, "and bye"

    session = esmtp()
    session.set_callback("NOOP", noop)
    session.set_callback("stop_session", lambda _session, error: ends.append(error))
    talk = Talk(session)
    assert talk.send(b"NOOP\r\nNOOP\r\n") == "250 2.0.0 and bye"
    assert talk.is_closed
    session.stop()
    assert ends == [None]


# Running in a loop of the caller's own


def test_caller_may_send_a_banner_of_its_own() -> None:
    assert esmtp().process_once(b"NOOP\r\n") == (b"250 2.0.0 Ok\r\n", False)


def test_output_that_stalls_a_session_is_all_there() -> None:
    session = esmtp()
    session.banner()
    output, is_closed = session.process_once(b"EHLO x\r\n" * 2000)
    assert output.count(b"250-mx.example Service ready\r\n") == 2000
    assert not is_closed


class Later:
    """Something to wait for that is no coroutine."""

    def __await__(self) -> Generator[None, None, Said]:
        yield
        return True


def test_nothing_can_be_waited_for_without_a_loop() -> None:
    async def noop(_session: Smtp) -> None:
        raise AssertionError("never runs")

    log = Recorder()
    session = esmtp(log=log)
    session.set_callback("NOOP", noop)
    session.set_callback("HELP", lambda _session, _topic: Later())
    talk = Talk(session)
    assert talk("NOOP").startswith("451 4.3.0 ")
    assert talk("HELP").startswith("451 4.3.0 ")
    assert log.events == ["policy_failed", "policy_failed"]


# Running with asyncio

TRANSACTION = "\r\n".join((*ENVELOPE, "DATA", "")).encode() + BODY


@pytest.mark.parametrize("is_async", [False, True])
def test_every_event_sync_and_async(is_async: bool) -> None:
    calls: list[str] = []

    def callback(name: str) -> Any:
        def note(_session: Smtp, *_arguments: object) -> None:
            calls.append(name)

        async def note_later(_session: Smtp, *_arguments: object) -> None:
            await asyncio.sleep(0)
            calls.append(name)

        return note_later if is_async else note

    lines = TRANSACTION + b"".join(
        line + b"\r\n"
        for line in (
            b"RSET", b"NOOP", b"VRFY x", b"EXPN x", b"HELP", b"SEND", b"SOML", b"SAML", b"TURN", b"XPING",
            b"XFORWARD NAME=x", b"HELO x", b"NOOP " + 600 * b"x", b"QUIT",
        )
    )  # fmt: skip
    session = esmtp(xforward=True)
    expected = [
        "banner", "EHLO", "MAIL", "RCPT", "DATA-INIT", "DATA-PART", "DATA", "RSET", "NOOP", "VRFY", "EXPN", "HELP",
        "SEND", "SOML", "SAML", "TURN", "XPING", "XFORWARD", "HELO", "linetobig", "QUIT", "stop_session",
    ]  # fmt: skip
    for name in expected:
        if name == "XPING":
            session.def_verb(name, callback(name))
        else:
            session.set_callback(name, callback(name))
    output = asyncio.run(replies_to(session, lines))
    assert output.endswith(b"221 2.0.0 mx.example Service closing transmission channel\r\n")
    assert calls == expected


def test_async_parts_come_once_each_with_back_pressure() -> None:
    """While a part is looked at, nothing more is read: the client's socket fills up."""
    parts: list[bytes] = []
    running = 0

    async def part(_session: Smtp, chunk: bytes) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001)
        parts.append(chunk)
        running -= 1

    body = b"".join(b"%07d line of a message\r\n" % number for number in range(20_000))
    session = esmtp()
    session.set_callback("DATA-PART", part)
    lines = "\r\n".join((*ENVELOPE, "DATA", "")).encode()
    output = asyncio.run(replies_to(session, lines + body + b".\r\nQUIT\r\n"))
    assert b"250 2.0.0 message sent\r\n221 " in output
    assert b"".join(parts) == body


def test_session_waits_for_its_own_callback_only() -> None:
    async def main() -> None:
        answer = asyncio.Event()

        async def rcpt(_session: Smtp, _address: Address) -> None:
            await answer.wait()

        slow, quick = esmtp(), esmtp()
        slow.set_callback("RCPT", rcpt)
        waiting = asyncio.create_task(replies_to(slow, TRANSACTION))
        assert b"message sent" in await replies_to(quick, TRANSACTION)
        assert not waiting.done()
        answer.set()
        assert b"message sent" in await waiting

    asyncio.run(main())


def test_error_sleep_time_slows_its_session_only() -> None:
    async def seconds(data: bytes) -> float:
        begun = time.monotonic()
        await replies_to(esmtp(error_sleep_time=0.1), data)
        return time.monotonic() - begun

    async def main() -> tuple[float, float]:
        return await asyncio.gather(seconds(b"FROB\r\nFROB\r\nQUIT\r\n"), seconds(b"NOOP\r\n" * 50))

    slow, quick = asyncio.run(main())
    assert slow >= 0.2  # a sleep for each error
    assert quick < 2  # and none for a success


def test_idle_timeout() -> None:
    ends: list[object] = []

    async def main(idle_timeout: float) -> None:
        session = esmtp(idle_timeout=idle_timeout)
        session.set_callback("stop_session", lambda _session, error: ends.append(error))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            task = asyncio.create_task(session.process(theirs))
            await asyncio.wait([task], timeout=5 if idle_timeout else 0.1)
            is_over = task.done()
            ours.recv(1000)  # a socket closed with input unread resets the connection
            ours.close()
            await task
            assert is_over is bool(idle_timeout)

    asyncio.run(main(0.05))
    asyncio.run(main(0))  # never
    assert ends == ["421 4.4.2 mx.example Timeout exceeded, closing transmission channel", None]


def test_idle_timeout_says_why() -> None:
    async def main() -> bytes:
        session = esmtp(idle_timeout=0.05)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            await session.process(theirs)
            ours.setblocking(False)
            return ours.recv(1000)

    assert asyncio.run(main()).endswith(b"\r\n421 4.4.2 mx.example Timeout exceeded, closing transmission channel\r\n")


def test_async_timeout_callback() -> None:
    async def timeout(_session: Smtp) -> Said:
        await asyncio.sleep(0)
        return True, 421, "4.4.2 tired"

    async def main() -> bytes:
        session = esmtp(idle_timeout=0.05)
        session.set_callback("timeout", timeout)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            await session.process(theirs)
            ours.setblocking(False)
            return ours.recv(1000)

    assert asyncio.run(main()).endswith(b"\r\n421 4.4.2 tired\r\n")


def test_socket_as_option_stays_open_and_as_it_was() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"QUIT\r\n")
        asyncio.run(esmtp(SOCKET=theirs).process())
        assert theirs.getblocking()
        theirs.sendall(b"more")
        assert ours.recv(1000).startswith(b"220 ")


def test_peer_of_a_socket() -> None:
    async def main() -> tuple[Peer, Peer]:
        session, named = esmtp(), esmtp(peer=Peer("198.51.100.7", 7))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            for one in (session, named):
                with socket.create_connection(listening.getsockname()) as client:
                    client.sendall(b"QUIT\r\n")
                    accepted, address = listening.accept()
                    with accepted:
                        await one.process(accepted)
                        expected = Peer(address[0], address[1])
                    if one is session:
                        assert session.peer == expected
        return session.peer, named.peer

    peer, named = asyncio.run(main())
    assert peer.host == "127.0.0.1"
    assert named == Peer("198.51.100.7", 7)


def test_handles_that_are_asyncio_streams() -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        with ours:
            ours.sendall(b"QUIT\r\n")
            await esmtp(handle_in=reader, handle_out=writer).process()
            writer.close()
            await writer.wait_closed()
            return ours.recv(1000)

    assert b"\r\n221 " in asyncio.run(main())


def test_handles_that_are_files() -> None:
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    with open(in_read, "rb") as handle_in, open(out_write, "wb") as handle_out, open(out_read, "rb") as output:
        os.write(in_write, b"QUIT\r\n")
        os.close(in_write)
        asyncio.run(esmtp(handle_in=handle_in, handle_out=handle_out).process())
        handle_out.close()
        assert b"\r\n221 " in output.read()


@pytest.mark.parametrize("stream", ["handle_in", "handle_out"])
def test_handles_of_two_kinds(stream: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        with ours, open(os.devnull, "r+b") as file:
            handles: dict[str, object] = {"handle_in": file, "handle_out": file}
            handles[stream] = {"handle_in": reader, "handle_out": writer}[stream]
            with pytest.raises(TypeError, match="both asyncio streams, or both files"):
                await esmtp(**handles).process()
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


def test_standard_input_and_output() -> None:
    program = (
        "import asyncio; from smtpmaild.embedding import Esmtp; asyncio.run(Esmtp(hostname='a.example').process())"
    )
    done = subprocess.run([sys.executable, "-c", program], input=b"NOOP\r\nQUIT\r\n", capture_output=True, timeout=20)
    assert done.stdout.splitlines() == [
        b"220 a.example ESMTP smtpmaild Service ready",
        b"250 2.0.0 Ok",
        b"221 2.0.0 a.example Service closing transmission channel",
    ]


def test_process_cancelled_ends_the_session() -> None:
    ends: list[object] = []

    async def main() -> None:
        session = esmtp()
        session.set_callback("stop_session", lambda _session, error: ends.append(error))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            task = asyncio.create_task(session.process(theirs))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert ends == [None]


def test_callback_that_is_cancelled_from_within_ends_the_session() -> None:
    async def noop(_session: Smtp) -> None:
        task = asyncio.ensure_future(asyncio.sleep(1))
        task.cancel()
        await task

    session = esmtp()
    session.set_callback("NOOP", noop)
    output = asyncio.run(replies_to(session, b"NOOP\r\nNOOP\r\n"))
    assert output.endswith(b"\r\n421 4.3.0 Internal error, closing transmission channel\r\n")


def test_decision_after_the_end_is_dropped() -> None:
    log = Recorder()

    async def data(_session: Smtp, content: object) -> Said:
        await asyncio.sleep(0.05)
        return None

    async def main() -> None:
        session = esmtp(log=log)
        session.set_callback("DATA", data)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(TRANSACTION)
            task = asyncio.create_task(session.process(theirs))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.06)

    asyncio.run(main())
    assert "session_failed" not in log.events


def test_message_is_read_whole() -> None:
    seen: list[bytes] = []
    session = esmtp()
    session.set_callback("DATA", lambda _session, content: seen.append(content.open().read()))
    asyncio.run(replies_to(session, TRANSACTION))
    assert seen == [MESSAGE]
