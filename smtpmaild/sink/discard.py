"""Discard: takes every message and keeps none. For tests and benchmarks; never where mail is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smtpmaild.envelope import Destination, Envelope
from smtpmaild.sink import Delivery, Outcome, Post
from smtpmaild.sink.options import DiscardOptions
from smtpmaild.sink.writer import Writer
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply


class DiscardSink:
    """One object that is the sink and, having nothing to remember, all its deliveries."""

    def __init__(self, options: DiscardOptions, writer: Writer) -> None:
        """Needs neither; takes them as all sinks do."""

    def prepare(self) -> None:
        """Nothing to prepare."""

    def start(self, post: Post) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def unhealthy(self) -> Reply | None:
        """Never."""
        return None

    def locate(self, destination: Destination) -> str:
        """Nowhere."""
        return "(discarded)"

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Delivery:
        """A delivery into nothing."""
        return self

    def write(self, chunk: bytes) -> bool:
        """Gone."""
        return True

    def commit(self, done: Callable[[Outcome], None]) -> None:
        """Done at once, before this returns: there is nothing to wait for."""
        done(MESSAGE_ACCEPTED)

    def abort(self) -> None:
        """Gone already."""
