"""The mail of a worker that is no more, taken in by one that is: its rows are copied, then its file is removed.

Large bodies stay where they are: all workers have one directory for them. What a crash between the two steps leaves is
in both files; rows whose queue id is here already are not copied again.
"""

from __future__ import annotations

import os

from smtpmaild.facts import Log
from smtpmaild.queue import files
from smtpmaild.queue.rows import MESSAGE_COLUMNS, RECIPIENT_COLUMNS
from smtpmaild.queue.sqlite_changes import end_leases
from smtpmaild.queue.sqlite_file import ShardFile, connect


def adopt(directory: str, number: int, path: str, file: ShardFile, log: Log) -> bool:
    """Move what is in the file of this number, at this path, into ours. False while it has a worker that serves."""
    locks = [files.lock(path_of(directory, number)) for path_of in (files.lock_path, files.users_path)]
    try:
        if None in locks:
            return False  # it claims still, or its last session has not ended
        count = _copy_from(path, file)
        for name in (path, f"{path}-wal", f"{path}-shm"):
            files.unlink_if_there(name)
        log.info("queue_adopted", path=path, messages=count)
        return True
    finally:
        for descriptor in locks:
            if descriptor is not None:
                os.close(descriptor)


def _copy_from(path: str, file: ShardFile) -> int:
    connect(path).close()  # brings its schema up to date
    connection = file.connected()
    connection.execute("ATTACH ? AS old", (path,))
    try:
        with file.transaction():
            (base,) = connection.execute("SELECT coalesce(max(id), 0) FROM main.message").fetchone()
            count = connection.execute(
                f"INSERT INTO main.message ({MESSAGE_COLUMNS}) SELECT id + ?{MESSAGE_COLUMNS.removeprefix('id')} "  # noqa: S608
                "FROM old.message WHERE queue_id NOT IN (SELECT queue_id FROM main.message)",
                (base,),
            ).rowcount
            connection.execute(
                "INSERT INTO main.body SELECT id + :base, data FROM old.body "
                "WHERE id + :base IN (SELECT id FROM main.message WHERE id > :base)",
                {"base": base},
            )
            connection.execute(
                f"INSERT INTO main.recipient (message, destination, flow, {RECIPIENT_COLUMNS}) "  # noqa: S608
                f"SELECT message + :base, destination, flow, {RECIPIENT_COLUMNS} FROM old.recipient "
                "WHERE message + :base IN (SELECT id FROM main.message WHERE id > :base)",
                {"base": base},
            )
            end_leases(connection, after=base)
        return count
    finally:
        connection.execute("DETACH old")
