"""One door: whom it serves how, where it listens, and how it closes."""

from __future__ import annotations

import asyncio
import resource
import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from house import Facts, Guest, MemorySink, listening, make_door, run_loop, until

from smtpmaild.envelope import Peer
from smtpmaild.server.counts import Counts
from smtpmaild.server.listener import Door, Listener, Room

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


def door(**options: Any) -> Door:
    return make_door(MemorySink(), Facts(), **options)


def test_trusted_networks_get_the_other_service() -> None:
    plain, trusted = door().service, door(name="trusted").service
    network = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    one = Door(plain, xforward_networks=network, offering={frozenset(["XFORWARD"]): trusted})
    assert one.name == "mx"
    assert one.service_for(Peer("192.0.2.7")) is trusted
    assert one.service_for(Peer("2001:db8::7")) is trusted
    assert one.service_for(Peer("198.51.100.7")) is plain
    assert one.service_for(Peer("")) is plain
    assert Door(plain).service_for(Peer("192.0.2.7")) is plain


def test_each_command_of_proxies_has_its_networks() -> None:
    plain, *others = (door(name=name).service for name in ("mx", "forward", "client", "both"))
    one = Door(
        plain,
        xforward_networks=(ip_network("192.0.2.0/24"),),
        xclient_networks=(ip_network("192.0.2.128/25"), ip_network("2001:db8::/32")),
        offering=dict(zip(map(frozenset, (["XFORWARD"], ["XCLIENT"], ["XFORWARD", "XCLIENT"])), others, strict=True)),
    )
    offered = {
        host: one.service_for(Peer(host)).listener for host in ("192.0.2.1", "192.0.2.129", "2001:db8::1", "::1", "")
    }
    assert [*offered.values()] == ["forward", "both", "client", "mx", "mx"]


@pytest.mark.parametrize(("files", "room"), [(20_000, 19_400), (1024, 768)])
def test_room_leaves_descriptors_for_stores(monkeypatch: pytest.MonkeyPatch, files: int, room: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert Room.of_this_process() == Room(room, 0)


@LOOPS
def test_closed_listener_keeps_its_sessions(loop: str) -> None:
    async def go() -> None:
        async with listening(door()) as (listener, address), Guest.connected(address) as guest:
            await guest.greet()
            listener.close()
            assert (await guest.ask("NOOP"))[:3] == "250"
            # The socket is still the caller's: who connects now waits for the next listener on it.
            async with Guest.connected(address) as waiting:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(waiting.reader.read(1), 0.05)
            assert len(listener.connections) == 1

    run_loop(go(), loop)


@LOOPS
def test_listens_again_where_the_loop_gave_up(loop: str) -> None:
    async def go() -> None:
        async with listening(door()) as (listener, address):
            assert await listener.revive() == 0
            listener._ears[0].server.close()  # what uvloop does when accept() fails for want of memory
            await until(lambda: listener._ears[0].duplicate.fileno() < 0)
            assert await listener.revive() == 1
            async with Guest.connected(address) as guest:
                await guest.greet()

    run_loop(go(), loop)


@LOOPS
@pytest.mark.parametrize("family", ["IPv6", "Unix"])
def test_other_families(loop: str, family: str, tmp_path: Path) -> None:
    async def go() -> None:
        log = Facts()
        empty = asyncio.Event()
        running = asyncio.get_running_loop()
        listener = Listener(make_door(MemorySink(), log), Counts(1).worker(0), Room(9), running, empty.set)
        if family == "IPv6":
            sock = socket.create_server(("::1", 0), family=socket.AF_INET6)
            await listener.open(sock, 5)
            guest = Guest(*await asyncio.open_connection(*sock.getsockname()[:2]))
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(tmp_path / "smtp.sock"))
            sock.listen()
            await listener.open(sock, 5)
            guest = Guest(*await asyncio.open_unix_connection(str(tmp_path / "smtp.sock")))
        await guest.greet()
        assert (await guest.ask("QUIT"))[:3] == "221"
        guest.writer.close()
        await empty.wait()
        listener.close()
        sock.close()
        await asyncio.sleep(0.01)
        assert family == "IPv6" or (tmp_path / "smtp.sock").exists()  # other workers may listen there
        peer = str(log.named("session_closed")[0]["peer"])
        assert peer.startswith("[::1]:") if family == "IPv6" else peer == "local"

    run_loop(go(), loop)


@LOOPS
def test_connection_that_comes_into_a_drain_is_drained(loop: str) -> None:
    async def go() -> None:
        async with listening(door()) as (listener, address):
            listener.drain()
            async with Guest.connected(address) as guest:
                assert (await guest.reply())[:3] == "220"
                assert (await guest.ask("HELO x"))[:3] == "421"

    run_loop(go(), loop)


@LOOPS
def test_end_waits_for_policies_and_callbacks_but_not_for_ever(loop: str) -> None:
    async def go() -> None:
        async with listening(door()) as (listener, _):
            ended: list[str] = []

            async def wait(name: str, seconds: float) -> None:
                try:
                    await asyncio.sleep(seconds)
                finally:
                    ended.append(name)

            running = asyncio.get_running_loop()
            for name, seconds in (("quick", 0.0), ("slow", 100.0)):
                task = running.create_task(wait(name, seconds))
                listener.tasks.add(task)
                task.add_done_callback(listener.tasks.discard)
            await asyncio.sleep(0)
            await listener.finish_tasks(0.05)
            await until(lambda: not listener.tasks)
            assert ended == ["quick", "slow"]

    run_loop(go(), loop)
