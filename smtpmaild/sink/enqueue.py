"""The store of mail that travels on: a message is in the queue before its 250.

A small message is kept in memory until it is handed to the queue's thread, where all that wait share one commit. A
larger one is written to its file under bodies/ as it comes, like mail into a spool, in blocks and with back-pressure;
when the file is durable, its rows follow. What a crash leaves of it is in the table of queue/sqlite.py.

The destinations say by their `route` what takes the message on, and by mailbox and domain to whom: where an alias led
here that is not who the client named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from smtpmaild.envelope import NO_PARAMETERS, Destination, Envelope, Recipient
from smtpmaild.facts import Log
from smtpmaild.queue import Entry, QueuedMessage, QueuedRecipient
from smtpmaild.queue.body import SMALL, BytesBody, FileBody
from smtpmaild.queue.sqlite import prepare
from smtpmaild.queue.thread import QueueThread
from smtpmaild.sink import Delivery, Outcome, Post
from smtpmaild.sink.delivery import Copy, FileDelivery
from smtpmaild.sink.folder import TMP, Folder, Ownership
from smtpmaild.sink.writer import Health, Writer, reply_to
from smtpmaild.smtp.address import Address, mailbox
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply

#: How long stop() waits for large bodies that are being written, so that their rows can follow.
_LAST_BODIES = 10.0


class EnqueueSink:
    """The queue as a store. writing: large bodies on their way to the disk, counted in the loop's thread."""

    def __init__(self, directory: str, thread: QueueThread, writer: Writer, log: Log) -> None:
        self._directory = directory
        self._queue = thread
        self._writer = writer
        self._log = log
        self._health = Health(writer.clock)
        self.writing = 0
        bodies = f"{directory}/bodies"
        self._folder = Folder(bodies, bodies, bodies, (TMP,), Ownership(0o600, 0o700))

    def prepare(self) -> None:
        """Make the directories, sweep what a crash left."""
        prepare(self._directory, self._log)

    def start(self, post: Post) -> None:
        """Begin the threads."""
        self._writer.start(post)
        self._queue.start(post)

    def stop(self) -> None:
        """Finish what was committed. Not for the loop's thread: it hands over the rows of bodies that are written."""
        deadline = time.monotonic() + _LAST_BODIES
        while self.writing and time.monotonic() < deadline:
            time.sleep(0.01)
        self._writer.stop()
        self._queue.stop()

    def unhealthy(self) -> Reply | None:
        """The queue or the disk is full, or too much is in memory."""
        return self._queue.trouble or self._health.trouble() or self._writer.overload()

    def locate(self, destination: Destination) -> str:
        """The route."""
        return destination.route

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Delivery:
        """One message for all destinations."""
        return _Enqueuing(self, envelope, destinations, drained)


class _Enqueuing:
    """A message on its way into the queue."""

    __slots__ = ("_chunks", "_destinations", "_drained", "_envelope", "_file", "_held", "_sink")

    def __init__(
        self,
        sink: EnqueueSink,
        envelope: Envelope,
        destinations: Sequence[Destination],
        drained: Callable[[], None],
    ) -> None:
        self._sink = sink
        self._envelope = envelope
        self._destinations = destinations
        self._drained = drained
        self._chunks: list[bytes] = []
        self._held = 0  # our part of writer.held
        self._file: _BodyFile | None = None

    def write(self, chunk: bytes) -> bool:
        if self._file is not None:
            return self._file.write(chunk)
        self._chunks.append(chunk)
        self._held += len(chunk)
        self._sink._writer.held += len(chunk)
        if self._held <= SMALL:
            return True
        sink = self._sink
        self._file = _BodyFile(sink._writer, sink._health, sink._folder, self._drained, self._envelope.queue_id)
        whole = b"".join(self._chunks)
        self._let_go()
        return self._file.write(whole)

    def commit(self, done: Callable[[Outcome], None]) -> None:
        file = self._file
        if file is None:
            self._put(BytesBody(b"".join(self._chunks)), done)
            return

        def written(outcome: Outcome) -> None:
            self._sink.writing -= 1
            if outcome is MESSAGE_ACCEPTED:
                self._put(FileBody(file.path, file.size), done)
            else:
                done(outcome)

        self._sink.writing += 1
        file.commit(written)

    def abort(self) -> None:
        self._let_go()
        if self._file is not None:
            self._file.abort()

    def _put(self, body: BytesBody | FileBody, done: Callable[[Outcome], None]) -> None:
        entry = queue_entry(self._envelope, self._destinations, body)
        self._sink._queue.put(entry, partial(self._answer, done))

    def _answer(self, done: Callable[[Outcome], None], error: OSError | None) -> None:
        self._let_go()
        if error is None:
            done(MESSAGE_ACCEPTED)
            return
        self._sink._health.failed(error)
        if self._file is not None:
            self._sink._writer.discard(self._file)
        done(reply_to(error))

    def _let_go(self) -> None:
        self._sink._writer.held -= self._held
        self._held = 0
        self._chunks = []


