"""What the control socket understands: VERBS, the one table. A new verb is a function here and a line in it.

A verb is an async generator of rows. What it yields as `Done` ends the answer. Wrong arguments raise ValueError
(EX_USAGE); what cannot be done raises `RefusedError` with the exit status that a command ends with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from smtpmaild.control.desk import Desk
from smtpmaild.control.queue_files import NoMessageError, QueueFiles, Record
from smtpmaild.control.recordings import CutOffError, Wish
from smtpmaild.queue.body import file_body
from smtpmaild.queue.records import RecordError
from smtpmaild.queue.shards import CHANGE_BY_VERB, Who

EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE, EX_IOERR, EX_TEMPFAIL, EX_CONFIG = 65, 66, 69, 74, 75, 78
#: Rows that a thread reads at a time.
_ROWS_AT_ONCE = 100


class RefusedError(Exception):
    """It cannot be done; the text is for people."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer."""

    record: Record


@dataclass(frozen=True, slots=True)
class Request:
    """What a verb is given. body: a file with the bytes that followed the request, "" where there are none."""

    desk: Desk
    who: Who
    arguments: Mapping[str, Any]
    body: str = ""

    @property
    def queue(self) -> QueueFiles:
        """Raises RefusedError where there is none."""
        if self.desk.queue is None:
            raise RefusedError(
                "no mail travels on here: the configuration has no relay, and so no queue", EX_UNAVAILABLE
            )
        return self.desk.queue


Answer = AsyncGenerator[Record | Done]


@dataclass(frozen=True, slots=True)
class Verb:
    """takes: arguments by name, with the type of each; all but `size` may be left out.  has_body: a message follows, of
    `size` bytes."""

    run: Callable[[Request], Answer]
    takes: Mapping[str, type] = field(default_factory=dict)
    has_body: bool = False

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raises ValueError for what it does not take."""
        for name, value in arguments.items():
            if name not in self.takes:
                raise ValueError(f"there is no argument {name!r}; it takes {', '.join(self.takes) or 'none'}")
            if not _is_a(value, self.takes[name]):
                raise ValueError(f"{name} is not a {self.takes[name].__name__}")


def _is_a(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int and isinstance(value, bool):
        return False
    if isinstance(value, list):
        return kind is list and all(isinstance(item, str) for item in value)
    return isinstance(value, kind)


async def _status(request: Request) -> Answer:
    yield Done(await request.desk.summary())


async def _stores(request: Request) -> Answer:
    for record in await request.desk.stores():
        yield record
    yield Done({})


async def _certificates(request: Request) -> Answer:
    for record in await request.desk.certificates():
        yield record
    yield Done({})


async def _destinations(request: Request) -> Answer:
    for record in await request.desk.destinations():
        yield record
    yield Done({})


async def _reload(request: Request) -> Answer:
    last = None
    async for reload in request.desk.reload(request.who):
        last = reload
        yield asdict(reload)
    if last is None or not (last.is_done or not last.is_good):
        raise RefusedError("the new workers do not serve yet; the log says why", EX_TEMPFAIL)
    if not last.is_good:
        raise RefusedError(last.cause, EX_CONFIG)
    yield Done(asdict(last))


async def _drain(request: Request) -> Answer:
    async for record in request.desk.drain(request.who, now=request.arguments.get("now", False)):
        yield record
    yield Done({"pid": request.desk.house.state.pid})


async def _record(request: Request) -> Answer:
    recordings = request.desk.recordings
    if recordings is None:
        raise RefusedError("there is nobody to tell the workers", EX_UNAVAILABLE)
    if recordings.is_busy:
        raise RefusedError("somebody records already; try again when that is over", EX_TEMPFAIL)
    wish = Wish(**request.arguments)
    listeners = [door.name for door in request.desk.premises.doors]
    if wish.listener and wish.listener not in listeners:
        raise ValueError(f"there is no listener {wish.listener!r}, only {', '.join(listeners)}")
    async with aclosing(recordings.record(wish, request.who)) as sessions:
        async for name, text in sessions:
            yield {"name": name, "text": text}
    yield Done({})


async def _queue_list(request: Request) -> Answer:
    async for record in _in_thread(request.queue.find(request.arguments)):
        yield record
    yield Done({})


async def _queue_show(request: Request) -> Answer:
    yield Done(await asyncio.to_thread(request.queue.show, request.arguments.get("id", "")))


async def _queue_stats(request: Request) -> Answer:
    for record in await asyncio.to_thread(request.queue.stats, request.arguments):
        yield record
    yield Done({})


async def _queue_count(request: Request) -> Answer:
    arguments = dict(request.arguments)
    verb = arguments.pop("verb", "")
    if verb not in CHANGE_BY_VERB:
        raise ValueError(f"verb is one of {', '.join(CHANGE_BY_VERB)}")
    yield Done({"recipients": await asyncio.to_thread(request.queue.count, verb, arguments)})


async def _queue_export(request: Request) -> Answer:
    async for block in _in_thread(request.queue.export(request.arguments.get("id", ""))):
        yield {"text": block.decode("latin-1")}
    yield Done({})


async def _queue_import(request: Request) -> Answer:
    record, why = request.arguments.get("record", "").encode(), request.arguments.get("why", "")
    body = await asyncio.to_thread(file_body, request.body)
    try:
        queue_id = await asyncio.to_thread(request.queue.put, record, body, request.who, why)
    except RecordError as error:
        raise RefusedError(str(error), EX_DATAERR) from None
    yield Done({"queue_id": queue_id})


def _change(verb: str) -> Callable[[Request], Answer]:
    async def run(request: Request) -> Answer:
        request.queue  # noqa: B018  there must be one
        filters = {name: value for name, value in request.arguments.items() if name != "why"}
        for record in await request.desk.change(verb, filters, request.who, request.arguments.get("why", "")):
            yield record
        yield Done({})

    return run


async def _in_thread(items: Iterator[Any]) -> AsyncIterator[Any]:
    """What an iterator that blocks yields."""
    try:
        while found := await asyncio.to_thread(lambda: list(islice(items, _ROWS_AT_ONCE))):
            for item in found:
                yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            await asyncio.to_thread(close)


_FILTERS: Mapping[str, type] = {
    "ids": list,
    "sender": str,
    "recipient": str,
    "domain": str,
    "states": list,
    "received_before": float,
    "limit": int,
}

_WISH = {"client": str, "listener": str, "rule": str, "seconds": float, "most": int, "bodies": bool}

VERBS: Mapping[str, Verb] = {
    "status": Verb(_status),
    "stores": Verb(_stores),
    "certificates": Verb(_certificates),
    "destinations": Verb(_destinations),
    "reload": Verb(_reload),
    "drain": Verb(_drain, {"now": bool}),
    "record": Verb(_record, _WISH),
    "queue.list": Verb(_queue_list, _FILTERS),
    "queue.show": Verb(_queue_show, {"id": str}),
    "queue.stats": Verb(_queue_stats, _FILTERS),
    "queue.count": Verb(_queue_count, {**_FILTERS, "verb": str}),
    **{f"queue.{verb}": Verb(_change(verb), {**_FILTERS, "why": str}) for verb in CHANGE_BY_VERB},
    "queue.export": Verb(_queue_export, {"id": str}),
    "queue.import": Verb(_queue_import, {"record": str, "why": str, "size": int}, has_body=True),
}

#: What goes wrong with the exit status that a command ends with.
STATUS_OF: Mapping[type[Exception], int] = {
    NoMessageError: EX_NOINPUT,
    CutOffError: EX_TEMPFAIL,
    OSError: EX_IOERR,
    ValueError: 64,
}
