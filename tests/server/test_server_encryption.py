"""TLS over real sockets, in both loops: from the handshake to the last byte, and the ways it fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme
from authority import Pair, client_context, issue, write_ca
from house import Facts, Guest, MemorySink, listening, make_door, run_loop, until

from smtpmaild.server.connection import Connection
from smtpmaild.server.listener import ConnectionLimits, Door, Timeouts, TlsOffer
from smtpmaild.tls.certificates import Certificates
from smtpmaild.tls.settings import ClientCertificates, TlsSettings

pytestmark = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

Address = tuple[str, int]
#: As long as a client may take in tests of clients that take too long.
SHORT = Timeouts(tls_handshake=0.15)
GARBAGE = b"\x13\x37 this is no TLS\r\n" * 20


class House:
    """A door with TLS, its store and its log."""

    def __init__(
        self,
        folder: Path,
        *,
        implicit: bool = False,
        clients: ClientCertificates = "none",
        settings: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        **door: Any,
    ) -> None:
        self.sink = MemorySink()
        self.log = Facts()
        pair = issue(folder)
        tls = TlsSettings((pair.files,), client_ca=write_ca(folder), **(settings or {}))
        self.certificates = Certificates(tls, [clients], self.log)
        offer = TlsOffer(self.certificates, clients, implicit)
        options = {"starttls": not implicit, **(options or {})}
        self.door: Door = make_door(self.sink, self.log, options=options, tls=offer, **door)

    @property
    def failures(self) -> list[object]:
        return [facts["reason"] for facts in self.log.named("tls_handshake_failed")]


class Encrypted(Guest):
    """A client with TLS from the first byte on, or after STARTTLS."""

    @classmethod
    async def implicit(cls, address: Address, pair: Pair | None = None, name: str = "mx.example.com") -> Encrypted:
        return cls(*await asyncio.open_connection(*address, ssl=client_context(pair), server_hostname=name))

    async def start_tls(self, pair: Pair | None = None) -> None:
        assert (await self.ask("STARTTLS")).startswith("220 ")
        await self.writer.start_tls(client_context(pair), server_hostname="mx.example.com")

    async def close(self) -> None:
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass


class Raw:
    """A client that has every byte in its own hands: what it encrypts, and when that leaves."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context().wrap_bio(self.incoming, self.outgoing, server_hostname="mx.example.com")

    @classmethod
    @asynccontextmanager
    async def connected(cls, address: Address) -> AsyncIterator[Raw]:
        raw = cls(*await asyncio.open_connection(*address))
        try:
            yield raw
        finally:
            raw.writer.transport.abort()
            try:
                await raw.writer.wait_closed()
            except OSError:
                pass

    def hello(self) -> bytes:
        """The first message of a client."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    async def finish(self) -> bytes:
        """What a client sends last; hello() was sent."""
        while True:
            octets = await self.reader.read(65536)
            assert octets, "the server closed the connection"  # else this would go on for ever, and let nobody else run
            self.incoming.write(octets)
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.writer.write(self.outgoing.read())  # a second hello, where the server wants another curve
                continue
            return self.outgoing.read()

    def encrypted(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    async def read_until(self, end: bytes) -> bytes:
        """Decrypted text as far as this."""
        text = b""
        while end not in text:
            try:
                text += self.tls.read(65536)
            except ssl.SSLWantReadError:
                data = await self.reader.read(65536)
                assert data, f"closed after {text!r}"
                self.incoming.write(data)
        return text


async def send_message(guest: Guest, text: str = "Subject: x\r\n\r\nhello") -> None:
    await guest.begin_message()
    assert (await guest.ask(f"{text}\r\n.")).startswith("250 2.0.0 Ok: queued as ")


def test_implicit(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door) as (_, address):
            guest = await Encrypted.implicit(address)
            assert (await guest.reply()).startswith("220 ")
            assert "STARTTLS" not in await guest.ask("EHLO client.example")
            await send_message(guest)
            assert (await guest.ask("QUIT")).startswith("221 ")
            assert await guest.is_closed()
            await guest.close()
        (accepted,) = house.log.named("message_accepted")
        assert str(accepted["tls"]).startswith("TLSv1.3 TLS_")
        assert house.door.service.metrics.tls_handshakes == 1
        assert house.failures == []

    run_loop(go(), loop)


def test_starttls(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path)
        async with listening(house.door) as (_, address), Encrypted.connected(address) as guest:
            assert (await guest.reply()).startswith("220 ")
            assert "STARTTLS" in await guest.ask("EHLO client.example")
            await guest.start_tls()
            assert (await guest.ask("MAIL FROM:<a@client.example>")).startswith("503 ")
            assert "STARTTLS" not in await guest.ask("EHLO client.example")
            assert (await guest.ask("STARTTLS")).startswith("503 ")
            await send_message(guest)
            assert (await guest.ask("QUIT")).startswith("221 ")
        assert house.failures == []

    run_loop(go(), loop)


# What is sent in clear, and when


def test_what_stands_behind_starttls_is_never_interpreted(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path)
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            await guest.reply()
            await guest.ask("EHLO client.example")
            guest.send("STARTTLS", "MAIL FROM:<evil@client.example>")
            assert (await guest.reply()).startswith("503 5.5.1 ")
            assert await guest.is_closed()
        assert house.failures == []
        assert "MAIL" not in repr(house.log.named("session_closed")[0]["refused_commands"])

    run_loop(go(), loop)


def test_handshake_in_one_packet_with_starttls_is_refused(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path)
        async with listening(house.door) as (_, address), Raw.connected(address) as raw:
            raw.writer.write(b"EHLO client.example\r\n")
            await raw.reader.readuntil(b"SIZE")
            raw.writer.write(b"STARTTLS\r\n" + raw.hello())
            assert b"503 5.5.1 " in await raw.reader.read()

    run_loop(go(), loop)


def test_clear_text_behind_the_220_is_no_handshake(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path)
        async with listening(house.door) as (_, address), Guest.connected(address) as guest:
            await guest.reply()
            await guest.ask("EHLO client.example")
            assert (await guest.ask("STARTTLS")).startswith("220 ")
            guest.send("MAIL FROM:<evil@client.example>", "RCPT TO:<b@local.example>")
            rest = await guest.reader.read()
            assert rest[:1] in (b"", b"\x15")  # nothing, or a TLS alert
        assert house.failures == ["wrong version number"]
        assert house.log.named("session_closed")[0]["reason"] == "TLS handshake: wrong version number"

    run_loop(go(), loop)


def test_commands_that_come_with_the_end_of_the_handshake_are_kept(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path)
        async with listening(house.door) as (_, address), Raw.connected(address) as raw:
            raw.writer.write(b"EHLO client.example\r\n")
            await raw.reader.readuntil(b"SIZE")
            await raw.reader.readuntil(b"\r\n250 ")
            await raw.reader.readuntil(b"\r\n")
            raw.writer.write(b"STARTTLS\r\n")
            assert (await raw.reader.readuntil(b"\r\n")).startswith(b"220 ")
            raw.writer.write(raw.hello())
            finished = await raw.finish()
            raw.writer.write(finished + raw.encrypted(b"EHLO client.example\r\nNOOP\r\n") + raw.encrypted(b"QUIT\r\n"))
            text = await raw.read_until(b"221 ")
            assert text.startswith(b"250-")
            assert b"\r\n250 2.0.0 " in text

    run_loop(go(), loop)


def test_required(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, options={"requires_tls": True})
        async with listening(house.door) as (_, address), Encrypted.connected(address) as guest:
            await guest.reply()
            await guest.ask("EHLO client.example")
            for command in ("MAIL FROM:<a@client.example>", "RSET", "HELO client.example", "DATA"):
                assert await guest.ask(command) == "530 5.7.0 Must issue a STARTTLS command first"
            assert (await guest.ask("NOOP")).startswith("250 ")
            await guest.start_tls()
            await guest.ask("EHLO client.example")
            await send_message(guest)

    run_loop(go(), loop)


def test_nothing_in_clear_before_a_handshake(loop: str, tmp_path: Path) -> None:
    """Neither the 421 of a limit nor that of a shutdown."""

    async def go() -> None:
        house = House(tmp_path, implicit=True, limits=ConnectionLimits(total=1))
        async with listening(house.door) as (listener, address):
            first = await Raw.connected(address).__aenter__()
            await until(lambda: listener.connections)
            async with Raw.connected(address) as second:
                second.writer.write(second.hello())
                assert await second.reader.read() == b""
            listener.abort()
            assert await first.reader.read() == b""
            first.writer.close()

    run_loop(go(), loop)


# Bodies, breaks and the ways a session ends


def test_large_messages_with_breaks(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        house.sink.takes_breaks = True
        text = "".join(f"{number:076d}\r\n" for number in range(40_000))
        async with listening(house.door) as (_, address):
            guest = await Encrypted.implicit(address)
            await guest.greet()
            for _ in range(2):
                await send_message(guest, f"Subject: x\r\n\r\n{text}")
            await guest.close()
        for message in house.sink.messages:
            assert message.endswith(f"Subject: x\r\n\r\n{text}\r\n".encode())

    run_loop(go(), loop)


def test_client_that_does_not_read_is_not_read_from(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door, buffer=20_000) as (_, address), Raw.connected(address) as raw:
            raw.writer.write(raw.hello())
            raw.writer.write(await raw.finish())
            await raw.read_until(b"220 ")
            raw.writer.write(raw.encrypted(b"EHLO client.example\r\n"))
            commands = 20_000
            noops = raw.encrypted(b"NOOP\r\n" * commands)
            raw.writer.write(noops)
            await asyncio.sleep(0.2)
            text = b""
            while text.count(b"\r\n250 2.0.0 ") < commands - 1:
                text += await raw.read_until(b"\n")
        assert house.failures == []

    run_loop(go(), loop)


def test_both_say_goodbye(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door) as (_, address), Raw.connected(address) as raw:
            raw.writer.write(raw.hello())
            raw.writer.write(await raw.finish())
            await raw.read_until(b"220 ")
            raw.writer.write(raw.encrypted(b"QUIT\r\n"))
            assert b"221 " in await raw.read_until(b"\n")
            raw.incoming.write(await raw.reader.read())
            with pytest.raises(ssl.SSLZeroReturnError):  # close_notify, not the mere end of the connection
                raw.tls.unwrap()
                raw.tls.read(1)
        assert house.log.named("session_closed")[0]["reason"] == ""

    run_loop(go(), loop)


def test_client_says_goodbye_first(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door) as (_, address), Raw.connected(address) as raw:
            raw.writer.write(raw.hello())
            raw.writer.write(await raw.finish())
            await raw.read_until(b"220 ")
            with pytest.raises(ssl.SSLWantReadError):
                raw.tls.unwrap()
            raw.writer.write(raw.outgoing.read())
            await raw.reader.read()
        assert house.log.named("session_closed")[0]["reason"] == "connection lost"

    run_loop(go(), loop)


def test_client_that_has_said_goodbye_is_still_answered(loop: str, tmp_path: Path) -> None:
    """As with a half-closed connection in clear: the message was sent, its reply is on its way."""

    async def go() -> None:
        house = House(tmp_path, implicit=True)
        house.sink.holds = True
        async with listening(house.door) as (_, address), Raw.connected(address) as raw:
            raw.writer.write(raw.hello())
            raw.writer.write(await raw.finish())
            await raw.read_until(b"220 ")
            raw.writer.write(raw.encrypted(b"EHLO c.example\r\n"))
            await raw.read_until(b"\r\n250 ")
            raw.writer.write(raw.encrypted(b"MAIL FROM:<>\r\nRCPT TO:<b@local.example>\r\nDATA\r\nx\r\n.\r\n"))
            with pytest.raises(ssl.SSLWantReadError):
                raw.tls.unwrap()
            raw.writer.write(raw.outgoing.read())
            await until(lambda: house.sink._waiting)
            await asyncio.sleep(0.02)
            house.sink.release()
            encrypted = await raw.reader.read()
            raw.incoming.write(encrypted)
            text = b""
            with pytest.raises(ssl.SSLZeroReturnError):
                while True:
                    text += raw.tls.read(65536) or b""
            assert b"250 2.0.0 Ok: queued as " in text

    run_loop(go(), loop)


def test_connection_that_ends_without_goodbye(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door) as (listener, address), Raw.connected(address) as raw:
            raw.writer.write(raw.hello())
            raw.writer.write(await raw.finish())
            await raw.read_until(b"220 ")
            raw.writer.write_eof()
            await until(lambda: not listener.connections)
        assert house.failures == []

    run_loop(go(), loop)


def test_broken_record_ends_the_session(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door) as (_, address), Raw.connected(address) as raw:
            raw.writer.write(raw.hello())
            raw.writer.write(await raw.finish())
            await raw.read_until(b"220 ")
            record = bytearray(raw.encrypted(b"NOOP\r\n"))
            record[-1] ^= 1
            raw.writer.write(record)
            await until(lambda: house.log.named("session_closed"))
        assert "TLS: decryption failed or bad record mac" in str(house.log.named("session_closed")[0]["reason"])

    run_loop(go(), loop)


def test_last_reply_reaches_a_client_that_goes_on_sending(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True, options={"bad_commands": 2})
        async with listening(house.door) as (_, address):
            guest = await Encrypted.implicit(address)
            await guest.reply()
            guest.send(*["NONSENSE"] * 3)
            replies = [await guest.reply() for _ in range(4)]
            guest.send(*["NONSENSE"] * 1000)
            assert replies[-1].startswith("421 ")
            assert await guest.is_closed()
            await guest.close()

    run_loop(go(), loop)


def test_greeting_delay_begins_with_tls(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True, greeting_delay=0.1)
        async with listening(house.door) as (listener, address), Raw.connected(address) as raw:
            raw.writer.write(raw.hello())
            raw.writer.write(await raw.finish() + raw.encrypted(b"EHLO client.example\r\n"))
            assert (await raw.read_until(b"250-")).startswith(b"220 ")
            (connection,) = listener.connections
            assert connection._dialogue.receiver.session.talked_early  # type: ignore[union-attr]

    run_loop(go(), loop)


def test_greeting_waits_for_tls_whatever_the_buffers_say(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door) as (listener, address), Raw.connected(address) as raw:
            await until(lambda: listener.connections)
            (connection,) = listener.connections
            assert isinstance(connection, Connection)
            connection.pause_writing()
            connection.resume_writing()
            raw.writer.write(raw.hello())
            raw.writer.write(await raw.finish())
            assert (await raw.read_until(b"\n")).startswith(b"220 ")

    run_loop(go(), loop)


def test_drain_ends_encrypted_sessions_at_their_next_command(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door) as (listener, address):
            guest = await Encrypted.implicit(address)
            await guest.greet()
            listener.drain()
            assert (await guest.ask("NOOP")).startswith("421 ")
            assert await guest.is_closed()
            await guest.close()

    run_loop(go(), loop)


# Handshakes that fail


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("fault", ["garbage", "half a ClientHello", "silence", "hang up"])
def test_failing_handshake_ends_its_connection_alone(loop: str, tmp_path: Path, implicit: bool, fault: str) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=implicit, timeouts=SHORT)
        async with listening(house.door) as (listener, address):
            if implicit:
                beside: Encrypted = await Encrypted.implicit(address)
                await beside.greet()
            else:
                beside = Encrypted(*await asyncio.open_connection(*address))
                await beside.greet()
                await beside.ask("EHLO client.example")
                await beside.start_tls()
                await beside.ask("EHLO client.example")
            async with Raw.connected(address) as raw:
                if not implicit:
                    raw.writer.write(b"EHLO client.example\r\n")
                    await raw.reader.readuntil(b"\r\n250 ")
                    await raw.reader.readuntil(b"\r\n")
                    raw.writer.write(b"STARTTLS\r\n")
                    await raw.reader.readuntil(b"\r\n")
                if fault == "garbage":
                    raw.writer.write(GARBAGE)
                elif fault == "half a ClientHello":
                    raw.writer.write(raw.hello()[:200])
                elif fault == "hang up":
                    raw.writer.write_eof()
                await send_message(beside)
                await until(lambda: len(listener.connections) == 1)
                assert await raw.reader.read() in (b"", b"\x15\x03\x01\x00\x02\x02\x46")
            await send_message(beside)
            await beside.close()
        (reason,) = house.failures
        assert (
            reason
            == {
                "garbage": "wrong version number",
                "half a ClientHello": "the client took too long",
                "silence": "the client took too long",
                "hang up": "the client closed the connection",
            }[fault]
        )
        metrics = house.door.service.metrics
        assert (metrics.tls_handshakes, metrics.tls_handshakes_failed) == (1, 1)
        assert house.log.named("session_failed") == []

    run_loop(go(), loop)


def test_reset_in_a_handshake(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door) as (listener, address):
            async with Raw.connected(address) as raw:
                await until(lambda: listener.connections)
                raw.writer.write(raw.hello())
                await raw.reader.read(10)
            await until(lambda: not listener.connections)
        assert len(house.failures) == 1

    run_loop(go(), loop)


def test_slow_client_that_sends_more_while_it_waits(loop: str, tmp_path: Path) -> None:
    """A handshake in pieces, each before it is its turn; and one that never was one."""

    async def go() -> None:
        house = House(tmp_path, implicit=True, timeouts=SHORT)
        async with listening(house.door) as (listener, address):
            async with Raw.connected(address) as raw:
                hello = raw.hello()
                for octet in range(0, len(hello), 50):
                    raw.writer.write(hello[octet : octet + 50])
                    await asyncio.sleep(0)
                raw.writer.write(await raw.finish())
                assert (await raw.read_until(b"\n")).startswith(b"220 ")
            async with Raw.connected(address) as raw:
                raw.writer.write(GARBAGE * 10_000)
                await until(lambda: house.failures)
            await until(lambda: not listener.connections)

    run_loop(go(), loop)


def test_three_hundred_at_once(loop: str, tmp_path: Path) -> None:
    """A third of them silent, a third with half a ClientHello, a third with garbage: a session beside goes on."""

    async def go() -> None:
        house = House(tmp_path, implicit=True, timeouts=Timeouts(tls_handshake=1.0))
        async with listening(house.door) as (listener, address), AsyncExitStack() as stack:
            beside = await Encrypted.implicit(address)
            await beside.greet()
            for number in range(300):
                raw = await stack.enter_async_context(Raw.connected(address))
                raw.writer.write((b"", raw.hello()[:100], GARBAGE)[number % 3])
            for _ in range(20):
                await send_message(beside)
            another = await Encrypted.implicit(address)
            await another.greet()
            await send_message(another)
            await until(lambda: len(listener.connections) == 2)
            await beside.close()
            await another.close()
        assert len(house.failures) == 300

    run_loop(go(), loop)


def test_three_hundred_good_ones_at_once(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door) as (_, address):
            beside = await Encrypted.implicit(address)
            await beside.greet()

            async def visit() -> None:
                async with Raw.connected(address) as raw:
                    raw.writer.write(raw.hello())
                    raw.writer.write(await raw.finish())
                    await raw.read_until(b"220 ")

            visits = [asyncio.ensure_future(visit()) for _ in range(300)]
            served_meanwhile = 0
            while not all(visit.done() for visit in visits):
                assert (await beside.ask("NOOP")).startswith("250 ")
                served_meanwhile += 1
            await asyncio.gather(*visits)
            await beside.close()
        assert served_meanwhile > 20
        assert house.failures == []

    run_loop(go(), loop)


@pytest.mark.parametrize("end", ["drain", "abort", "kill"])
def test_end_of_the_daemon_in_a_handshake(loop: str, tmp_path: Path, end: str) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True, timeouts=SHORT)
        async with listening(house.door) as (listener, address), Raw.connected(address) as raw:
            await until(lambda: listener.connections)
            raw.writer.write(raw.hello())
            await raw.reader.read(10)
            {"drain": listener.drain, "abort": listener.abort, "kill": listener.kill}[end]()
            try:
                await raw.reader.read()
            except ConnectionResetError:
                pass
            await until(lambda: not listener.connections)

    run_loop(go(), loop)


# Versions, names and certificates


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(loop: str, tmp_path: Path, version: ssl.TLSVersion) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        context = client_context()
        context.minimum_version = context.maximum_version = version
        async with listening(house.door) as (_, address):
            guest = Encrypted(*await asyncio.open_connection(*address, ssl=context, server_hostname="mx.example.com"))
            await guest.greet()
            await send_message(guest)
            await guest.close()
        (accepted,) = house.log.named("message_accepted")
        assert str(accepted["tls"]).startswith(version.name.replace("_", "."))

    run_loop(go(), loop)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_version_is_refused(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        context = client_context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        async with listening(house.door) as (_, address):
            with pytest.raises(ssl.SSLError, match="protocol version"):
                await asyncio.open_connection(*address, ssl=context, server_hostname="mx.example.com")
            await until(lambda: house.failures)
        assert house.failures == ["unsupported protocol"]

    run_loop(go(), loop)


def test_client_certificate_is_asked_for(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True, clients="ask")
        pair = issue(tmp_path, "printer@example.com", stem="printer", common_name="printer")
        async with listening(house.door) as (_, address):
            for shown in (None, pair):
                guest = await Encrypted.implicit(address, shown)
                await guest.greet()
                await send_message(guest)
                await guest.close()
        without, with_one = house.log.named("message_accepted")
        assert "client_certificate" not in without
        assert str(with_one["client_certificate"]).startswith("CN=printer,OU=")

    run_loop(go(), loop)


@pytest.mark.parametrize("shown", ["no certificate", "a stranger's"])
def test_client_certificate_is_required(loop: str, tmp_path: Path, shown: str) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True, clients="require")
        stranger = issue(tmp_path, "x@example.com", stem="stranger", by=trustme.CA())
        async with listening(house.door) as (_, address):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                guest = await Encrypted.implicit(address, None if shown == "no certificate" else stranger)
                if not await guest.reply():  # in TLS 1.3 the client is done before the server has looked
                    raise ConnectionError
            await until(lambda: house.failures)
        assert house.failures in (
            ["peer did not return a certificate"],
            ["certificate of the client: unable to get local issuer certificate"],
            ["certificate of the client: self-signed certificate in certificate chain"],
        )

    run_loop(go(), loop)


def test_renewed_certificate_is_shown_to_new_clients(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)

        def shown(guest: Encrypted) -> object:
            return guest.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]

        async with listening(house.door) as (_, address):
            before = await Encrypted.implicit(address)
            await before.greet()
            issue(tmp_path)
            for _ in range(2):
                house.certificates.look()
            after = await Encrypted.implicit(address)
            await after.greet()
            assert shown(before) != shown(after)
            for guest in (before, after):
                await send_message(guest)
                await guest.close()
        assert house.log.named("certificates_reread")

    run_loop(go(), loop)


def test_proxy_header_comes_before_tls(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        networks = (ip_network("127.0.0.0/8"),)
        house = House(tmp_path, implicit=True, trusted_proxies=networks)
        async with listening(house.door) as (_, address), Raw.connected(address) as raw:
            raw.writer.write(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 465\r\n" + raw.hello())
            raw.writer.write(await raw.finish())
            assert (await raw.read_until(b"\n")).startswith(b"220 ")
        assert house.log.named("session_closed")[0]["peer"] == "192.0.2.7:4711"

    run_loop(go(), loop)
