"""Reading: by name, by text, the latest, and what came since, while somebody writes."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest
from remembering import NOW, Told, append, attempt, id_of, message, refusal, session, settings_in, write

from smtpmaild.history import store as store_module
from smtpmaild.history.events import key_of
from smtpmaild.history.reading import Reading
from smtpmaild.history.store import Store

BATCHES: list[list[Told]] = [
    [message(id_of(1), message_id="<one@x>"), session(id_of(0), refusals=[refusal("nobody@local.example")])],
    [attempt(id_of(1), "deferred", at=NOW + 5), attempt(id_of(1), at=NOW + 9, attempts=2)],
    [message(id_of(2), at=NOW + 10, sender="dave@other.example", peer="[2001:db8::7]:99", subject="Grüße")],
    [(NOW + 11, "reloaded", {}, None)],
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return write(tmp_path, *BATCHES)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        (id_of(1), [4, 3, 1]),
        (id_of(1).lower(), [4, 3, 1]),
        (id_of(0), [2, 1]),
        ("ALICE@sender.example", [4, 3, 2, 1]),
        ("nobody@local.example", [2]),
        ("<one@x>", [1]),
        ("192.0.2.1", [2, 1]),
        ("2001:db8::7", [5]),
        ("carol@remote.example", [4, 3]),
        ("nobody", []),
    ],
)
def test_named(path: str, name: str, numbers: list[int]) -> None:
    with Reading(path) as reading:
        assert [event.number for event in reading.named(name)] == numbers


def test_several_names_and_a_time(path: str) -> None:
    with Reading(path) as reading:
        assert [event.number for event in reading.named(id_of(1), id_of(2))] == [5, 4, 3, 1]
        assert [event.number for event in reading.named(id_of(1), since=NOW + 1)] == [4, 3]


def test_key_of_another_name_finds_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, [message(id_of(1))])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE chunk SET keys = ?", (key_of("somebody@else"),))
    connection.close()
    with Reading(path) as reading:
        assert [*reading.named("somebody@else")] == []


def test_latest(path: str) -> None:
    with Reading(path) as reading:
        assert [event.number for event in reading.latest(10)] == [5, 1]
        assert [event.number for event in reading.latest(1)] == [5]
        assert [event.number for event in reading.latest(2, names=("reloaded", "delivered"))] == [6, 4]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("DAVE", [5]),
        ("example", [5, 1]),
        ("grüße", [5]),
        ("no such text", []),
        ("2001:db8:", [5]),
        ("accepted", [5, 1]),
    ],
)
def test_search(path: str, text: str, numbers: list[int]) -> None:
    with Reading(path) as reading:
        assert [event.number for event in reading.search(text, 10)] == numbers


def test_search_takes_the_first(path: str) -> None:
    with Reading(path) as reading:
        assert [event.number for event in reading.search("example", 1)] == [5]
        assert [event.number for event in reading.search("thanks", 9, names=("delivered",))] == [4]


def test_since(path: str, tmp_path: Path) -> None:
    with Reading(path) as reading:
        events, cursor = reading.since(4)
        assert ([event.number for event in events], cursor) == ([4, 5, 6], 7)
        assert reading.since(cursor) == ([], 7)
        assert reading.cursor() == 7
        assert [event.number for event in reading.since(1, limit=2)[0]] == [1, 2]
        assert reading.since(1, limit=2)[1] == 3
        store = Store(settings_in(tmp_path), print)
        append(store, [message(id_of(3))])
        store.close()
        assert [event.number for event in reading.since(cursor)[0]] == [7]


def test_nothing_is_there(tmp_path: Path) -> None:
    store = Store(settings_in(tmp_path), print)
    store._connected()
    store.close()
    with Reading(settings_in(tmp_path).path) as reading:
        assert reading.reach() == (0, 0.0)
        assert reading.since(1) == ([], 1)
        assert (reading.cursor(), reading.latest(5), reading.search("x", 5)) == (1, [], [])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Reading(str(tmp_path / "none"))


def test_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(OSError, match="file is not a database") as failed:
        Reading(str(path))
    # Not left to the collector: the traceback would keep the file open, and from Python 3.13 on SQLite warns of that.
    assert failed.traceback
    assert [one for one in os.scandir("/proc/self/fd") if one.is_symlink() and os.path.realpath(one) == str(path)] == []


def test_reader_sees_one_moment(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SMALL_CHUNKS", 1)  # the writer merges at once
    store = Store(settings_in(tmp_path), print)
    with Reading(path) as reading:
        found = reading.named("example", id_of(1))
        first = next(found)
        append(store, [message(id_of(4))])
        assert [first.number, *(event.number for event in found)] == [4, 3, 1]
    store.close()


def test_reading_creates_and_changes_nothing(path: str) -> None:
    with Reading(path) as reading, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reading._connection.execute("DELETE FROM chunk")


def test_many_messages_are_found_soon(tmp_path: Path) -> None:
    """A tenth of what the benchmark holds (bench/history.py search), and ten times its patience."""
    store = Store(settings_in(tmp_path), print)
    for batch in range(20):
        told = [
            message(id_of(1000 * batch + number, NOW + batch), sender=f"u{number}@x.example", at=NOW + batch)
            for number in range(500)
        ]
        append(store, told)
    store.close()
    with Reading(settings_in(tmp_path).path) as reading:
        began = time.perf_counter()
        assert len([*reading.named(id_of(3007, NOW + 3))]) == 1
        assert len(reading.search("u77@x.example", 200)) == 20
        assert len(reading.search("nothing like it", 200)) == 0
        assert time.perf_counter() - began < 2.0
