"""A sink that stands before another one and changes what is written into it; the rest it hands through."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smtpmaild.envelope import Destination, Envelope
from smtpmaild.sink import Delivery, Post, Sink
from smtpmaild.smtp.reply import Reply


class Front:
    """The seam smtpmaild.sink.Sink; subclasses override begin()."""

    def __init__(self, store: Sink) -> None:
        self._store = store

    def prepare(self) -> None:
        self._store.prepare()

    def start(self, post: Post) -> None:
        self._store.start(post)

    def stop(self) -> None:
        self._store.stop()

    def unhealthy(self) -> Reply | None:
        return self._store.unhealthy()

    def locate(self, destination: Destination) -> str:
        return self._store.locate(destination)

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Delivery:
        return self._store.begin(envelope, destinations, drained)
