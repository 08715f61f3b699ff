"""The file: batches, merging, limits, and what becomes of one that is broken or old."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from remembering import NOW, append, id_of, message, path_in, settings_in, write

from smtpmaild.history import store as module
from smtpmaild.history.events import CHUNK_EVENTS
from smtpmaild.history.reading import Reading
from smtpmaild.history.store import SMALL_CHUNKS, Store


def chunks(path: str) -> list[tuple[int, int]]:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT first, count FROM chunk ORDER BY first").fetchall()
        bodies = connection.execute("SELECT first FROM body ORDER BY first").fetchall()
    connection.close()
    assert [first for (first,) in bodies] == [first for first, _ in found]
    return found


def test_batches_are_numbered_in_order(tmp_path: Path) -> None:
    path = write(tmp_path, [message(id_of(1))], [message(id_of(2)), message(id_of(3))])
    assert chunks(path) == [(1, 1), (2, 2)]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_chunks_are_written_together(tmp_path: Path) -> None:
    path = write(tmp_path, [message(id_of(number)) for number in range(CHUNK_EVENTS + 3)])
    assert chunks(path) == [(1, CHUNK_EVENTS), (1 + CHUNK_EVENTS, 3)]


def test_two_writers_share_the_numbers(tmp_path: Path) -> None:
    stores = [Store(settings_in(tmp_path), print) for _ in range(2)]
    for number in range(6):
        append(stores[number % 2], [message(id_of(number))])
    for store in stores:
        store.close()
    with Reading(path_in(tmp_path)) as reading:
        events, cursor = reading.since(1)
    assert [(event.number, event.facts["queue_id"]) for event in events] == [(n + 1, id_of(n)) for n in range(6)]
    assert cursor == 7


def test_small_chunks_are_merged(tmp_path: Path) -> None:
    total = 2 * SMALL_CHUNKS + 5
    path = write(tmp_path, *([message(id_of(number), at=NOW + number)] for number in range(total)))
    assert len(chunks(path)) == 6
    with Reading(path) as reading:
        assert [event.number for event in reading.since(1)[0]] == [*range(1, total + 1)]
        assert [event.number for event in reading.since(20)[0]] == [*range(20, total + 1)]
        for number in (0, 7, SMALL_CHUNKS, total - 1):
            (event,) = reading.named(id_of(number))
            assert event.at == NOW + number


def test_merging_stops_where_a_chunk_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MERGED_BYTES", 10)
    path = write(tmp_path, *([message(id_of(number))] for number in range(SMALL_CHUNKS)))
    assert len(chunks(path)) == SMALL_CHUNKS


def test_old_events_are_forgotten(tmp_path: Path) -> None:
    store = Store(settings_in(tmp_path, keep=100.0), print)
    for number in range(5):
        append(store, [message(id_of(number), at=NOW + 40 * number)])
    append(store, [message(id_of(9), at=NOW + 1000)])
    append(store, [message(id_of(10), at=NOW + 5000)])
    store.close()
    assert chunks(path_in(tmp_path)) == [(7, 1)]
    with Reading(path_in(tmp_path)) as reading:
        assert reading.reach() == (1, NOW + 5000)


def test_file_keeps_to_its_size(tmp_path: Path) -> None:
    store = Store(settings_in(tmp_path, size=400_000), print)
    for batch in range(90):
        append(store, [message(id_of(number), at=NOW + batch, subject="x" * 200) for number in range(CHUNK_EVENTS)])
    store.close()
    left = chunks(path_in(tmp_path))
    assert left[-1] == (1 + 89 * CHUNK_EVENTS, CHUNK_EVENTS)
    assert 1 < len(left) < 20
    assert os.path.getsize(path_in(tmp_path)) < 1_000_000


def test_broken_file_is_put_aside(tmp_path: Path) -> None:
    path = write(tmp_path, [message(id_of(1))])
    Path(path).write_bytes(b"this is no database, " * 1000)
    told: list[str] = []
    store = Store(settings_in(tmp_path), told.append)
    append(store, [message(id_of(2))])
    store.close()
    assert len(told) == 1
    assert chunks(path) == [(1, 1)]
    assert Path(f"{path}.old").read_bytes().startswith(b"this is no")


def test_file_of_another_version_is_put_aside(tmp_path: Path) -> None:
    path = write(tmp_path, [message(id_of(1))])
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(OSError, match="it has version 99"):
        Reading(path)
    told: list[str] = []
    store = Store(settings_in(tmp_path), told.append)
    append(store, [message(id_of(2))])
    store.close()
    assert told == ["it has version 99, not 1"]
    assert chunks(path) == [(1, 1)]


def test_failure_writes_nothing_and_heals(tmp_path: Path) -> None:
    path = write(tmp_path, [message(id_of(1))])
    store = Store(settings_in(tmp_path), print, patience=0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        append(store, [message(id_of(2))])
    other.execute("ROLLBACK")
    other.close()
    append(store, [message(id_of(3))])
    store.close()
    assert chunks(path) == [(1, 1), (2, 1)]
