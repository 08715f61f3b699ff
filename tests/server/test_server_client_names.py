"""Names of clients: only those that lead back to the address, remembered as the DNS says, bounded in every way."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from ipaddress import ip_address

import dns.asyncresolver
import dns.resolver
import pytest
from house import Facts, Guest, MemorySink, listening, make_door, run_loop, until
from nameserver import BROKEN, SILENT, NameServer, name_server

from smtpmaild.envelope import Session
from smtpmaild.policy import Answer, Policy
from smtpmaild.policy.early_talker import EarlyTalker
from smtpmaild.server import client_names
from smtpmaild.server.client_names import ClientNames

pytestmark = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

V4, V6 = ip_address("192.0.2.7"), ip_address("2001:db8::7")
PTR4, PTR6 = f"{V4.reverse_pointer} PTR", f"{V6.reverse_pointer} PTR"
LONG = ".".join(["x" * 49] * 5) + ".example"

FOUND: Mapping[str, tuple[Mapping[str, list[str] | str], str]] = {
    "both ways": ({PTR4: ["Client.Example."], "Client.Example A": ["192.0.2.1", "192.0.2.7"]}, "client.example"),
    "no pointer": ({}, ""),
    "pointer of another kind": ({f"{V4.reverse_pointer} TXT": ['"x"']}, ""),
    "leads elsewhere": ({PTR4: ["client.example."], "client.example A": ["192.0.2.8"]}, ""),
    "leads nowhere": ({PTR4: ["client.example."]}, ""),
    "has no address of this kind": ({PTR4: ["client.example."], "client.example AAAA": ["2001:db8::7"]}, ""),
    "the second leads back": (
        {PTR4: ["a.example.", "b.example.", "c.example."], "a.example A": ["192.0.2.8"], "c.example A": ["192.0.2.7"]},
        "c.example",
    ),
    "no host name": ({PTR4: ["a\\032b.example."], "a\\032b.example A": ["192.0.2.7"]}, ""),
    "a word": ({PTR4: ["localhost."], "localhost A": ["192.0.2.7"]}, ""),
    "too long": ({PTR4: [f"{LONG}."], f"{LONG} A": ["192.0.2.7"]}, ""),
    "servfail": ({PTR4: BROKEN}, ""),
    "silence": ({PTR4: SILENT}, ""),
    "silence on the way back": ({PTR4: ["client.example."], "client.example A": SILENT}, ""),
}  # fmt: skip


def names_of(server: NameServer, timeout: float = 0.3) -> ClientNames:
    return ClientNames([server.address], timeout)


async def find(names: ClientNames, ip: object = V4) -> str:
    assert isinstance(ip, type(V4) | type(V6))
    found = names.find(ip)
    return found if isinstance(found, str) else await found


@pytest.mark.parametrize("case", FOUND)
def test_name_leads_to_the_address(loop: str, case: str) -> None:
    records, name = FOUND[case]

    async def go() -> None:
        async with name_server(records) as server:
            assert await find(names_of(server)) == name

    run_loop(go(), loop)


def test_name_of_an_ipv6_address(loop: str) -> None:
    async def go() -> None:
        async with name_server({PTR6: ["client.example."], "client.example AAAA": ["2001:db8::7"]}) as server:
            assert await find(names_of(server), V6) == "client.example"

    run_loop(go(), loop)


def test_never_more_than_a_few_names_are_tried(loop: str) -> None:
    async def go() -> None:
        async with name_server({PTR4: [f"n{number}.example." for number in range(20)]}) as server:
            assert await find(names_of(server)) == ""
            assert len(server.asked) == 1 + 5

    run_loop(go(), loop)


def test_look_up_takes_no_longer_than_it_may(loop: str) -> None:
    """However many queries it needs."""
    names = [f"n{number}.example." for number in range(4)]

    async def go() -> None:
        async with name_server({PTR4: names, **{f"{name[:-1]} A": SILENT for name in names}}) as server:
            clock = asyncio.get_running_loop().time
            start = clock()
            assert await find(names_of(server, 0.1)) == ""
            assert clock() - start < 0.3

    run_loop(go(), loop)


def test_what_is_known_is_not_asked_again(loop: str) -> None:
    async def go() -> None:
        async with name_server({PTR4: ["client.example."], "client.example A": ["192.0.2.7"]}) as server:
            names = names_of(server)
            assert await find(names) == "client.example"
            assert names.find(V4) == "client.example"
            assert await find(names, V6) == ""
            assert names.find(V6) == ""
            assert len(server.asked) == 3

    run_loop(go(), loop)


@pytest.mark.parametrize(
    ("records", "ttl", "seconds"),
    [
        ({PTR4: ["client.example."], "client.example A": ["192.0.2.7"]}, 1, 60),
        ({PTR4: ["client.example."], "client.example A": ["192.0.2.7"]}, 700, 700),
        ({PTR4: ["client.example."], "client.example A": ["192.0.2.7"]}, 86400, 3600),
        ({}, 600, 300),
        ({PTR4: BROKEN}, 600, 30),
    ],
)
def test_what_is_known_is_forgotten_in_time(
    loop: str, records: Mapping[str, list[str] | str], ttl: int, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        async with name_server(records, ttl) as server:
            names = names_of(server)
            await find(names)
            _, until = names._known[V4]
            assert until - asyncio.get_running_loop().time() == pytest.approx(seconds, abs=1)
            names._known[V4] = ("old", asyncio.get_running_loop().time())
            assert await find(names) != "old"

    run_loop(go(), loop)


def test_cache_is_bounded(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_names, "_MOST_KNOWN", 3)

    async def go() -> None:
        async with name_server({}) as server:
            names = names_of(server)
            for number in range(5):
                await find(names, V4 + number)
            assert [*names._known] == [V4 + 2, V4 + 3, V4 + 4]

    run_loop(go(), loop)


def test_sessions_share_a_look_up_and_none_ends_it(loop: str) -> None:
    async def go() -> None:
        records: dict[str, list[str] | str] = {PTR4: ["client.example."], "client.example A": ["192.0.2.7"]}
        async with name_server(records, delay=0.02) as server:
            names = names_of(server)
            futures = [names.find(V4) for _ in range(3)]
            assert isinstance(futures[0], asyncio.Future)
            futures[0].cancel()
            assert not isinstance(futures[2], str)
            assert await futures[2] == "client.example"
            assert server.asked == [PTR4, "client.example A"]

    run_loop(go(), loop)


def test_flood_of_new_clients_is_bounded(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_names, "_MOST_PENDING", 2)

    async def go() -> None:
        async with name_server({PTR4: SILENT, f"{(V4 + 1).reverse_pointer} PTR": SILENT}) as server:
            names = names_of(server, 0.1)
            waiting = [names.find(V4), names.find(V4 + 1)]
            assert names.find(V4 + 2) == ""
            assert names.find(V4) != ""  # who is looked up already may wait with the others
            assert [not isinstance(one, str) and await one for one in waiting] == ["", ""]
            assert not names._pending
            assert await find(names, V4 + 2) == ""
            assert (V4 + 2) in names._known

    run_loop(go(), loop)


def test_without_servers_the_machine_says_whom_to_ask(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_configuration(self: object, *_: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    names = ClientNames([], 3.0)
    assert names._resolver.nameservers == dns.asyncresolver.Resolver().nameservers
    monkeypatch.setattr(dns.asyncresolver.Resolver, "read_resolv_conf", no_configuration)
    (server,) = ClientNames([], 3.0)._resolver.nameservers
    assert (server.address, server.port) == ("127.0.0.1", 53)  # type: ignore[union-attr]


# In a session


class Seen(Policy):
    """Remembers the client's name when the banner is due."""

    name = "seen"

    def __init__(self) -> None:
        self.names: list[str] = []

    def connect(self, session: Session) -> Answer:
        self.names.append(session.client_name)
        return None


