"""One client connection, over real sockets: replies in time and in order, limits, deadlines, and the ways it ends."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any

import pytest
from house import Facts, Guest, MemorySink, listening, make_door, run_loop, until

from smtpmaild.envelope import Peer, Session, Transaction
from smtpmaild.policy import Answer, Policy
from smtpmaild.policy.early_talker import EarlyTalker
from smtpmaild.server import connection
from smtpmaild.server.connection import peer_of
from smtpmaild.server.counts import Counts
from smtpmaild.server.listener import ConnectionLimits, Door, Room, Timeouts
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import Reply

pytestmark = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


class House:
    """A door, its store and its log."""

    def __init__(self, **door: Any) -> None:
        self.sink = MemorySink()
        self.log = Facts()
        self.door: Door = make_door(self.sink, self.log, **door)


class Slow(Policy):
    """Takes a moment for RCPT, or for ever."""

    name = "slow"

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds

    async def rcpt(self, transaction: Transaction, forward_path: Address) -> Reply | None:
        await asyncio.sleep(self.seconds)
        return None


class Broken(Policy):
    """Refuses the connection."""

    name = "closed"

    def connect(self, session: Session) -> Answer:
        return Reply(421, "4.3.2", "Not now")


def test_message_arrives_whole(loop: str) -> None:
    async def go() -> None:
        house = House()
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            await guest.greet()
            await guest.begin_message()
            assert (await guest.ask("Subject: x\r\n\r\n..dot\r\n.")).startswith("250 2.0.0 Ok: queued as ")
            assert (await guest.ask("QUIT")).startswith("221 ")
            assert await guest.is_closed()
        (message,) = house.sink.messages
        assert message.endswith(b"Subject: x\r\n\r\n.dot\r\n")
        assert house.log.named("session_closed")[0]["reason"] == ""

    run_loop(go(), loop)


def test_pipelined_group_is_answered_in_order_and_at_once(loop: str) -> None:
    async def go() -> None:
        house = House()
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            await guest.greet()
            guest.send(
                "MAIL FROM:<a@b.example>", "RCPT TO:<c@refused.example>", "RCPT TO:<c@d.example>", "DATA", "x", ".",
                "NOOP", "QUIT",
            )  # fmt: skip
            codes = [(await guest.reply())[:3] for _ in range(7)]
            assert codes == ["250", "550", "250", "354", "250", "250", "221"]
            assert await guest.is_closed()
        assert len(house.sink.messages) == 1

    run_loop(go(), loop)


def test_order_is_kept_behind_a_policy_that_waits(loop: str) -> None:
    async def go() -> None:
        house = House(policies=[Slow()])
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            await guest.greet()
            guest.send("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "NOOP")
            await asyncio.sleep(0.005)
            guest.send("RSET")  # while the policy waits
            replies = [await guest.reply() for _ in range(4)]
            assert [reply[:9] for reply in replies] == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0"]

    run_loop(go(), loop)


def test_client_that_never_reads_costs_bounded_memory(loop: str) -> None:
    async def go() -> None:
        house = House()
        async with listening(house.door, buffer=100_000) as (listener, address):
            client = socket.socket()
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                client.setsockopt(socket.SOL_SOCKET, option, 100_000)
            client.connect(address)
            client.setblocking(False)
            commands = await flood(client)
            (one,) = listener.connections
            assert isinstance(one, connection.Connection)
            transport: Any = one._transport
            assert len(one._dialogue.protocol._input) + transport.get_write_buffer_size() < 500_000
            assert house.door.service.metrics.sessions_open == 1
            # As soon as it reads it gets every reply it asked for.
            assert await count_replies(client, commands) == commands
            client.close()

    run_loop(go(), loop)


_COMMAND = b"EHLO x\r\n"


async def flood(client: socket.socket) -> int:
    """Send commands until none is taken any more; how many whole ones were."""
    sent, loop = 0, asyncio.get_running_loop()
    last = loop.time()
    while loop.time() < last + 0.1:
        try:
            sent += client.send((_COMMAND * 1000)[sent % len(_COMMAND) :])
            last = loop.time()
        except BlockingIOError:
            await asyncio.sleep(0.002)
    return sent // len(_COMMAND)


async def count_replies(client: socket.socket, wanted: int) -> int:
    """Read so many replies to EHLO, or what there is of them."""
    loop = asyncio.get_running_loop()
    last_line, found, tail = b"250 LIMITS", 0, b""
    while found < wanted and (chunk := await loop.sock_recv(client, 1 << 20)):
        tail += chunk
        found += tail.count(last_line)
        tail = tail[1 - len(last_line) :]
    return found


def test_limits_turn_away_with_421(loop: str) -> None:
    async def go() -> None:
        house = House(limits=ConnectionLimits(total=3, per_address=2))
        async with listening(house.door) as (listener, address):
            async with Guest.connected(address) as first, Guest.connected(address) as second:
                assert (await first.reply())[:3] == (await second.reply())[:3] == "220"
                async with Guest.connected(address) as third:
                    assert await third.reply() == "421 mx.example Too many connections, try again later"
                    assert await third.is_closed()
                async with Guest.connected(address, "127.0.0.2") as other:
                    assert (await other.reply())[:3] == "220"
                    async with Guest.connected(address, "127.0.0.3") as fourth:
                        assert (await fourth.reply())[:3] == "421"
            await until(lambda: not listener.connections)
            async with Guest.connected(address) as again:
                assert (await again.reply())[:3] == "220"
        assert house.door.service.metrics.sessions_refused == 2
        assert house.log.named("connection_limit_reached")[0]["listener"] == "mx"

    run_loop(go(), loop)


def test_a_listener_has_limits_of_its_own(loop: str) -> None:
    async def go() -> None:
        counts = Counts(1)
        strict = House(limits=ConnectionLimits(total=3, per_address=2, here=1, name="strict"))
        open_ = House(limits=ConnectionLimits(total=3, per_address=2))
        async with (
            listening(strict.door, counts=counts) as (_, narrow),
            listening(open_.door, counts=counts) as (_, wide),
            Guest.connected(wide) as first,
            Guest.connected(narrow) as second,
            Guest.connected(wide) as third,
        ):
            # The address is there twice at the one and once at the other.
            assert [(await guest.reply())[:3] for guest in (first, second, third)] == ["220", "220", "220"]
            async with Guest.connected(narrow, "127.0.0.2") as fourth:
                assert (await fourth.reply())[:3] == "421"
            await until(lambda: len(strict.log.named("connection_limit_reached")) == 1)
            async with Guest.connected(wide, "127.0.0.2") as fifth:  # one too many in all
                assert (await fifth.reply())[:3] == "421"

    run_loop(go(), loop)


def test_network_and_descriptors_limit_too(loop: str) -> None:
    async def go() -> None:
        house = House(limits=ConnectionLimits(per_network=1))
        async with (
            listening(house.door, counts=Counts(1, prefix_v4=24)) as (_, address),
            Guest.connected(address, "127.0.0.2") as first,
            Guest.connected(address, "127.0.0.3") as neighbour,
            Guest.connected(address, "127.0.1.2") as stranger,
        ):
            assert [(await guest.reply())[:3] for guest in (first, neighbour, stranger)] == ["220", "421", "220"]
        async with (
            listening(House().door, room=Room(1)) as (_, address),
            Guest.connected(address) as first,
            Guest.connected(address) as second,
        ):
            assert [(await guest.reply())[:3] for guest in (first, second)] == ["220", "421"]

    run_loop(go(), loop)


@pytest.mark.parametrize(
    ("timeouts", "lines"),
    [
        (Timeouts(greeting=0.05), []),
        (Timeouts(command=0.05), ["HELO x"]),
        (Timeouts(command=0.05), ["HELO x", "NOOP"]),
        (Timeouts(data_block=0.05), ["HELO x", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "text"]),
        (Timeouts(session=0.05), ["HELO x"]),
    ],
    ids=["greeting", "first command", "next command", "body", "session"],
)
def test_silence_is_answered_421(loop: str, timeouts: Timeouts, lines: list[str]) -> None:
    async def go() -> None:
        house = House(timeouts=timeouts)
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            guest.send(*lines)
            replies = [line for line in (await guest.reader.read()).decode().splitlines() if line[3] == " "]
            assert len(replies) == 1 + len([line for line in lines if line != "text"]) + 1
            assert replies[-1] == "421 4.4.2 mx.example Timeout exceeded, closing transmission channel"
        assert house.door.service.metrics.sessions_timed_out == 1
        assert house.sink.aborted == ("text" in lines)

    run_loop(go(), loop)


def test_half_a_command_does_not_move_the_deadline(loop: str) -> None:
    async def go() -> None:
        house = House(timeouts=Timeouts(command=0.15))
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            await guest.greet()
            start = asyncio.get_running_loop().time()
            trickle = asyncio.create_task(drip(guest, b"NOOP" * 100))
            assert (await guest.reply())[:3] == "421"
            assert 0.1 < asyncio.get_running_loop().time() - start < 0.5
            trickle.cancel()

    run_loop(go(), loop)


async def drip(guest: Guest, data: bytes) -> None:
    for position in range(len(data)):
        guest.writer.write(data[position : position + 1])
        await asyncio.sleep(0.01)


def test_body_slower_than_the_rate_ends(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_RATE_GRACE_SECONDS", 0.05)

    async def go() -> None:
        house = House(body_rate=1_000)
        async with listening(house.door) as (_, address):
            async with Guest.connected(address) as guest:
                await guest.greet()
                await guest.begin_message()
                trickle = asyncio.create_task(drip(guest, b"text" * 100))
                assert (await guest.reply())[:3] == "421"
                trickle.cancel()
            async with Guest.connected(address) as guest:
                await guest.greet()
                await guest.begin_message()
                for _ in range(10):
                    guest.send("x" * 998)
                    await asyncio.sleep(0.01)
                assert (await guest.ask("."))[:3] == "250"

    run_loop(go(), loop)


def test_pause_between_messages_is_no_slow_body(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_RATE_GRACE_SECONDS", 0.05)

    async def go() -> None:
        house = House(body_rate=10_000)
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            await guest.greet()
            for _ in range(2):
                await guest.begin_message()
                assert (await guest.ask("text\r\n."))[:3] == "250"
                await asyncio.sleep(0.1)
            assert (await guest.ask("NOOP"))[:3] == "250"

    run_loop(go(), loop)


def test_greeting_waits_for_its_delay(loop: str) -> None:
    async def go() -> None:
        house = House(greeting_delay=0.08, policies=[EarlyTalker()])
        async with listening(house.door) as (_, address):
            start = asyncio.get_running_loop().time()
            async with Guest.connected(address) as patient, Guest.connected(address) as early:
                early.send("EHLO x")
                await asyncio.sleep(0.01)
                early.send("NOOP")
                assert (await patient.reply())[:3] == "220"
                assert asyncio.get_running_loop().time() - start >= 0.079
                assert await early.reply() == "554 A client waits for the greeting before it talks"
                assert [(await early.reply())[:3] for _ in range(2)] == ["503", "503"]
                assert (await early.ask("QUIT"))[:3] == "221"

    run_loop(go(), loop)


def test_early_talker_is_served_without_the_policy(loop: str) -> None:
    async def go() -> None:
        house = House(greeting_delay=0.03)
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            guest.send("HELO x", "NOOP")
            guest.writer.write_eof()
            assert [(await guest.reply())[:3] for _ in range(3)] == ["220", "250", "250"]
            assert await guest.is_closed()

    run_loop(go(), loop)


def test_half_closed_client_gets_its_replies(loop: str) -> None:
    async def go() -> None:
        house = House(policies=[Slow()])
        house.sink.holds = True
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            guest.send("HELO x", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "text", ".", "NOOP")
            guest.writer.write_eof()
            await asyncio.sleep(0.05)
            house.sink.release()
            assert [(await guest.reply())[:3] for _ in range(7)] == ["220", "250", "250", "250", "354", "250", "250"]
            assert await guest.is_closed()

    run_loop(go(), loop)


def test_half_closed_client_gets_more_replies_than_fit(loop: str) -> None:
    async def go() -> None:
        house = House()
        async with listening(house.door, buffer=20_000) as (_, address), Guest.connected(address) as guest:
            guest.send(*["EHLO x"] * 3000)
            guest.writer.write_eof()
            text = await guest.reader.read()
            assert text.count(b"250 LIMITS") == 3000

    run_loop(go(), loop)


def test_farewell_arrives_though_the_client_still_sends(loop: str) -> None:
    async def go() -> None:
        house = House(options={"bad_commands": 2})
        async with listening(house.door) as (listener, address), Guest.connected(address) as guest:
            guest.send(*["BAD"] * 2000)
            replies = (await guest.reader.read()).decode().splitlines()  # no reset overtakes them
            assert [reply[:3] for reply in replies] == ["220", "500", "500", "500", "421"]
            guest.send("NOOP")
            assert len(listener.connections) == 1  # it listens on until the client closes
            guest.writer.write_eof()
            await until(lambda: not listener.connections)
        assert str(house.log.named("session_closed")[0]["reason"]).startswith("421 ")

    run_loop(go(), loop)


def test_client_that_does_not_close_is_closed(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_LINGER_SECONDS", 0.05)

    async def go() -> None:
        house = House(policies=[Broken()])
        async with listening(house.door) as (listener, address), Guest.connected(address) as guest:
            assert await guest.reply() == "421 Not now"
            await until(lambda: not listener.connections)

    run_loop(go(), loop)


def test_session_is_drained_at_its_next_command(loop: str) -> None:
    async def go() -> None:
        house = House()
        async with listening(house.door) as (listener, address):
            async with Guest.connected(address) as idle, Guest.connected(address) as busy:
                await idle.greet()
                await busy.greet()
                await busy.begin_message()
                listener.drain()
                assert (await idle.ask("NOOP")) == "421 4.3.2 Service shutting down, closing transmission channel"
                assert (await busy.ask("text\r\n."))[:3] == "250"
                assert (await busy.ask("MAIL FROM:<a@b.example>"))[:3] == "421"
            assert len(house.sink.messages) == 1

    run_loop(go(), loop)


def test_abort_forgets_bodies_and_waits_for_stores(loop: str) -> None:
    async def go() -> None:
        house = House()
        house.sink.holds = True
        async with (
            listening(house.door) as (listener, address),
            Guest.connected(address) as sending,
            Guest.connected(address) as storing,
        ):
            for guest in (sending, storing):
                await guest.greet()
                await guest.begin_message()
            sending.send("text")
            storing.send("text", ".")
            await until(lambda: house.sink._waiting)
            listener.abort()
            assert (await sending.reply())[:3] == "421"
            assert house.sink.aborted == 1
            house.sink.release()
            assert (await storing.reply())[:3] == "250"
            listener.abort()
            assert (await storing.reply())[:3] == "421"

    run_loop(go(), loop)


def test_store_that_needs_a_break_gets_the_whole_body(loop: str) -> None:
    async def go() -> None:
        house = House()
        house.sink.takes_breaks = True
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            await guest.greet()
            await guest.begin_message()
            body = "x" * 900 + "\r\n"
            assert (await guest.ask(body * 2000 + "."))[:3] == "250"
        (message,) = house.sink.messages
        assert message.endswith(body.encode() * 2000)

    run_loop(go(), loop)


def test_lost_connection_is_logged_and_forgotten(loop: str) -> None:
    async def go() -> None:
        house = House()
        async with listening(house.door) as (listener, address):
            async with Guest.connected(address) as guest:
                await guest.greet()
                await guest.begin_message()
            await until(lambda: not listener.connections)
        assert house.sink.aborted == 1
        assert house.log.named("session_closed")[0]["reason"] != ""
        assert house.door.service.metrics.sessions_open == 0

    run_loop(go(), loop)


class _Named:
    """A transport with a peer."""

    def __init__(self, name: object) -> None:
        self._name = name

    def get_extra_info(self, key: str) -> object:
        assert key == "peername"
        return self._name


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        (("192.0.2.1", 5), Peer("192.0.2.1", 5)),
        (("2001:db8::1", 5, 0, 0), Peer("2001:db8::1", 5)),
        (("fe80::1%eth0", 5, 0, 2), Peer("fe80::1", 5)),  # a zone is of no use in a log, and no address
        (("::ffff:192.0.2.1", 5, 0, 0), Peer("192.0.2.1", 5)),  # on an inherited socket without IPV6_V6ONLY
        (("::ffff:1", 5, 0, 0), Peer("::ffff:1", 5)),
        ("", Peer("")),
        (None, Peer("")),
    ],
)
def test_peer(loop: str, name: object, peer: Peer) -> None:
    assert peer_of(_Named(name)) == peer  # type: ignore[arg-type]


TO_THE_BODY = "EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@local.example>\r\nDATA\r\n"


@pytest.mark.parametrize("said", ["EHLO c.example\r\n", f"{TO_THE_BODY}half", f"{TO_THE_BODY}whole\r\n.\r\nQUIT\r\n"])
def test_a_session_leaves_no_work_for_the_collector(loop: str, said: str) -> None:
    async def go() -> None:
        house = House()
        async with listening(house.door) as (listener, address):
            gc.collect()
            async with Guest.connected(address) as guest:
                guest.writer.write(said.encode())
                await guest.reader.readuntil(b"354 " if "DATA" in said else b"250 ")
            await until(lambda: not listener.connections)
            await until(lambda: not connections_in_memory())

    gc.collect()
    gc.disable()
    try:
        run_loop(go(), loop)
    finally:
        gc.enable()


def connections_in_memory() -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, connection.Connection)]
