"""Connections that begin with a PROXY header, over real sockets: who is greeted, as whom, and who is not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from authority import client_context, issue
from headers import header_v2, tlv
from house import Facts, Guest, MemorySink, listening, make_door, run_loop, until

from smtpmaild.envelope import Peer, Session
from smtpmaild.policy import Answer, Policy
from smtpmaild.policy.early_talker import EarlyTalker
from smtpmaild.server.connection import Connection
from smtpmaild.server.counts import Counts
from smtpmaild.server.listener import ConnectionLimits, Listener, Room, Timeouts, TlsOffer
from smtpmaild.server.preface import Preface
from smtpmaild.smtp.extension import EXTENSIONS, XCLIENT, Dialect
from smtpmaild.tls.certificates import Certificates
from smtpmaild.tls.settings import TlsSettings

pytestmark = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

V1 = b"PROXY TCP4 198.51.100.7 192.0.2.25 4711 25\r\n"
V2 = header_v2(
    0x21, 0x21, ip_address("2001:db8::7").packed + ip_address("::1").packed + struct.pack("!HH", 4712, 25),
    tlv(0x02, b"mx.example"),
)  # fmt: skip
LOCAL = header_v2(0x20, 0x00)
LOOPBACK = (ip_network("127.0.0.0/8"),)


class Seen(Policy):
    """Remembers who was there when the banner was due."""

    name = "seen"

    def __init__(self) -> None:
        self.sessions: list[Session] = []

    def connect(self, session: Session) -> Answer:
        self.sessions.append(session)
        return None


class House:
    """A door behind a proxy, its store and its log."""

    def __init__(self, **door: Any) -> None:
        self.sink = MemorySink()
        self.log = Facts()
        self.seen = Seen()
        door.setdefault("trusted_proxies", LOOPBACK)
        policies = (self.seen, *door.pop("policies", ()))
        self.door = make_door(self.sink, self.log, policies=policies, **door)

    @asynccontextmanager
    async def guest(self, header: bytes, **listening_options: Any) -> AsyncIterator[tuple[Listener, Guest]]:
        async with listening(self.door, **listening_options) as (listener, address), Guest.connected(address) as guest:
            guest.writer.write(header)
            yield listener, guest

    @property
    def causes(self) -> list[object]:
        return [facts["cause"] for facts in self.log.named("proxy_refused")]


@pytest.mark.parametrize(
    ("header", "client"),
    [(V1, Peer("198.51.100.7", 4711)), (V2, Peer("2001:db8::7", 4712)), (header_v2(0x21, 0x31, bytes(216)), Peer(""))],
    ids=["v1", "v2", "unix"],
)  # fmt: skip
def test_client_is_who_the_proxy_says(loop: str, header: bytes, client: Peer) -> None:
    async def go() -> None:
        house = House()
        async with house.guest(header) as (_, guest):
            await guest.greet()
            await guest.begin_message()
            assert (await guest.ask("x\r\n."))[:3] == "250"
            proxy = guest.writer.get_extra_info("sockname")
            assert (await guest.ask("QUIT"))[:3] == "221"
        (session,) = house.seen.sessions
        assert session.peer == client
        assert session.proxy == Peer(*proxy)
        (closed,) = house.log.named("session_closed")
        assert (closed["peer"], closed["proxy"]) == (str(client), str(Peer(*proxy)))
        assert closed.get("proxied") == ({"authority": "mx.example"} if header is V2 else None)
        (message,) = house.sink.messages
        assert (f"{client.host}])".encode() in message) == bool(client.host)

    run_loop(go(), loop)


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("behind", [b"", b"NOOP\r\nQUIT\r\n"], ids=["alone", "input behind"])
def test_header_may_come_in_pieces(loop: str, header: bytes, behind: bytes) -> None:
    async def go() -> None:
        house = House()
        async with house.guest(b"") as (_, guest):
            for octet in header + behind:
                guest.writer.write(bytes([octet]))
                await asyncio.sleep(0)
            assert (await guest.reply())[:3] == "220"
            if behind:
                assert [(await guest.reply())[:3] for _ in range(2)] == ["250", "221"]
        assert house.causes == []

    run_loop(go(), loop)


def test_what_stands_behind_the_header_is_the_client_s(loop: str) -> None:
    async def go() -> None:
        house = House(greeting_delay=0.05, policies=[EarlyTalker()])
        async with house.guest(V2 + b"EHLO x\r\n") as (_, guest):
            assert (await guest.reply())[:3] == "554"
        assert house.seen.sessions[0].talked_early

    run_loop(go(), loop)


def test_header_itself_is_no_early_talk(loop: str) -> None:
    async def go() -> None:
        house = House(greeting_delay=0.05, policies=[EarlyTalker()])
        async with house.guest(V1) as (_, guest):
            await guest.greet()

    run_loop(go(), loop)


def test_stranger_is_not_listened_to(loop: str) -> None:
    async def go() -> None:
        house = House(trusted_proxies=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
        async with house.guest(V1) as (listener, guest):
            assert await at_end(guest) == b""
            await until(lambda: not listener.connections)
        assert house.causes == ["it is not one of trusted_proxies"]
        assert house.door.service.metrics.proxies_refused == 1
        assert house.seen.sessions == []

    run_loop(go(), loop)


class Gone:
    """The transport of a connection that was reset: it does not know its peer any more."""

    def __init__(self) -> None:
        self.is_aborted = False
        self.protocol: asyncio.BaseProtocol | None = None

    def get_extra_info(self, name: str) -> object:
        return SimpleNamespace(family=socket.AF_INET) if name == "socket" else None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


def test_whoever_is_gone_is_no_unix_socket(loop: str) -> None:
    """What was sent before a reset could still be read, and would be believed, or taken without a trace of its peer."""

    async def go() -> None:
        house = House()
        async with listening(house.door) as (listener, _):
            gone, preface = Gone(), Preface(listener)
            preface.connection_made(gone)  # type: ignore[arg-type]
            assert gone.is_aborted
            preface.expire(0.0)
            preface.connection_lost(None)
            gone = Gone()
            Connection(listener).connection_made(gone)  # type: ignore[arg-type]
            assert gone.is_aborted
            assert isinstance(gone.protocol, asyncio.Protocol)
            assert not listener.connections
        assert house.log.all == []

    run_loop(go(), loop)


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (b"EHLO client.example\r\n", "there is no PROXY header"),
        (V1[:-2] + b"\n", "a header of version 1 that ends in LF alone"),
        (header_v2(0x21, 0x12, bytes(12)), "family and transport are 0x12"),
    ],
    ids=["missing", "v1", "v2"],
)
def test_malformed_header_gets_no_banner(loop: str, sent: bytes, cause: str) -> None:
    async def go() -> None:
        house = House()
        async with house.guest(sent) as (listener, guest):
            assert await at_end(guest) == b""
            await until(lambda: not listener.connections)
            assert (listener.room.taken, listener.counts.enter(None).total) == (0, 1)
        assert house.causes == [cause]
        assert house.seen.sessions == []

    run_loop(go(), loop)


@pytest.mark.parametrize(
    ("sent", "cause"),
    [(b"", "no PROXY header came"), (V1[:20], "the PROXY header was not complete in time")],
    ids=["silent", "slow"],
)
def test_slow_header_gets_no_banner(loop: str, sent: bytes, cause: str) -> None:
    async def go() -> None:
        house = House(timeouts=Timeouts(proxy_header=0.05))
        async with house.guest(sent) as (_, guest):
            assert await at_end(guest) == b""
        assert house.causes == [cause]

    run_loop(go(), loop)


@pytest.mark.parametrize(("sent", "causes"), [(b"", []), (V1[:20], ["the connection ended within the PROXY header"])])
def test_proxy_that_goes_again(loop: str, sent: bytes, causes: list[str]) -> None:
    """A plain TCP check of the proxy says nothing at all; that is no news."""

    async def go() -> None:
        house = House()
        async with house.guest(sent) as (listener, guest):
            await until(lambda: listener.connections)
            guest.writer.write_eof()
            assert await at_end(guest) == b""
            await until(lambda: not listener.connections)
        assert (
            house.log.all == [("proxy_refused", house.log.named("proxy_refused")[0])] if causes else not house.log.all
        )
        assert house.causes == causes

    run_loop(go(), loop)


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"], ids=["v2", "v1"])
@pytest.mark.parametrize("lines", [(), ("QUIT",), ("HELO x", "QUIT")], ids=len)
def test_health_check_is_quiet(loop: str, header: bytes, lines: tuple[str, ...]) -> None:
    async def go() -> None:
        house = House()
        async with house.guest(header) as (listener, guest):
            assert (await guest.reply())[:3] == "220"
            for line in lines:
                await guest.ask(line)
            guest.writer.write_eof()
            await until(lambda: not listener.connections)
        assert house.log.all == []
        assert house.seen.sessions[0].peer == house.seen.sessions[0].proxy
        assert house.seen.sessions[0].peer.host == "127.0.0.1"

    run_loop(go(), loop)


def test_health_check_of_version_1_names_its_own_connection(loop: str) -> None:
    """HAProxy's send-proxy says who it is itself."""

    async def go() -> None:
        house = House()
        async with house.guest(b"") as (listener, guest):
            host, port = guest.writer.get_extra_info("sockname")
            guest.writer.write(f"PROXY TCP4 {host} {host} {port} 25\r\n".encode())
            await guest.greet()
            await guest.ask("QUIT")
            await until(lambda: not listener.connections)
        assert house.log.all == []
        assert house.seen.sessions[0].is_probe

    run_loop(go(), loop)


