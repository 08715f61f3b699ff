"""Spool directory: messages for other programs to take, as the pair `<queue id>.eml` and `<queue id>.json`.

The `.eml` is the message byte by byte, CRLF line ends, behind Return-Path, Delivered-To (only where there is exactly
one recipient) and Received. The `.json` is its envelope. Who sees a `.json` may take the pair: the `.eml` is there,
whole and durable. A taker removes the `.json` first, then the `.eml`.

States of a message (the steps and their order: writer.py):

| state                        | what a crash leaves                     | who cleans it up                         |
|------------------------------|-----------------------------------------|------------------------------------------|
| in memory                    | nothing                                 | nobody                                   |
| one or both files in tmp/    | files in tmp/                           | prepare(), after tmp_max_age             |
| `.eml` renamed, maybe synced | a `.eml` without `.json`, `.json` in tmp/ | nobody reads it; the operator: we delete |
|                              |                                         | nothing that could be a taker's mail     |
| `.json` renamed              | a pair that may come again              | nobody: the client had no 250            |
| synced                       | the pair                                | the program that takes it                |

The `.json`, version 1. Keys are only ever added:

    {"version": 1, "queue_id": "06A9...", "session_id": "...", "received_at": "2026-11-22T14:45:19.123456Z",
     "reverse_path": "a@x.example",            # "" for the null sender
     "recipients": [{"address": "b@y.example", "rule": "...", "domain": "y.example", "mailbox": "b",
                     "subaddress": "", "parameters": {}}],
     "peer": "192.0.2.1", "client_name": "", "user": "", "hello": "x.example", "protocol": "ESMTP",
     "listener": "mx", "body": "7BIT", "smtputf8": false, "size": 1234}     # size: bytes of the .eml
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from smtpmaild import trace
from smtpmaild.envelope import NO_PARAMETERS, Destination, Envelope
from smtpmaild.sink import Delivery
from smtpmaild.sink.delivery import Copy, FileDelivery
from smtpmaild.sink.files import FileSink
from smtpmaild.sink.options import SpoolOptions
from smtpmaild.sink.writer import Health, Writer


class SpoolSink(FileSink):
    """The spool directory, or one for each domain, of one entry of deliver_to."""

    def __init__(self, options: SpoolOptions, writer: Writer) -> None:
        super().__init__(options, options.path, writer, subdirectories=("tmp",))

    def target(self, path: str) -> str:
        return path

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Delivery:
        """One pair for each directory, with all recipients that lead there."""
        head = trace.return_path(envelope)
        if len(destinations) == 1:
            head += trace.delivered_to(destinations[0].recipient.text)
        copies: dict[str, Copy] = {}
        for place, destination in enumerate(destinations):
            folder = self.folder(destination)
            if folder.path in copies:
                copies[folder.path].places.append(place)
            else:
                copies[folder.path] = Copy(folder, head, place)
        return _PairDelivery(self._writer, self._health, tuple(copies.values()), drained, envelope, destinations)


class _PairDelivery(FileDelivery):
    """The message and its envelope."""

    __slots__ = ("_destinations", "_envelope", "_size")

    def __init__(
        self,
        writer: Writer,
        health: Health,
        copies: Sequence[Copy],
        drained: Callable[[], None],
        envelope: Envelope,
        destinations: Sequence[Destination],
    ) -> None:
        super().__init__(writer, health, copies, drained, is_lmtp=envelope.is_lmtp)
        self._envelope = envelope
        self._destinations = destinations
        self._size = 0

    def tmp_name(self) -> str:
        return f"{self._envelope.queue_id}.eml"

    def name(self, size: int, wire_size: int) -> str:
        self._size = size
        return f"{self._envelope.queue_id}.eml"

    def stage_more(self, copy: Copy) -> None:
        recipients = [self._destinations[place] for place in copy.places]
        self.create_last(copy, f"{self._envelope.queue_id}.json", _as_json(self._envelope, recipients, self._size))


def _as_json(envelope: Envelope, destinations: Sequence[Destination], size: int) -> bytes:
    accepted = {destination: each for each in envelope.recipients for destination in each.route.destinations}
    recipients = []
    for destination in destinations:
        recipient = accepted.get(destination)
        recipients.append(
            {
                "address": destination.recipient.text,
                "rule": recipient.route.rule.name if recipient else "",
                "domain": destination.domain,
                "mailbox": destination.mailbox,
                "subaddress": destination.subaddress,
                "parameters": dict(recipient.parameters if recipient else NO_PARAMETERS),
            }
        )
    received_at = datetime.fromtimestamp(envelope.received_at, UTC)
    record = {
        "version": 1,
        "queue_id": envelope.queue_id,
        "session_id": envelope.session_id,
        "received_at": received_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reverse_path": envelope.reverse_path.text,
        "recipients": recipients,
        "peer": envelope.peer.host,
        "client_name": envelope.client_name,
        "user": envelope.user,
        "hello": envelope.hello,
        "protocol": envelope.protocol,
        "listener": envelope.listener,
        "body": envelope.body.value,
        "smtputf8": envelope.is_utf8,
        "size": size,
    }
    return json.dumps(record).encode("ascii") + b"\n"
