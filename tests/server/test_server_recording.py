"""Recorded connections: who is recorded, what is written, and that it can be played; how workers hear of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from house import Facts, Guest, MemorySink, listening, make_door, make_plan, run_loop, until
from test_server_encryption import Encrypted
from test_server_encryption import House as TlsHouse

from smtpmaild.server.counts import Counts
from smtpmaild.server.listener import Listener, Room
from smtpmaild.server.notice import Notice
from smtpmaild.server.recording import Recording
from smtpmaild.server.worker import Generation
from smtpmaild.transcripts.playing import rehearse
from smtpmaild.transcripts.reading import read


def order(folder: Path, **changed: Any) -> dict[str, Any]:
    usual = {"networks": ["127.0.0.0/8"], "listener": "", "rule": "", "directory": str(folder), "most": 10}
    return {**usual, "bodies": False, "until": time.time() + 60, **changed}


async def talk(guest: Guest) -> None:
    await guest.greet()
    await guest.begin_message()
    await guest.ask("Subject: secret\r\n\r\nsecret\r\n.")
    await guest.ask("QUIT")
    assert await guest.is_closed()


def recorded(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob("*.smtp"))]


def test_a_session_is_written_down_and_can_be_played(tmp_path: Path) -> None:
    async def go() -> None:
        sink, log = MemorySink(), Facts()
        door = make_door(sink, log)
        async with listening(door) as (listener, address):
            listener.recording = Recording(order(tmp_path))
            async with Guest.connected(address) as guest:
                await talk(guest)
            await until(lambda: recorded(tmp_path))
        (text,) = recorded(tmp_path)
        assert "secret" not in text
        assert "C! body " in text
        assert "@client 127.0.0.1\n" in text
        assert text.endswith("S.\n")
        assert await rehearse(read(text, "x"), door.service) is None
        assert len(sink.messages) == 1

    run_loop(go())


@pytest.mark.parametrize("implicit", [False, True])
def test_what_is_said_within_tls_is_written_down(tmp_path: Path, implicit: bool) -> None:
    async def go() -> None:
        house = TlsHouse(tmp_path, implicit=implicit)
        folder = tmp_path / "recorded"
        folder.mkdir()
        async with listening(house.door) as (listener, address):
            listener.recording = Recording(order(folder, bodies=True))
            if implicit:
                guest = await Encrypted.implicit(address)
            else:
                guest = Encrypted(*await asyncio.open_connection(*address))
                assert (await guest.reply()).startswith("220 ")
                await guest.ask("EHLO client.example")
                await guest.start_tls()
            if implicit:
                assert (await guest.reply()).startswith("220 ")
            await guest.ask("EHLO client.example")
            await guest.begin_message()
            await guest.ask("kept\r\n.")
            await guest.ask("QUIT")
            await guest.close()
            await until(lambda: recorded(folder))
        (text,) = recorded(folder)
        assert ("@tls implicit" in text) == implicit
        assert ("C! STARTTLS" in text) != implicit
        assert "C: kept\nC: .\n" in text
        assert await rehearse(read(text, "x"), house.door.service) is None

    run_loop(go())


@pytest.mark.parametrize(
    ("changed", "is_kept"),
    [
        ({}, True),
        ({"networks": []}, True),
        ({"networks": ["192.0.2.0/24", "::/0"]}, False),
        ({"most": 0}, False),
        ({"until": 0.0}, False),
        ({"rule": "test"}, True),
        ({"rule": "tes"}, False),
        ({"directory": "/nowhere/at/all"}, False),
    ],
)
def test_who_is_recorded(tmp_path: Path, changed: dict[str, Any], is_kept: bool) -> None:
    async def go() -> None:
        async with listening(make_door(MemorySink(), Facts())) as (listener, address):
            listener.recording = Recording(order(tmp_path, **changed))
            async with Guest.connected(address) as guest:
                await talk(guest)
            await until(lambda: not listener.connections)
        assert bool(recorded(tmp_path)) == is_kept

    run_loop(go())


def test_no_more_than_wanted_and_refusals_name_their_rule(tmp_path: Path) -> None:
    async def go() -> None:
        async with listening(make_door(MemorySink(), Facts())) as (listener, address):
            listener.recording = Recording(order(tmp_path, most=1))
            for _ in range(2):
                async with Guest.connected(address) as guest:
                    await guest.greet()
                    await guest.ask("MAIL FROM:<>")
                    await guest.ask("RCPT TO:<x@refused.example>")
            await until(lambda: not listener.connections)
        (text,) = recorded(tmp_path)
        assert "# decided by test\n" in text
        assert text.endswith("S: 550 5.7.1 no\n")  # the client went away

    run_loop(go())


def test_workers_look_at_the_notice(tmp_path: Path) -> None:
    async def go() -> None:
        notice = Notice()
        plan = make_plan(make_door(MemorySink(), Facts()), MemorySink(), Facts(), notice=notice)
        loop = asyncio.get_running_loop()
        generation = Generation(plan, Counts(1).worker(0), Room(10), loop)
        (listener,) = generation.listeners

        def seen() -> bool:
            generation.sweep(loop.time())
            return listener.recording is not None

        assert not seen()
        notice.post(order(tmp_path, listener=listener.door.name))
        assert seen()
        assert seen()  # and it is read once
        notice.post(order(tmp_path, listener="another"))
        assert not seen()
        notice.post(order(tmp_path))
        assert seen()
        notice.post({})
        assert not seen()

    run_loop(go())


def test_a_notice() -> None:
    notice = Notice()
    assert (notice.number, notice.read()) == (0, {})
    notice.post({"a": "é" * 100})
    notice.post({"b": [1]})
    assert (notice.number, notice.read()) == (2, {"b": [1]})
    with pytest.raises(ValueError, match="too much"):
        notice.post({"a": "x" * 100_000})
    notice._page[16:20] = b"{{{{"  # somebody is writing
    assert notice.read() == {}
    notice._page[16:24] = b'"abcdef"'
    notice._page[8:16] = (8).to_bytes(8, "big")
    assert notice.read() == {}


def test_a_listener_makes_what_it_is_told_to() -> None:
    async def go() -> None:
        door = make_door(MemorySink(), Facts())
        listener = Listener(door, Counts(1).worker(0), Room(1), asyncio.get_running_loop(), lambda: None)
        assert type(listener.connection()).__name__ == "Connection"
        listener.recording = Recording(order(Path("/nowhere")))
        assert type(listener.connection()).__name__ == "RecordedConnection"

    run_loop(go())