def test_limits_count_the_client_and_not_the_proxy(loop: str) -> None:
    async def go() -> None:
        house = House(limits=ConnectionLimits(per_address=1))
        other = V1.replace(b".7 ", b".8 ")
        async with listening(house.door) as (listener, address), AsyncExitStack() as stack:
            replies = []
            for header in (V1, other, V1):
                guest = await stack.enter_async_context(Guest.connected(address))
                guest.writer.write(header)
                replies.append((await guest.reply())[:3])
            assert replies == ["220", "220", "421"]
            listener.kill()
            await until(lambda: not listener.connections)
            assert listener.counts.enter(ip_address("198.51.100.7")).address == 1

    run_loop(go(), loop)


def test_connections_without_a_header_count_as_well(loop: str) -> None:
    async def go() -> None:
        house = House(limits=ConnectionLimits(total=1))
        async with listening(house.door, counts=Counts(1)) as (listener, address):
            async with Guest.connected(address) as one, Guest.connected(address) as two:
                await until(lambda: house.causes)
                assert house.causes == ["there are too many connections"]
                assert await at_end(two) == b""
                one.writer.write(V1)
                assert (await one.reply())[:3] == "220"
            await until(lambda: not listener.connections)

    run_loop(go(), loop)


def test_session_that_begins_while_draining_ends_at_its_first_command(loop: str) -> None:
    async def go() -> None:
        house = House()
        async with house.guest(V1[:20]) as (listener, guest):
            await until(lambda: listener.connections)
            listener.drain()
            guest.writer.write(V1[20:])
            assert (await guest.reply())[:3] == "220"
            assert (await guest.ask("NOOP"))[:3] == "421"

    run_loop(go(), loop)


