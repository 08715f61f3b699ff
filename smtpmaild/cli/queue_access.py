"""How `smtpmaild queue` gets at the queue: through the daemon while one runs, on its files while none does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from smtpmaild.cli.options import read_config
from smtpmaild.cli.steering import fail, read_places

if TYPE_CHECKING:
    from smtpmaild.config.places import Places
    from smtpmaild.control.queue_files import QueueFiles

EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_IOERR = 64, 65, 66, 74
Filters = Mapping[str, Any]
Record = dict[str, Any]


class Queue(Protocol):
    """What both ways have; see QueueFiles."""

    def find(self, filters: Filters) -> Iterator[Record]: ...
    def show(self, queue_id: str) -> Record: ...
    def stats(self, filters: Filters) -> list[Record]: ...
    def count(self, verb: str, filters: Filters) -> int: ...
    def change(self, verb: str, filters: Filters, why: str) -> list[Record]: ...
    def export(self, queue_id: str) -> Iterator[bytes]: ...
    def put(self, record: bytes, path: str, why: str) -> str: ...


def open_queue(config: str, socket: str | None) -> Queue:
    """The queue of this configuration, or behind this socket. Raises ControlError for who may not use it."""
    from smtpmaild.control.client import is_running
    from smtpmaild.control.queue_socket import QueueSocket

    if socket:
        return QueueSocket(socket)
    places = read_places(config)
    if places.control and is_running(places.control):
        return QueueSocket(places.control)
    return OnFiles(config, places)


class OnFiles:
    """Nobody serves: as who asks, or as the user of the daemon where that is root."""

    def __init__(self, config: str, places: Places) -> None:
        self._config = config
        self._places = places

    def find(self, filters: Filters) -> Iterator[Record]:
        return self._files().find(filters)

    def show(self, queue_id: str) -> Record:
        return self._files().show(queue_id)

    def stats(self, filters: Filters) -> list[Record]:
        return self._files().stats(filters)

    def count(self, verb: str, filters: Filters) -> int:
        return self._files().count(verb, filters)

    def change(self, verb: str, filters: Filters, why: str) -> list[Record]:
        from smtpmaild.queue.shards import Who

        who = Who.of_this_process()
        with self._rights():
            return self._files().change(verb, filters, who, why)

    def export(self, queue_id: str) -> Iterator[bytes]:
        return self._files().export(queue_id)

    def put(self, record: bytes, path: str, why: str) -> str:
        from smtpmaild.app import route_of_mail
        from smtpmaild.control.queue_files import QueueFiles
        from smtpmaild.idn import to_ascii
        from smtpmaild.queue.body import DescriptorBody
        from smtpmaild.queue.shards import Who
        from smtpmaild.smtp.address import parse_mailbox

        whole = read_config(self._config)
        route, who = route_of_mail(whole), Who.of_this_process()
        files = QueueFiles(whole.queue.path, _Silent(), lambda text: parse_mailbox(text, to_ascii), route)
        # Opened before the rights change: root may read what the user of the daemon may not.
        with open(path, "rb") as file, self._rights():
            return files.put(record, DescriptorBody(file.fileno(), os.fstat(file.fileno()).st_size), who, why)

    def _files(self) -> QueueFiles:
        from smtpmaild.control.queue_files import QueueFiles

        return QueueFiles(self._places.queue, _Silent())

    @contextmanager
    def _rights(self) -> Iterator[None]:
        from smtpmaild.config.rights import rights_of

        with rights_of(self._places.user, self._places.group):
            yield


class _Silent:
    """A log for who reads our output; what was changed is in changes.log."""

    def info(self, event: str, **facts: object) -> None:
        """Nobody wants to know."""

    warning = error = exception = info


@contextmanager
def troubles(where: str = "") -> Iterator[None]:
    """What goes wrong on either way ends the process with its words and its exit status. where: what a record is in."""
    from smtpmaild.control.client import ControlError

    try:
        yield
    except ControlError as error:
        fail(error.status, where * (error.status == EX_DATAERR) + str(error))
    except OSError as error:
        fail(EX_IOERR, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        status = _STATUS_OF.get(type(error).__name__)
        if status is None:
            raise
        fail(status, where * (status == EX_DATAERR) + str(error))


#: By their names: who asks a daemon need not import what raises them.
_STATUS_OF = {"NoMessageError": EX_NOINPUT, "RecordError": EX_DATAERR}