LOOPBACK: Mapping[str, list[str] | str] = {
    "1.0.0.127.in-addr.arpa PTR": ["client.example."], "client.example A": ["127.0.0.1"],
}  # fmt: skip


def test_banner_waits_for_the_name(loop: str) -> None:
    async def go() -> None:
        sink, log, seen = MemorySink(), Facts(), Seen()
        async with name_server(LOOPBACK, delay=0.02) as server:
            door = make_door(sink, log, policies=[seen], client_names=names_of(server, 2).find)
            async with listening(door) as (_, address), Guest.connected(address) as guest:
                await guest.greet()
                await guest.begin_message()
                assert (await guest.ask("x\r\n."))[:3] == "250"
                await guest.ask("QUIT")
        assert seen.names == ["client.example"]
        assert b"from client.example (client.example [127.0.0.1])\r\n" in sink.messages[0]
        for event in ("message_accepted", "session_closed"):
            assert log.named(event)[0]["client_name"] == "client.example"

    run_loop(go(), loop)


def test_nobody_else_waits(loop: str) -> None:
    async def go() -> None:
        records = {**LOOPBACK, "2.0.0.127.in-addr.arpa PTR": SILENT}
        async with name_server(records) as server:
            door = make_door(MemorySink(), Facts(), client_names=names_of(server, 0.5).find)
            async with (
                listening(door) as (listener, address),
                Guest.connected(address, "127.0.0.2") as slow,
                Guest.connected(address) as quick,
            ):
                await until(lambda: len(listener.connections) == 2)
                await quick.greet()
                assert not slow.reader.at_eof()
                assert (await slow.reply())[:3] == "220"

    run_loop(go(), loop)


def test_client_that_goes_while_it_is_looked_up(loop: str) -> None:
    async def go() -> None:
        seen = Seen()
        async with name_server(LOOPBACK, delay=0.03) as server:
            names = names_of(server, 2)
            door = make_door(MemorySink(), Facts(), policies=[seen], client_names=names.find)
            async with listening(door) as (listener, address), Guest.connected(address) as guest:
                await until(lambda: names._pending)
                reset = struct.pack("ii", 1, 0)  # not an orderly end, after which it might still read
                guest.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                guest.writer.transport.abort()
                await until(lambda: not listener.connections)
                await until(lambda: not names._pending)
        assert seen.names == []

    run_loop(go(), loop)


def test_greeting_delay_and_look_up_go_together(loop: str) -> None:
    async def go() -> None:
        async with name_server(LOOPBACK, delay=0.04) as server:
            names, seen = names_of(server, 2), Seen()
            door = make_door(
                MemorySink(), Facts(), policies=[EarlyTalker(), seen], client_names=names.find, greeting_delay=0.2
            )
            async with listening(door) as (_, address), Guest.connected(address) as guest:
                await until(lambda: names._known)
                await guest.greet()
                assert seen.names == ["client.example"]

    run_loop(go(), loop)
