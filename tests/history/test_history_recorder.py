"""The log that remembers: what is kept, what it costs nobody, and what becomes of events that find no room."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from receiving import RecordingLog
from remembering import NOW, id_of, message, path_in, settings_in

from smtpmaild.history import recorder as module
from smtpmaild.history.events import CHUNK_EVENTS
from smtpmaild.history.reading import Reading
from smtpmaild.history.recorder import History, Recorder


@pytest.fixture
def log() -> RecordingLog:
    return RecordingLog()


@pytest.fixture
def history(tmp_path: Path, log: RecordingLog) -> History:
    return History(settings_in(tmp_path), log)


def numbers(tmp_path: Path) -> list[str]:
    with Reading(path_in(tmp_path)) as reading:
        return [event.name for event in reading.since(1)[0]]


def run(history: History, tell: Callable[[], object]) -> None:
    """What is told while the thread runs."""

    async def live() -> None:
        history.start(asyncio.get_running_loop())
        tell()
        await history.stop()

    asyncio.run(live())


def test_what_is_kept_is_told_as_well(history: History, log: RecordingLog, tmp_path: Path) -> None:
    recorder = Recorder(log, history)
    _, name, facts, trace = message(id_of(1))

    def tell() -> None:
        recorder.record(name, dict(facts), trace)
        recorder.info("listening", listener="mx")
        recorder.warning("queue_takes_no_mail", reply="452")
        recorder.warning("listening_again")
        recorder.error("worker_died", worker=1)
        recorder.error("start_failed")
        try:
            raise ValueError("seen")
        except ValueError:
            recorder.exception("policy_failed", policy="x")
            recorder.exception("sweep_failed")

    run(history, tell)
    assert numbers(tmp_path) == ["message_accepted", "queue_takes_no_mail", "worker_died", "policy_failed"]
    assert [event for event, _ in log.facts] == [
        "message_accepted", "listening", "queue_takes_no_mail", "listening_again", "worker_died", "start_failed",
        "policy_failed", "sweep_failed",
    ]  # fmt: skip
    assert log.only("message_accepted") == facts  # the trace is for the history alone
    with Reading(path_in(tmp_path)) as reading:
        (event,) = reading.named(id_of(1))
    assert event.facts["subject"] == "Hello"
    assert event.at > NOW


def test_without_a_thread_it_is_written_at_once(history: History, log: RecordingLog, tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    Recorder(log, history).info("reloaded")
    assert numbers(tmp_path) == ["reloaded"]
    assert set(os.listdir("/proc/self/fd")) == before  # nothing that a fork would share


def test_what_is_collected_is_written_together(history: History, log: RecordingLog, tmp_path: Path) -> None:
    recorder = Recorder(log, history)
    recorder.info("reloaded")
    with pytest.raises(ValueError, match="later"), history.collecting():
        recorder.info("stopping")
        recorder.info("stopped")
        assert numbers(tmp_path) == ["reloaded"]
        raise ValueError("later")
    assert numbers(tmp_path) == ["reloaded", "stopping", "stopped"]
    recorder.info("reloaded")
    assert len(numbers(tmp_path)) == 4


def test_thread_lives_from_first_start_to_last_stop(history: History, log: RecordingLog, tmp_path: Path) -> None:
    recorder = Recorder(log, history)

    def running() -> int:
        return sum(thread.name == "history" for thread in threading.enumerate())

    async def live() -> None:
        history.start(asyncio.get_running_loop())
        history.start(asyncio.get_running_loop())
        await history.stop()
        assert running() == 1
        recorder.info("reloaded")
        await history.stop()
        assert running() == 0
        await history.stop()  # never started is no trouble

    asyncio.run(live())
    recorder.info("stopped")
    assert numbers(tmp_path) == ["reloaded", "stopped"]


def test_what_is_told_while_the_thread_ends(history: History, log: RecordingLog, tmp_path: Path) -> None:
    recorder = Recorder(log, history)
    recorder.info("reloaded")

    async def live() -> None:
        history.start(asyncio.get_running_loop())
        with closing(sqlite3.connect(path_in(tmp_path), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            recorder.info("worker_died")
            stopping = asyncio.create_task(history.stop())
            while history._events:  # until the thread has them, and waits for the other one
                await asyncio.sleep(0.01)
            recorder.info("stopping")
            other.execute("ROLLBACK")
        await stopping

    asyncio.run(live())
    assert numbers(tmp_path) == ["reloaded", "worker_died", "stopping"]


def test_trouble_is_told_once_and_what_was_lost_when_it_is_over(
    history: History, log: RecordingLog, tmp_path: Path
) -> None:
    blocker = tmp_path / "var"
    blocker.write_text("no directory")
    recorder = Recorder(log, history)
    recorder.info("reloaded")
    recorder.info("reloaded")
    assert [event for event, _ in log.facts] == ["history_failed", "reloaded", "reloaded"]
    assert "File exists" in log.only("history_failed")["cause"]
    blocker.unlink()
    recorder.info("stopped")
    assert numbers(tmp_path) == ["stopped"]
    assert log.only("history_events_dropped") == {"events": 2}


def test_other_process_that_writes_too_long(history: History, log: RecordingLog, tmp_path: Path) -> None:
    recorder = Recorder(log, history)
    recorder.info("reloaded")
    other = sqlite3.connect(path_in(tmp_path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    recorder.info("reloaded")
    other.execute("ROLLBACK")
    other.close()
    assert "locked" in log.only("history_failed")["cause"]


def test_no_more_wait_than_there_is_room_for(
    history: History, log: RecordingLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 1500)
    recorder = Recorder(log, history)
    run(history, lambda: [recorder.info("reloaded", number=number) for number in range(3 * CHUNK_EVENTS)])
    assert numbers(tmp_path) == ["reloaded"] * CHUNK_EVENTS
    assert log.only("history_events_dropped") == {"events": 2 * CHUNK_EVENTS}
    assert len(log.named("reloaded")) == 3 * CHUNK_EVENTS


class Mute:
    def __str__(self) -> str:
        raise TypeError


def test_mistake_of_ours_loses_an_event_and_no_more(history: History, log: RecordingLog, tmp_path: Path) -> None:
    recorder = Recorder(log, history)
    history.take("reloaded", {"what": Mute()}, None)
    assert isinstance(log.only("history_failed")["exc_info"], TypeError)
    assert log.only("history_events_dropped") == {"events": 1}

    def tell() -> None:
        recorder.info("stopping")
        history.take("tls_handshake_failed", {"refusals": [{}]}, None)
        recorder.info("stopped")

    run(history, tell)
    assert isinstance(log.named("history_failed")[1]["exc_info"], KeyError)
    assert numbers(tmp_path) == ["stopping", "stopped"]


def test_chunk_is_closed_where_it_is_full(history: History, log: RecordingLog, tmp_path: Path) -> None:
    recorder = Recorder(log, history)

    def tell() -> None:
        for _ in range(CHUNK_EVENTS + 3):
            recorder.info("reloaded")

    run(history, tell)
    with sqlite3.connect(path_in(tmp_path)) as connection:
        counts = [count for (count,) in connection.execute("SELECT count FROM chunk ORDER BY first")]
    connection.close()
    assert counts == [CHUNK_EVENTS, 3]


def test_name_that_is_no_text_is_found_as_one(history: History, log: RecordingLog, tmp_path: Path) -> None:
    recorder = Recorder(log, history)
    run(history, lambda: recorder.info("reloaded", user=7, peer=8))
    with Reading(path_in(tmp_path)) as reading:
        (event,) = reading.since(1)[0]
    assert event.facts == {"user": 7, "peer": 8}


def test_file_that_is_begun_anew_is_told(history: History, log: RecordingLog, tmp_path: Path) -> None:
    Path(path_in(tmp_path)).parent.mkdir()
    Path(path_in(tmp_path)).write_bytes(b"no database" * 1000)
    Recorder(log, history).info("reloaded")
    assert log.only("history_begun_anew")["kept"] == path_in(tmp_path) + ".old"
    assert numbers(tmp_path) == ["reloaded"]
