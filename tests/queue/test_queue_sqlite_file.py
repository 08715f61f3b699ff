"""The file of a shard: its versions, its connection, its trouble."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from queueing import NOW, entry
from sqlite_queues import LEASE, PLENTY, make, with_parameters

from smtpmaild.queue import Query, Room, Usage, files, sqlite_file
from smtpmaild.queue.sqlite import SqliteQueue
from smtpmaild.queue.sqlite_file import ShardFile


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    queue = make(tmp_path)
    yield queue
    queue.close()


def test_schema_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = make(tmp_path)
    queue.put([entry()])
    queue.close()
    monkeypatch.setattr(
        sqlite_file, "STEPS", (*sqlite_file.STEPS, "ALTER TABLE message ADD COLUMN later TEXT; SELECT 1")
    )
    queue = make(tmp_path)
    assert len(list(queue.find(Query()))) == 1
    queue.close()
    with sqlite3.connect(files.shard_path(str(tmp_path), 0)) as connection:
        assert connection.execute("SELECT later FROM message").fetchall() == [(None,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (len(sqlite_file.STEPS),)
    connection.close()


def test_a_file_of_the_first_version_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = sqlite_file.STEPS
    monkeypatch.setattr(sqlite_file, "STEPS", steps[:1])
    make(tmp_path).close()
    monkeypatch.undo()
    queue = make(tmp_path)
    queue.put([with_parameters(entry(), BY="60;R")])
    (claim,) = queue.claim(NOW, NOW + 600, 10, Room())
    assert claim.message.deadline == NOW + 60
    queue.close()


def test_failed_step_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "STEPS", ("CREATE TABLE a (b); NONSENSE",))
    with pytest.raises(OSError, match="syntax error"):
        make(tmp_path)
    monkeypatch.undo()
    make(tmp_path).close()


def test_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path).close()
    with sqlite3.connect(files.shard_path(str(tmp_path), 0)) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(OSError, match="later version"):
        make(tmp_path)


@pytest.mark.parametrize(("limit", "number"), [("max_page_count = 1", errno.ENOSPC), ("query_only = 1", errno.EROFS)])
def test_trouble_has_the_number_that_a_file_would_give(queue: SqliteQueue, limit: str, number: int) -> None:
    queue._file.connected().execute(f"PRAGMA {limit}")
    with pytest.raises(OSError) as caught:
        queue.put([entry(body=b"x" * 60_000) for _ in range(10)])
    assert caught.value.errno == number
    assert list(queue.find(Query())) == []
    assert queue.usage() == Usage(0, 0)


def test_connection_that_cannot_roll_back_is_replaced(queue: SqliteQueue) -> None:
    broken = queue._file.connected()
    queue._file._roll_back(broken)  # nothing to roll back: it stays
    assert queue._file.connected() is broken
    broken.close()
    queue._file._roll_back(broken)
    queue.put([entry()])
    assert len(queue.claim(NOW, LEASE, 10, PLENTY)) == 1


def test_version_tells_of_changes_by_others_and_of_a_new_connection(queue: SqliteQueue, tmp_path: Path) -> None:
    file = ShardFile(files.shard_path(str(tmp_path), 0))
    before = file.version()
    with file.transaction() as connection:
        connection.execute("UPDATE message SET size = 0")
    assert file.version() == before, "our own change"
    queue.put([entry()])
    after = file.version()
    assert after != before
    file.close()
    assert file.version() not in (before, after)
    file.close()