class _BodyFile(FileDelivery):
    """A large body on its way to its place. path, size: known when it is written."""

    __slots__ = ("_name", "path", "size")

    def __init__(self, writer: Writer, health: Health, folder: Folder, drained: Callable[[], None], name: str) -> None:
        super().__init__(writer, health, (Copy(folder, b"", 0),), drained, is_lmtp=False)
        self._name = name
        self.path = f"{folder.target}/{name}"
        self.size = 0

    def tmp_name(self) -> str:
        return self._name

    def name(self, size: int, wire_size: int) -> str:
        self.size = size
        return self._name


def queue_entry(envelope: Envelope, destinations: Sequence[Destination], body: BytesBody | FileBody) -> Entry:
    """What the queue keeps of an envelope. Who is reached by several ways gets the message once."""
    parameters = {id(each): _onward(one) for one in envelope.recipients for each in one.route.destinations}
    found: dict[tuple[Address, str], Destination] = {}
    for destination in destinations:
        found.setdefault((_address(destination), destination.route), destination)
    due_at = envelope.release_at or envelope.received_at
    message = QueuedMessage(
        queue_id=envelope.queue_id,
        reverse_path=envelope.reverse_path,
        received_at=envelope.received_at,
        body=body,
        body_type=envelope.body,
        is_utf8=envelope.is_utf8,
        parameters=envelope.parameters,
        user=envelope.user,
        listener=envelope.listener,
        peer=str(envelope.peer),
    )
    return message, [
        QueuedRecipient(
            number,
            address,
            route,
            parameters=parameters.get(id(destination), NO_PARAMETERS),
            next_attempt=due_at,
            accepted_as=_accepted_as(destination, address),
        )
        for number, ((address, route), destination) in enumerate(found.items())
    ]


def _accepted_as(destination: Destination, address: Address) -> str:
    named = destination.recipient.text
    return named if named != address.text else ""


def _onward(recipient: Recipient) -> Mapping[str, str]:
    """The parameters of RCPT that go along. Of success behind an address with several places nobody hears more than
    that it was expanded (RFC 3461 §5.2.7.2)."""
    parameters = recipient.parameters
    if len(recipient.route.destinations) < 2 or "SUCCESS" not in parameters.get("NOTIFY", "").upper():
        return parameters
    rest = [word for word in parameters["NOTIFY"].upper().split(",") if word != "SUCCESS"]
    return {**parameters, "NOTIFY": ",".join(rest) or "NEVER"}


def _address(destination: Destination) -> Address:
    """The recipient as the client wrote it, unless an alias led elsewhere."""
    named, name, subaddress = destination.recipient, destination.mailbox, destination.subaddress
    is_its_own = named.local_part == name or (
        subaddress != ""
        and named.local_part.startswith(name)
        and named.local_part.endswith(subaddress)
        and len(named.local_part) == len(name) + 1 + len(subaddress)
    )
    if is_its_own and named.domain == destination.domain:
        return named
    return mailbox(name, destination.domain)
