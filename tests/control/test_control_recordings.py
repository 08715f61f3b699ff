"""Recordings by the control socket: the order that workers see, what they bring, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from attending import Staged, desk_for
from receiving import RecordingLog
from test_control_serving import run, serving_desk

from smtpmaild.control import recordings as module
from smtpmaild.control.client import ControlError
from smtpmaild.control.desk import Desk
from smtpmaild.control.recordings import Recordings
from smtpmaild.server.notice import Notice


@pytest.fixture
def notice(monkeypatch: pytest.MonkeyPatch) -> Notice:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    return Notice()


def desk_with(notice: Notice) -> Desk:
    desk = desk_for(Staged())
    desk.recordings = Recordings(notice, RecordingLog())
    return desk


async def working(notice: Notice, *texts: str) -> str:
    """A worker that has looked, and writes these sessions; the directory."""
    while not notice.read():
        await asyncio.sleep(0.005)
    directory = str(notice.read()["directory"])
    for number, text in enumerate(texts):
        path = Path(directory, f"S{number}")
        path.with_suffix(".tmp").write_text(text)
        os.rename(path.with_suffix(".tmp"), path.with_suffix(".smtp"))
    Path(directory, "S9.tmp").write_text("not complete")
    return directory


def test_what_workers_write_is_handed_on(tmp_path: Path, notice: Notice) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path, desk_with(notice)) as served:
            asking = asyncio.create_task(
                served.ask("record", client="192.0.2.7/24", rule="office", seconds=60.0, most=2, bodies=True)
            )
            await working(notice)
            order = notice.read()
            wanted = (["192.0.2.0/24"], "office", 2, True)
            assert (order["networks"], order["rule"], order["most"], order["bodies"]) == wanted
            with pytest.raises(ControlError, match="somebody records already"):
                await served.ask("record", rule="office", seconds=0.01)
            directory = await working(notice, "one", "two")
            rows = [row for row in await asking if row["name"]]
            assert rows == [{"name": "S0.smtp", "text": "one"}, {"name": "S1.smtp", "text": "two"}]
            assert notice.read() == {}
            assert not os.path.exists(directory)

    run(work())


def test_time_is_up(tmp_path: Path, notice: Notice) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path, desk_with(notice)) as served:
            rows = await served.ask("record", listener="mx", seconds=0.01)
            assert rows
            assert not any(row["name"] for row in rows)

    run(work())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"listener": "no"}, "there is no listener 'no', only mx"),
        ({"client": "x"}, "'x' does not appear to be an IPv4 or IPv6 network"),
        ({"client": 1}, "record: client is not a str"),
    ],
)
def test_wishes_that_make_no_sense(tmp_path: Path, notice: Notice, arguments: dict[str, Any], message: str) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path, desk_with(notice)) as served:
            with pytest.raises(ControlError, match=message) as refused:
                await served.ask("record", **arguments)
            assert refused.value.status == 64
            assert notice.read() == {}

    run(work())


def test_who_goes_away_wants_no_more(tmp_path: Path, notice: Notice) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path, desk_with(notice)) as served:
            _, writer = await asyncio.open_unix_connection(served.path)
            writer.write(b'{"verb": "record", "arguments": {"rule": "x", "seconds": 60.0}}\n')
            directory = await working(notice)
            writer.close()
            while notice.read() or os.path.exists(directory):
                await asyncio.sleep(0.005)

    run(work())


def test_a_reload_ends_it(tmp_path: Path, notice: Notice) -> None:
    """The attendant has no more patience with its last answers."""

    async def work() -> None:
        async with serving_desk(tmp_path, desk_with(notice)) as served:
            asking = asyncio.create_task(served.ask("record", rule="x", seconds=60.0))
            directory = await working(notice, "one")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await served.control.stop()
            assert notice.read() == {}
            assert not os.path.exists(directory)
            with pytest.raises(ControlError) as refused:
                await asking
            assert refused.value.status == 75

    run(work())


def test_the_next_attendant_forgets_what_the_one_before_has_left(tmp_path: Path, notice: Notice) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path, desk_with(notice)) as served:
            asking = asyncio.create_task(served.ask("record", rule="x", seconds=60.0))
            directory = await working(notice)
            Recordings(notice, RecordingLog()).forget()
            assert not os.path.exists(directory)
            assert notice.read() == {}
            notice.post({"directory": "of somebody else"})
            with pytest.raises(ControlError, match="cut off by a reload") as refused:
                await asking
            assert refused.value.status == 75
            assert notice.read() == {"directory": "of somebody else"}

    run(work())


def test_nobody_to_be_told(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path) as served:
            with pytest.raises(ControlError, match="nobody to tell the workers"):
                await served.ask("record", rule="x")

    run(work())
