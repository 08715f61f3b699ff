"""The kinds of stores that `type:` under deliver_to can name. A new one is its file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from smtpmaild.sink import Sink
from smtpmaild.sink.discard import DiscardSink
from smtpmaild.sink.folder import Template, why_not_writable
from smtpmaild.sink.maildir import MaildirSink
from smtpmaild.sink.options import DiscardOptions, MaildirOptions, SpoolOptions
from smtpmaild.sink.spool import SpoolSink
from smtpmaild.sink.writer import Writer

SinkOptions = MaildirOptions | SpoolOptions | DiscardOptions
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Model]):
    """A kind of store.

    options: the model of what the YAML accepts; its `path`, where it has one, is absolute when a sink is built.
    build: makes the sink. All sinks of a worker share one Writer.
    """

    options: type[Model]
    build: Callable[[Model, Writer], Sink]


BUILTIN: dict[str, Kind[Any]] = {
    "maildir": Kind(MaildirOptions, MaildirSink),
    "spool": Kind(SpoolOptions, SpoolSink),
    "discard": Kind(DiscardOptions, DiscardSink),
}


def build(options: SinkOptions, writer: Writer) -> Sink:
    """The sink that an entry of deliver_to describes. Touches no disk."""
    sink: Sink = BUILTIN[options.type].build(options, writer)
    return sink


def writable(options: SinkOptions) -> str | None:
    """Why mail could not be stored there, None if it could. Touches nothing: for `smtpmaild check`."""
    if isinstance(options, DiscardOptions):
        return None
    return why_not_writable(Template(options.path).root)
