"""How `smtpmaild queue` gets at the queue: through the daemon while one runs, on its files while none does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import click

from smtpmaild.cli.options import read_config
from smtpmaild.cli.shown import plain
from smtpmaild.cli.steering import fail, read_places

if TYPE_CHECKING:
    from smtpmaild.config import Config
    from smtpmaild.config.places import Places
    from smtpmaild.control.queue_files import QueueFiles
    from smtpmaild.facts import Log

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

        who, config = Who.of_this_process(), self._remembering_config()
        with self._rights(), _remembered(config) as log:
            return self._files(log).change(verb, filters, who, why)

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
        # Opened before the rights change: root may read what the user of the daemon may not.
        with open(path, "rb") as file, self._rights(), _remembered(whole) as log:
            files = QueueFiles(whole.queue.path, log, lambda text: parse_mailbox(text, to_ascii), route)
            return files.put(record, DescriptorBody(file.fileno(), os.fstat(file.fileno()).st_size), who, why)

    def _files(self, log: Log | None = None) -> QueueFiles:
        from smtpmaild.control.queue_files import QueueFiles

        return QueueFiles(self._places.queue, log or _Silent())

    def _remembering_config(self) -> Config | None:
        """The whole configuration, where it has a history. One with mistakes must not keep anybody from the queue."""
        if not self._places.has_history:
            return None
        from smtpmaild.config import ConfigError, load

        try:
            return load(self._config)
        except ConfigError:
            click.echo(f"Warning: not in the history: {self._config} has mistakes, see `smtpmaild check`", err=True)
            return None

    @contextmanager
    def _rights(self) -> Iterator[None]:
        from smtpmaild.config.rights import rights_of

        with rights_of(self._places.user, self._places.group):
            yield


@contextmanager
def _remembered(config: Config | None) -> Iterator[Log]:
    """The log to tell what is changed: by it the history hears of it, as it hears of it from a daemon."""
    if config is None:
        yield _Silent()
        return
    from smtpmaild.app import remembered

    with remembered(config, _Silent(), _Warning()) as log:
        yield log


class _Silent:
    """A log for who reads our output; what was changed is in changes.log."""

    def info(self, event: str, /, **facts: object) -> None:
        """Nobody wants to know."""

    warning = error = exception = info


class _Warning(_Silent):
    """A log of what keeps a change from the history: it was made all the same."""

    def warning(self, event: str, /, **facts: object) -> None:
        click.echo(f"Warning: {event.replace('_', ' ')}: {plain(str(facts.get('cause', '')))}", err=True)

    error = exception = warning


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
