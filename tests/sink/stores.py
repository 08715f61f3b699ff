"""A store under test: its sink, a writer with threads, and a queue in place of the event loop."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self

import pytest

from smtpmaild import queue_id
from smtpmaild.envelope import BodyType, Destination, Envelope, Peer, Recipient, Route, Rule
from smtpmaild.sink import Delivery, Outcome, Sink, disk
from smtpmaild.sink.builtin import BUILTIN, SinkOptions, build
from smtpmaild.sink.writer import Writer
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply

RECEIVED = b"Received: by mx.example.com;\r\n\tSun, 22 Nov 2026 15:00:00 +0000\r\n"


class RecordingLog:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, dict[str, object]]] = []

    def error(self, event: str, /, **facts: object) -> object:
        self.facts.append((event, facts))
        return None

    info = warning = exception = error


class Clock:
    """Monotonic seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def to(mailbox: str, domain: str = "example.com", subaddress: str = "", address: str = "") -> Destination:
    text = address or f"{mailbox}@{domain}"
    local_part, _, its_domain = text.partition("@")
    return Destination("mail", domain, mailbox, subaddress, Address(local_part, its_domain, text))


def make_envelope(
    destinations: Sequence[Destination] = (), body: BodyType = BodyType.SEVEN_BIT, *, is_lmtp: bool = False
) -> Envelope:
    return Envelope(
        queue_id=queue_id.make(),
        session_id="S1",
        listener="mx",
        hostname="mx.example.com",
        peer=Peer("192.0.2.1", 4711),
        hello="client.example",
        protocol="ESMTP",
        received_at=1795359641.25,
        reverse_path=Address("a", "x.test", "a@x.test"),
        body=body,
        recipients=[
            Recipient(each.recipient, Route(Rule("local"), RECIPIENT_OK, (each,)), {"NOTIFY": "NEVER"})
            for each in destinations
        ],
        is_lmtp=is_lmtp,
    )


class Store:
    """A started sink; `deliver` plays the receiver."""

    def __init__(self, options: SinkOptions, root: Path, *, threads: int = 2, memory: int = 1 << 26) -> None:
        self.root = root
        self.log = RecordingLog()
        self.clock = Clock()
        self.writer = Writer(self.log, threads=threads, memory=memory, clock=self.clock)
        self.sink: Sink = build(options, self.writer)
        self.posted: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.posts = 0
        self.drained = 0

    def start(self) -> Store:
        self.sink.prepare()
        self.sink.start(self.posted.put)
        return self

    def begin(self, *destinations: Destination, body: BodyType = BodyType.SEVEN_BIT, is_lmtp: bool = False) -> Delivery:
        return self.sink.begin(make_envelope(destinations, body, is_lmtp=is_lmtp), destinations, self._drained)

    def _drained(self) -> None:
        self.drained += 1

    def run_until(self, is_true: Callable[[], object], seconds: float = 10.0) -> None:
        """The event loop: runs what the writer posts."""
        end = time.monotonic() + seconds
        while not is_true():
            function = self.posted.get(timeout=max(0.0, end - time.monotonic()))
            self.posts += 1
            function()

    def run_posted(self) -> None:
        try:
            while True:
                self.posted.get_nowait()()
        except Empty:
            return

    def settle(self, *deliveries: Delivery) -> list[Reply]:
        """One answer each, as there is under SMTP."""
        replies = self.settle_each(*deliveries)
        assert all(isinstance(reply, Reply) for reply in replies)
        return replies  # type: ignore[return-value]

    def settle_each(self, *deliveries: Delivery) -> list[Outcome]:
        """All in one batch; what came of each, in their order."""
        replies: dict[int, Outcome] = {}

        interval = sys.getswitchinterval()
        sys.setswitchinterval(10)  # the writer threads see all of them or none: one batch
        for number, delivery in enumerate(deliveries):
            delivery.commit(partial(replies.__setitem__, number))
        sys.setswitchinterval(interval)
        self.run_until(lambda: len(replies) == len(deliveries))
        return [replies[number] for number in range(len(deliveries))]

    def deliver(self, *chunks: bytes, to: Sequence[Destination], body: BodyType = BodyType.SEVEN_BIT) -> Reply:
        delivery = self.begin(*to, body=body)
        self.write(delivery, *chunks)
        return self.settle(delivery)[0]

    def deliver_each(self, *chunks: bytes, to: Sequence[Destination]) -> list[str]:
        """The same under LMTP: what came of each destination."""
        delivery = self.begin(*to, is_lmtp=True)
        self.write(delivery, *chunks)
        (outcome,) = self.settle_each(delivery)
        return [str(reply) for reply in ([outcome] * len(to) if isinstance(outcome, Reply) else outcome)]

    def write(self, delivery: Delivery, *chunks: bytes) -> None:
        for chunk in (RECEIVED, *chunks):
            if not delivery.write(chunk):
                drained = self.drained
                self.run_until(lambda before=drained: self.drained > before)  # type: ignore[misc]

    def files(self) -> dict[str, bytes]:
        """Everything stored, readable or not: path below the root -> content."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path.suffix != ".log"
        }

    def visible(self) -> dict[str, bytes]:
        """What readers of the store see."""
        return {name: data for name, data in self.files().items() if "tmp/" not in name}


PATHS = {"maildir": "{domain}/{mailbox}", "spool": "spool"}


class MakeStore:
    """Makes and starts stores below a directory; stops them all at the end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._started: list[Store] = []

    def __call__(
        self, kind: str = "maildir", *, path: str = "", threads: int = 2, memory: int = 1 << 26, **options: object
    ) -> Store:
        whole = self._root / (path or PATHS[kind])
        checked = BUILTIN[kind].options.model_validate({"type": kind, "path": str(whole), **options})
        store = Store(checked, self._root, threads=threads, memory=memory).start()
        self._started.append(store)
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for store in self._started:
            store.sink.stop()


class Faults:
    """Makes system calls of a store fail: `faults("fsync", errno.EIO)` the next one, `after` so many good ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.hits = 0

    def __call__(self, name: str, number: int, *, after: int = 0, times: int = 1, match: str = "") -> None:
        original: Callable[..., object] = getattr(disk, name)
        left = [after, times]

        def failing(*arguments: object) -> object:
            if match and not any(match in str(each) for each in arguments):
                return original(*arguments)
            if left[0] > 0:
                left[0] -= 1
            elif left[1] > 0:
                left[1] -= 1
                self.hits += 1
                raise OSError(number, "injected")
            return original(*arguments)

        self._monkeypatch.setattr(disk, name, failing)
