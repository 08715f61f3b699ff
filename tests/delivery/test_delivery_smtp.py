"""SMTP to one host and LMTP: what is said, what comes of it for each recipient, and connections that are kept."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from delivering import (
    DROP,
    EIGHT_BIT,
    MESSAGE,
    STALL,
    Bytes,
    Facts,
    Peer,
    Script,
    Unreadable,
    closing,
    recipients,
    run,
    serving,
    shared,
    shown,
)

from smtpmaild.delivery import Agent, Outcome, Passed, courier
from smtpmaild.delivery.builtin import build
from smtpmaild.delivery.channel import BLOCK, Channel, limits
from smtpmaild.delivery.endpoint import Endpoint
from smtpmaild.delivery.lmtp import LmtpOptions
from smtpmaild.delivery.options import TimeoutOptions
from smtpmaild.delivery.smtp import MxOptions, SmtpOptions
from smtpmaild.envelope import BodyType
from smtpmaild.queue import QueuedMessage
from smtpmaild.queue.body import BytesBody
from smtpmaild.smtp.client import ClientSession
from smtpmaild.smtp.reply import Reply

SHORT = TimeoutOptions(connect=5, greeting=0.3, command=0.3, data=0.3, block=0.3, end_of_data=0.3, quit=0.3)


def to(peer: Peer, **options: Any) -> Agent:
    return build(SmtpOptions(host="127.0.0.1", port=peer.port, **options), shared())


@asynccontextmanager
async def both(script: Script, **options: Any) -> AsyncIterator[tuple[Peer, Agent]]:
    async with serving(script) as peer, closing(to(peer, **options)) as agent:
        yield peer, agent


def remote(peer: Peer) -> str:
    return f"[127.0.0.1]:{peer.port}"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("offers", [(), ("PIPELINING",), ("PIPELINING", "CHUNKING", "SIZE 0")])
def test_each_recipient_has_its_outcome(offers: tuple[str, ...], loop: str) -> None:
    async def work() -> None:
        script = Script(offers, {"RCPT TO:<b": "550 5.1.1 unknown", "RCPT TO:<c": "450 4.2.1 busy"})
        async with both(script) as (peer, agent):
            outcomes = await agent.deliver(MESSAGE, recipients("a@x.example", "b@x.example", "c@x.example"))
            assert outcomes == [
                Outcome(Reply(250, "2.0.0", "taken"), remote(peer), Passed.OUT),
                Outcome(Reply(550, "5.1.1", "unknown"), remote(peer), Passed.OUT),
                Outcome(Reply(450, "4.2.1", "busy"), remote(peer), Passed.OUT),
            ]
        (taken,) = peer.taken
        assert taken.body == b"Subject: x\r\n\r\n.\r\nhello\r\n"
        assert taken.commands[1:] == ["RCPT TO:<a@x.example>"]

    run(work(), loop)


def test_connection_is_kept_for_the_next_message() -> None:
    async def work() -> None:
        async with both(Script()) as (peer, agent):
            for _ in range(3):
                assert shown(await agent.deliver(MESSAGE, recipients("a@x.example"))) == ["250 2.0.0 taken"]
        assert len(peer.taken) == 3
        (session,) = peer.sessions
        assert session[0] == "EHLO client.example"
        assert session.count("RSET") == 2
        assert session[-1] == "QUIT"

    run(work())


def test_connections_have_their_number_of_messages_and_their_time() -> None:
    async def work() -> None:
        async with both(Script(), messages_per_connection=2, idle=0.05) as (peer, agent):
            for _ in range(3):
                await agent.deliver(MESSAGE, recipients("a@x.example"))
            await asyncio.sleep(0.2)
            assert [session[-1] for session in peer.sessions] == ["QUIT", "QUIT"]
            await agent.deliver(MESSAGE, recipients("a@x.example"))
            assert len(peer.sessions) == 3

    run(work())


def test_messages_at_one_time_have_connections_of_their_own() -> None:
    async def work() -> None:
        async with both(Script()) as (peer, agent):
            await asyncio.gather(*(agent.deliver(MESSAGE, recipients("a@x.example")) for _ in range(4)))
            assert (len(peer.sessions), len(peer.taken)) == (4, 4)

    run(work())


def test_only_so_many_connections_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "_MOST_IDLE", 2)

    async def work() -> None:
        async with both(Script()) as (peer, agent):
            await asyncio.gather(*(agent.deliver(MESSAGE, recipients("a@x.example")) for _ in range(4)))
            await asyncio.sleep(0.1)
            assert peer.open == 2

    run(work())


@pytest.mark.parametrize("farewell", [DROP, "421 4.4.2 idle too long"])
def test_connection_that_the_server_closed_meanwhile_counts_for_nothing(farewell: str) -> None:
    async def work() -> None:
        async with both(Script(replies={"RSET": [farewell]})) as (peer, agent):
            for _ in range(2):
                assert shown(await agent.deliver(MESSAGE, recipients("a@x.example"))) == ["250 2.0.0 taken"]
            assert len(peer.sessions) == 2

    run(work())


def test_server_that_closes_an_idle_connection_is_connected_to_again() -> None:
    async def work() -> None:
        async with both(Script(replies={"NEVER": ""})) as (peer, agent):
            await agent.deliver(MESSAGE, recipients("a@x.example"))
            courier = agent._courier  # type: ignore[attr-defined]
            ((idle,),) = courier._idle.values()
            idle[0]._transport.abort()
            await asyncio.sleep(0.05)
            assert shown(await agent.deliver(MESSAGE, recipients("a@x.example"))) == ["250 2.0.0 taken"]
            assert len(peer.sessions) == 2

    run(work())


@pytest.mark.parametrize(
    ("command", "reply", "outcome"),
    [
        ("greeting", STALL, "451 4.4.2 {}: Timed out while waiting for the greeting"),
        ("greeting", DROP, "451 4.4.2 {}: Lost the connection while waiting for the greeting"),
        ("greeting", "554 5.7.1 not you", "554 5.7.1 not you"),
        ("greeting", "421 4.3.2 busy", "421 4.3.2 busy"),
        ("greeting", "HTTP/1.1 400", "451 4.5.0 {}: Protocol error of the remote server: no SMTP reply: HTTP/1.1 400"),
        ("EHLO", STALL, "451 4.4.2 {}: Timed out while greeting the server"),
        ("MAIL", STALL, "451 4.4.2 {}: Timed out while sending MAIL"),
        ("MAIL", "552 5.3.4 too big", "552 5.3.4 too big"),
        ("RCPT", DROP, "451 4.4.2 {}: Lost the connection while sending RCPT"),
        ("DATA", STALL, "451 4.4.2 {}: Timed out while sending DATA"),
        ("DATA", "451 4.3.0 later", "451 4.3.0 later"),
        (".", STALL, "451 4.4.2 {}: Timed out while waiting for the reply to the message"),
        (".", DROP, "451 4.4.2 {}: Lost the connection while waiting for the reply to the message"),
        (".", "554 5.7.1 spam", "554 5.7.1 spam"),
        (".", "421 4.3.2 going down", "421 4.3.2 going down"),
    ],
)
def test_trouble_with_the_server(command: str, reply: str, outcome: str) -> None:
    async def work() -> None:
        async with both(Script(replies={command: reply}), timeouts=SHORT) as (peer, agent):
            found = await agent.deliver(MESSAGE, recipients("a@x.example"))
            assert shown(found) == [outcome.format(remote(peer))]
            # Who is quoted is named; what are our own words says itself whom it is about.
            assert found[0].remote == ("" if "{}" in outcome else remote(peer))
            assert peer.taken == []

    run(work())


def test_server_that_sends_an_octet_now_and_then_is_late_too() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                writer.write(b"2")
                await asyncio.sleep(0.05)
        finally:
            writer.transport.abort()

    async def work() -> None:
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with closing(build(SmtpOptions(host="127.0.0.1", port=port, timeouts=SHORT), shared())) as agent:
            found = await agent.deliver(MESSAGE, recipients("a@x.example"))
            assert shown(found) == [f"451 4.4.2 [127.0.0.1]:{port}: Timed out while waiting for the greeting"]
        server.close()
        await asyncio.sleep(0.1)

    run(work())


def test_server_that_floods_is_left() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 hello\r\n")
            while not writer.is_closing():
                writer.write(b"250 " + b"x" * 60_000 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    async def work() -> None:
        server = await asyncio.start_server(flood, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with closing(build(SmtpOptions(host="127.0.0.1", port=port), shared())) as agent:
            (found,) = shown(await agent.deliver(MESSAGE, recipients("a@x.example")))
            assert found.startswith("451 4.5.0")
        server.close()
        await asyncio.sleep(0.1)

    run(work())


def test_line_without_end_is_not_kept_without_bound() -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                writer.write(b"x" * 60_000)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    async def work() -> None:
        server = await asyncio.start_server(pour, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        channel = Channel(ClientSession("client.example"), Endpoint("x", "127.0.0.1", port), limits(TimeoutOptions()))
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: channel, "127.0.0.1", port)
        async with asyncio.timeout(5):
            await channel._gone.wait()  # though nobody asks for an event
        assert channel.session.unread < 2_000_000
        server.close()
        await asyncio.sleep(0.05)

    run(work())


def test_nobody_waits_for_what_cannot_happen() -> None:
    async def work() -> None:
        channel = Channel(ClientSession("client.example"), Endpoint("x", "127.0.0.1", 1), limits(TimeoutOptions()))
        channel.session.connection_lost()
        await channel.event()
        with pytest.raises(RuntimeError, match="nothing is asked for"):
            await channel.event()

    run(work())


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    async def work() -> None:
        async with closing(build(SmtpOptions(host="127.0.0.1", port=port), shared())) as agent:
            found = await agent.deliver(MESSAGE, recipients("a@x.example", "b@x.example"))
            assert shown(found) == [f"451 4.4.1 [127.0.0.1]:{port}: Cannot connect: Connection refused"] * 2

    run(work())


def test_nobody_accepts() -> None:
    # A queue of one that is full: the kernel answers no more.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        options = SmtpOptions(host="127.0.0.1", port=full.getsockname()[1], timeouts=TimeoutOptions(connect=0.3))

        async def work() -> None:
            async with closing(build(options, shared())) as agent:
                (found,) = shown(await agent.deliver(MESSAGE, recipients("a@x.example")))
                assert found.endswith("Timed out while connecting")

        run(work())
        for one in waiting:
            one.close()


def test_small_message_of_the_queue_needs_no_thread() -> None:
    async def work() -> None:
        async with both(Script()) as (peer, agent):
            message = replace(MESSAGE, body=BytesBody(b"Subject: x\r\n"))
            assert shown(await agent.deliver(message, recipients("a@x.example"))) == ["250 2.0.0 taken"]
        assert peer.taken[0].body == b"Subject: x\r\n"
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("asyncio")]

    run(work())


def test_large_message_is_streamed() -> None:
    line = b".x" * 30 + b"\r\n"
    body = line * (3 * BLOCK // len(line))

    async def work() -> None:
        for offers in ((), ("CHUNKING",)):
            async with both(Script(offers)) as (peer, agent):
                message = replace(MESSAGE, body=Bytes(body))
                assert shown(await agent.deliver(message, recipients("a@x.example"))) == ["250 2.0.0 taken"]
            assert peer.taken[0].body == body

    run(work())


def test_server_that_stops_reading_is_late() -> None:
    is_over = asyncio.Event()

    async def stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        for reply in (b"250 x", b"250 ok", b"250 ok", b"354 go"):
            await reader.readline()
            writer.write(reply + b"\r\n")
        await is_over.wait()
        writer.transport.abort()

    async def work() -> None:
        server = await asyncio.start_server(stop, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        options = SmtpOptions(host="127.0.0.1", port=port, timeouts=SHORT)
        async with closing(build(options, shared())) as agent:
            message = replace(MESSAGE, body=Bytes(b"x\r\n" * 10_000_000))
            (found,) = shown(await agent.deliver(message, recipients("a@x.example")))
            assert found.endswith("Timed out while sending the message")
        is_over.set()
        server.close()
        await asyncio.sleep(0.05)

    run(work())


def test_server_that_goes_in_the_middle_of_a_message() -> None:
    async def go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        for reply in (b"250 x", b"250 ok", b"250 ok", b"354 go"):
            await reader.readline()
            writer.write(reply + b"\r\n")
        await reader.read(1000)
        writer.transport.abort()

    async def work() -> None:
        server = await asyncio.start_server(go, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with closing(build(SmtpOptions(host="127.0.0.1", port=port), shared())) as agent:
            message = replace(MESSAGE, body=Bytes(b"x\r\n" * 10_000_000))
            (found,) = shown(await agent.deliver(message, recipients("a@x.example")))
            assert found == f"451 4.4.2 [127.0.0.1]:{port}: Lost the connection while sending the message"
        server.close()

    run(work())


def test_refusal_in_the_middle_of_a_message_is_heard() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        for reply in (b"250 x", b"250 ok", b"250 ok", b"354 go"):
            await reader.readline()
            writer.write(reply + b"\r\n")
        await reader.read(1000)
        writer.write(b"552 5.3.4 enough\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.transport.abort()
        is_over.set()

    is_over = asyncio.Event()

    async def work() -> None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with closing(build(SmtpOptions(host="127.0.0.1", port=port), shared())) as agent:
            message = replace(MESSAGE, body=Bytes(b"x\r\n" * 10_000_000))
            assert shown(await agent.deliver(message, recipients("a@x.example"))) == ["552 5.3.4 enough"]
        await is_over.wait()
        server.close()

    run(work())


class Truncated(Bytes):
    """Its file breaks off with an error in the second block."""

    def open(self) -> Any:
        stream = super().open()

        class Stream:
            reads = 0

            def read(self, size: int) -> bytes:
                self.reads += 1
                if self.reads > 1:
                    raise OSError(5, "Input/output error")
                return stream.read(size)

            def close(self) -> None:
                stream.close()

        return Stream()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (Unreadable(), "Cannot read the message: No such file or directory"),
        (Truncated(b"x\r\n" * BLOCK), "Cannot read the message: Input/output error"),
    ],
)
@pytest.mark.parametrize("offers", [(), ("CHUNKING",)])
def test_message_that_cannot_be_read_is_never_half_delivered(body: Any, why: str, offers: tuple[str, ...]) -> None:
    async def work() -> None:
        async with both(Script(offers)) as (peer, agent):
            found = await agent.deliver(replace(MESSAGE, body=body), recipients("a@x.example"))
            assert shown(found) == [f"451 4.3.0 {remote(peer)}: {why}"]
        assert peer.taken == []

    run(work())


def test_message_shorter_than_it_says_is_never_delivered() -> None:
    async def work() -> None:
        async with both(Script(("CHUNKING",))) as (peer, agent):
            (found,) = shown(await agent.deliver(replace(MESSAGE, body=Bytes(b"x\r\n", 10)), recipients("a@x.example")))
            assert found.endswith("The message is shorter than it was said to be")
        assert peer.taken == []

    run(work())


LIMITED = replace(MESSAGE, parameters={"BY": "3600;R"}, received_at=time.time())


@pytest.mark.parametrize(
    ("message", "offers", "outcome"),
    [
        (EIGHT_BIT, ("8BITMIME",), "250 2.0.0 taken"),
        (EIGHT_BIT, (), "554 5.6.3 {}: The next hop does not take 8-bit messages (8BITMIME)"),
        # declared, but not so
        (replace(MESSAGE, body_type=BodyType.EIGHT_BIT_MIME), (), "250 2.0.0 taken"),
        (
            replace(MESSAGE, body=Unreadable(), body_type=BodyType.EIGHT_BIT_MIME),
            (),
            "554 5.6.3 {}: The next hop does not take 8-bit messages (8BITMIME)",
        ),
        (
            replace(MESSAGE, is_utf8=True),
            (),
            "550 5.6.7 {}: The next hop does not take internationalized mail (SMTPUTF8)",
        ),
        (MESSAGE, ("SIZE 5",), "552 5.3.4 {}: Message of 24 bytes exceeds the limit of the next hop, 5"),
        (
            replace(MESSAGE, parameters={"REQUIRETLS": ""}),
            ("REQUIRETLS",),
            "550 5.7.10 {}: Encryption needed",
        ),
        # RFC 2852 §4.1.4.1: R goes only to who knows DELIVERBY, and takes what is left of the time.
        (LIMITED, (), "554 5.3.3 {}: The next hop cannot be given a time to deliver by (DELIVERBY)"),
        (LIMITED, ("DELIVERBY",), "250 2.0.0 taken"),
        (LIMITED, ("DELIVERBY 600",), "250 2.0.0 taken"),
        (LIMITED, ("DELIVERBY ,x",), "250 2.0.0 taken"),
        (LIMITED, ("DELIVERBY 999999,x",), "554 5.4.7 {}: The next hop wants 999999 seconds to deliver it"),
    ],
)
def test_what_the_next_hop_must_offer(message: QueuedMessage, offers: tuple[str, ...], outcome: str) -> None:
    async def work() -> None:
        async with both(Script(offers)) as (peer, agent):
            found = await agent.deliver(message, recipients("a@x.example"))
            assert shown(found) == [outcome.format(remote(peer))]

    run(work())


def test_dsn_is_passed_on_where_it_is_known() -> None:
    async def work() -> None:
        message = replace(MESSAGE, parameters={"RET": "HDRS"})
        (recipient,) = recipients("a@x.example")
        recipient = replace(recipient, parameters={"NOTIFY": "SUCCESS"})
        async with both(Script(("DSN",))) as (peer, agent):
            (outcome,) = await agent.deliver(message, [recipient])
            assert outcome.passed is Passed.ON
        assert peer.taken[0].commands == [
            "MAIL FROM:<sender@client.example> RET=HDRS",
            "RCPT TO:<a@x.example> NOTIFY=SUCCESS",
        ]

    run(work())


@pytest.mark.parametrize(
    ("accepted_as", "orcpt"),
    [
        ("sales+x=y@local.example", "rfc822;sales+2Bx+3Dy@local.example"),
        ('"a b"@local.example', 'rfc822;"a+20b"@local.example'),
        ("b\u00fcro+x@local.example", "utf-8;b\\x{FC}ro\\x{2B}x@local.example"),
        ("\u00fc" * 60 + "@" + "\u00fc" * 60 + ".example", None),  # 500 characters are the most
    ],
)
@pytest.mark.parametrize("given", ["", "rfc822;first@z.example"])
def test_next_hop_is_told_what_an_alias_was(accepted_as: str, orcpt: str | None, given: str) -> None:
    async def work() -> None:
        parameters = {"ORCPT": given} if given else {}
        (recipient,) = recipients("a@x.example")
        recipient = replace(recipient, accepted_as=accepted_as, parameters=parameters)
        async with both(Script(("DSN",))) as (peer, agent):
            await agent.deliver(MESSAGE, [recipient])
        told = given or orcpt
        assert peer.taken[0].commands[1] == "RCPT TO:<a@x.example>" + (f" ORCPT={told}" if told else "")

    run(work())


def test_time_to_deliver_by_goes_on() -> None:
    async def work() -> None:
        message = replace(MESSAGE, received_at=time.time() - 100, parameters={"BY": "1000;R"})
        async with both(Script(("DELIVERBY",))) as (peer, agent):
            await agent.deliver(message, recipients("a@x.example"))
        assert peer.taken[0].commands[0] in [f"MAIL FROM:<sender@client.example> BY={left};R" for left in (899, 900)]

    run(work())


@pytest.mark.parametrize("offers", [(), ("DELIVERBY",)])
def test_who_keeps_the_time_is_told(offers: tuple[str, ...]) -> None:
    async def work() -> None:
        async with both(Script(offers)) as (_, agent):
            (outcome,) = await agent.deliver(replace(MESSAGE, parameters={"BY": "9;N"}), recipients("a@x.example"))
            assert outcome.keeps_time is bool(offers)

    run(work())


@pytest.mark.parametrize(
    ("by", "offers", "notify", "said"),
    [
        # RFC 2852 §4.1.4.2: who knows DSN but not DELIVERBY is asked to tell of delays.
        ("3600;N", ("DSN",), "", " NOTIFY=FAILURE,DELAY"),
        ("3600;N", ("DSN",), "SUCCESS", " NOTIFY=SUCCESS,DELAY"),
        ("3600;N", ("DSN",), "delay", " NOTIFY=delay"),
        ("3600;N", ("DSN",), "NEVER", " NOTIFY=NEVER"),
        ("3600;N", ("DSN", "DELIVERBY"), "", ""),
        ("3600;N", (), "SUCCESS", ""),
        ("-3600;N", ("DSN",), "SUCCESS", " NOTIFY=SUCCESS"),  # its sender knows that it is late
    ],
)
def test_who_does_not_keep_the_time_is_asked_to_tell_of_delays(
    by: str, offers: tuple[str, ...], notify: str, said: str
) -> None:
    async def work() -> None:
        message = replace(MESSAGE, received_at=time.time(), parameters={"BY": by})
        (recipient,) = recipients("a@x.example")
        recipient = replace(recipient, parameters={"NOTIFY": notify} if notify else {})
        async with both(Script(offers)) as (peer, agent):
            await agent.deliver(message, [recipient])
        assert peer.taken[0].commands[1] == f"RCPT TO:<a@x.example>{said}"

    run(work())


def test_store_need_not_know_of_times() -> None:
    """To hand mail to the store is to deliver it (RFC 2852 §1), not to relay it."""

    async def work() -> None:
        async with serving(Script(("DSN",), is_lmtp=True)) as peer:
            options = LmtpOptions(type="lmtp", host="localhost", port=peer.port)
            async with closing(build(options, shared())) as agent:
                for by in ("3600;R", "3600;N"):
                    message = replace(MESSAGE, received_at=time.time(), parameters={"BY": by})
                    assert shown(await agent.deliver(message, recipients("a@x.example"))) == ["250 2.0.0 taken"]
        assert [taken.commands[1] for taken in peer.taken] == ["RCPT TO:<a@x.example>"] * 2

    run(work())


REQUIRING = replace(MESSAGE, parameters={"REQUIRETLS": ""})


def test_message_that_requires_tls_goes_to_no_mx() -> None:
    async def work() -> None:
        async with closing(build(MxOptions(type="mx"), shared())) as agent:
            found = shown(await agent.deliver(REQUIRING, recipients("a@x.example", "b@y.example")))
            assert [one[:10] for one in found] == ["550 5.7.30"] * 2

    run(work())


@pytest.mark.parametrize(("options", "offers"), [({"recipients_per_message": 2}, ()), ({}, ("LIMITS RCPTMAX=2",))])
def test_many_recipients_travel_in_groups(options: dict[str, Any], offers: tuple[str, ...]) -> None:
    async def work() -> None:
        async with both(Script(offers, {"RCPT TO:<3": "550 5.1.1 no"}), **options) as (peer, agent):
            found = await agent.deliver(MESSAGE, recipients(*(f"{number}@x.example" for number in range(5))))
            assert [reply[:3] for reply in shown(found)] == ["250", "250", "250", "550", "250"]
        assert [len(taken.commands) - 1 for taken in peer.taken] == [2, 1, 1]
        assert len(peer.sessions) == 1

    run(work())


def test_server_that_is_gone_between_two_groups() -> None:
    async def work() -> None:
        script = Script(replies={"greeting": ["220 hi", "421 4.3.2 busy"], "RSET": [DROP]})
        async with both(script, recipients_per_message=1) as (_, agent):
            found = await agent.deliver(MESSAGE, recipients("a@x.example", "b@x.example", "c@x.example"))
            assert shown(found) == ["250 2.0.0 taken", "421 4.3.2 busy", "421 4.3.2 busy"]

    run(work())


def test_cancelled_delivery_leaves_no_connection() -> None:
    async def work() -> None:
        async with both(Script(replies={".": STALL})) as (peer, agent):
            task = asyncio.create_task(agent.deliver(MESSAGE, recipients("a@x.example")))
            while not peer.sessions or "DATA" not in peer.sessions[0]:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert agent._courier._idle == {}  # type: ignore[attr-defined]

    run(work())


def test_own_fault_is_logged_and_temporary() -> None:
    log = Facts()

    async def work() -> None:
        async with (
            serving(Script(("DSN",))) as peer,
            closing(build(SmtpOptions(host="127.0.0.1", port=peer.port), shared(log))) as agent,
        ):
            bad = replace(MESSAGE, parameters={"ENVID": "x\r\nQUIT"})
            found = await agent.deliver(bad, recipients("a@x.example"))
            assert shown(found) == ["451 4.3.0 Local error in processing, try again later"]
        (event,) = log.events
        assert event.startswith("delivery_failed") and "ValueError" in event

    run(work())


def test_source_address() -> None:
    async def work() -> None:
        seen: list[str] = []

        async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(writer.get_extra_info("peername")[0])
            writer.transport.abort()

        server = await asyncio.start_server(look, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        options = SmtpOptions(host="127.0.0.1", port=port, source_ipv4="127.0.0.9")
        async with closing(build(options, shared())) as agent:
            await agent.deliver(MESSAGE, recipients("a@x.example"))
        assert seen == ["127.0.0.9"]
        server.close()

    run(work())


# LMTP


def test_lmtp_has_a_reply_for_each_recipient(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "lmtp"
        script = Script(
            ("PIPELINING", "DSN"),
            {"RCPT TO:<b": "550 5.1.1 no", ".": ["250 2.0.0 stored", "452 4.2.2 full"]},
            is_lmtp=True,
        )
        options = LmtpOptions(type="lmtp", path=str(path))
        async with serving(script, path=path) as peer, closing(build(options, shared())) as agent:
            found = await agent.deliver(MESSAGE, recipients("a@x.example", "b@x.example", "c@x.example"))
        assert shown(found) == ["250 2.0.0 stored", "550 5.1.1 no", "452 4.2.2 full"]
        assert [outcome.passed for outcome in found] == [Passed.IN] * 3
        assert found[0].remote == str(path)
        assert peer.sessions[0][0] == "LHLO client.example"

    run(work())


def test_lmtp_over_tcp() -> None:
    async def work() -> None:
        async with serving(Script(is_lmtp=True)) as peer:
            options = LmtpOptions(type="lmtp", host="localhost", port=peer.port)
            async with closing(build(options, shared())) as agent:
                (found,) = await agent.deliver(MESSAGE, recipients("a@x.example"))
        assert found.remote == f"localhost [127.0.0.1]:{peer.port}"

    run(work())


def test_message_that_requires_tls_may_stay_on_this_machine(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "lmtp"
        options = LmtpOptions(type="lmtp", path=str(path))
        async with serving(Script(is_lmtp=True), path=path) as peer, closing(build(options, shared())) as agent:
            assert shown(await agent.deliver(REQUIRING, recipients("a@x.example"))) == ["250 2.0.0 taken"]
        assert peer.taken[0].commands[0] == "MAIL FROM:<sender@client.example>"

    run(work())


def test_lmtp_socket_that_is_not_there(tmp_path: Path) -> None:
    async def work() -> None:
        path = str(tmp_path / "lmtp")
        async with closing(build(LmtpOptions(type="lmtp", path=path), shared())) as agent:
            found = await agent.deliver(MESSAGE, recipients("a@x.example"))
            assert shown(found) == [f"451 4.4.1 {path}: Cannot connect: No such file or directory"]

    run(work())