def test_end_of_the_daemon_ends_who_has_not_said_anything(loop: str) -> None:
    async def go() -> None:
        house = House()
        async with house.guest(V1[:20], room=Room(5)) as (listener, guest):
            await until(lambda: listener.connections)
            listener.abort()
            assert await at_end(guest) == b""
        assert house.causes == []

    run_loop(go(), loop)


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_handshake_behind_the_header_is_the_client_s(loop: str, header: bytes, tmp_path: Path) -> None:
    """Where TLS comes first the client does not wait: its first bytes travel in one segment with the header."""

    def talk(address: tuple[str, int]) -> tuple[bytes, bytes]:
        with socket.create_connection(address, 5) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # for 200 ms
            plain.sendall(header)
            with client_context().wrap_socket(plain, server_hostname="mx.example.com") as client:
                banner = client.recv(1000)
                client.sendall(b"QUIT\r\n")
                return banner, client.recv(1000)

    async def go() -> None:
        house = House()
        certificates = Certificates(TlsSettings((issue(tmp_path).files,)), ["none"], house.log)
        house.door = replace(house.door, tls=TlsOffer(certificates, is_implicit=True))
        async with listening(house.door) as (_, address):
            banner, bye = await asyncio.to_thread(talk, address)
        assert (banner[:4], bye[:4]) == (b"220 ", b"221 ")
        (closed,) = house.log.named("session_closed")
        assert closed["peer"] in ("198.51.100.7:4711", "[2001:db8::7]:4712")
        assert str(closed["tls"]).startswith("TLSv1.3 ")

    run_loop(go(), loop)


def test_client_named_by_xclient_is_counted_instead(loop: str) -> None:
    async def go() -> None:
        house = House(limits=ConnectionLimits(per_address=1), xclient_networks=(ip_network("198.51.100.0/24"),))
        dialect = Dialect(house.door.service.dialect.options, (*EXTENSIONS, XCLIENT))
        offering = {frozenset(["XCLIENT"]): replace(house.door.service, dialect=dialect)}
        house.door = replace(house.door, offering=offering)
        async with listening(house.door) as (listener, address), AsyncExitStack() as stack:
            one = await stack.enter_async_context(Guest.connected(address))
            one.writer.write(V1)
            await one.greet()
            assert (await one.ask("XCLIENT ADDR=203.0.113.5 PORT=9"))[:3] == "220"
            two = await stack.enter_async_context(Guest.connected(address))
            two.writer.write(V1)  # the address is free again
            await two.greet()
            assert (await two.ask("XCLIENT ADDR=203.0.113.5"))[:3] == "421"
            assert await two.is_closed()
            assert (await one.ask("NOOP"))[:3] == "250"
            await one.ask("QUIT")
            await until(lambda: not listener.connections)
            for client in ("198.51.100.7", "203.0.113.5"):
                assert listener.counts.enter(ip_address(client)).address == 1
        named = house.log.named("client_named")[0]
        # Who is at the other end of the connection stays, though two have spoken for somebody else.
        assert (named["peer"], str(named["proxy"])[:10]) == ("203.0.113.5:9", "127.0.0.1:")

    run_loop(go(), loop)


async def at_end(guest: Guest) -> bytes:
    """What came before the end of the connection; a reset is an end as well."""
    try:
        return await guest.reader.read()
    except ConnectionError:
        return b""
