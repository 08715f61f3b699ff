"""Maildir: a file per message and mailbox, for every reader of Maildirs (https://cr.yp.to/proto/maildir.html).

Line ends become LF, as all readers expect, and nothing else changes. A message that came with BODY=BINARYMIME keeps
its bytes as they came: there CRLF may be data.

States of a message (the steps and their order: writer.py):

| state                       | what a crash leaves            | who cleans it up                          |
|-----------------------------|--------------------------------|-------------------------------------------|
| in memory                   | nothing                        | nobody                                    |
| in tmp/, arriving or staged | a file in tmp/                 | prepare(), or a reader, after tmp_max_age |
| in new/ of some mailboxes   | good mail that may come again  | nobody: the client had no 250             |
| in new/ of all, synced      | the message                    | nobody: it is delivered                   |

File names are unique per host, process, time and counter and are never read back by us. ",S=" is the size of the file,
",W=" its size with CRLF line ends, so that Dovecot need not open it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence

from smtpmaild import trace
from smtpmaild.envelope import BodyType, Destination, Envelope
from smtpmaild.sink import Delivery
from smtpmaild.sink.delivery import Copy, FileDelivery
from smtpmaild.sink.files import FileSink
from smtpmaild.sink.options import MaildirOptions
from smtpmaild.sink.writer import Health, Writer

_counter = itertools.count(int.from_bytes(os.urandom(2), "big"))


class MaildirSink(FileSink):
    """The Maildirs of one entry of deliver_to."""

    def __init__(self, options: MaildirOptions, writer: Writer) -> None:
        super().__init__(options, options.path, writer, subdirectories=("tmp", "new", "cur"))
        self._delivered_to = options.delivered_to

    def target(self, path: str) -> str:
        return f"{path}/new"

    def begin(self, envelope: Envelope, destinations: Sequence[Destination], drained: Callable[[], None]) -> Delivery:
        """One copy for each mailbox, however many recipients lead into it: the first names it in Delivered-To."""
        return_path = trace.return_path(envelope)
        copies: dict[str, Copy] = {}
        for place, destination in enumerate(destinations):
            folder = self.folder(destination)
            if folder.path in copies:
                copies[folder.path].places.append(place)
                continue
            head = return_path
            if self._delivered_to:
                head += trace.delivered_to(_forward_path(destination))
            copies[folder.path] = Copy(folder, head, place)
        kind = _ExactDelivery if envelope.body is BodyType.BINARY_MIME else _TextDelivery
        return kind(self._writer, self._health, tuple(copies.values()), drained, is_lmtp=envelope.is_lmtp)


def _forward_path(destination: Destination) -> str:
    # <postmaster> comes without a domain (RFC 5321 §4.5.1); readers of Delivered-To expect one.
    recipient = destination.recipient
    return recipient.text if recipient.domain else f"{recipient.text}@{destination.domain}"


def _host() -> str:
    # https://cr.yp.to/proto/maildir.html: "To deal with invalid host names, replace / with \057 and : with \072."
    return os.uname().nodename.replace("/", "\\057").replace(":", "\\072").replace(",", "\\054") or "localhost"


_HOST = _host()


def _unique() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{seconds}.M{nanoseconds // 1000:06}P{os.getpid()}Q{next(_counter)}.{_HOST}"


class _ExactDelivery(FileDelivery):
    """BODY=BINARYMIME: the bytes as they came. No ",W=": lines are not what such a message is made of."""

    __slots__ = ()

    def tmp_name(self) -> str:
        return _unique()

    def name(self, size: int, wire_size: int) -> str:
        return f"{_unique()},S={size}"


class _TextDelivery(FileDelivery):
    """Lines: CRLF is stored as LF."""

    __slots__ = ("_carriage_return", "_is_clean")

    def __init__(
        self, writer: Writer, health: Health, copies: Sequence[Copy], drained: Callable[[], None], *, is_lmtp: bool
    ) -> None:
        super().__init__(writer, health, copies, drained, is_lmtp=is_lmtp)
        self._carriage_return = b""  # a CR at the end of a block: the LF may stand in the next one
        self._is_clean = True  # no CR and no LF but in CRLF

    def encode(self, data: bytes) -> bytes:
        # Two replacements of one byte and a comparison take 2 us for 4 KiB of text, replace(b"\r\n", b"\n") takes 8.
        lines = data.replace(b"\r", b"")
        if lines.replace(b"\n", b"\r\n") == data:
            return lines
        self._is_clean = False
        return data.replace(b"\r\n", b"\n")

    def encode_block(self, data: bytes, *, is_last: bool) -> bytes:
        data = self._carriage_return + data
        self._carriage_return = b""
        if not is_last and data.endswith(b"\r"):
            data, self._carriage_return = data[:-1], b"\r"
        return self.encode(data)

    def tmp_name(self) -> str:
        return _unique()

    def name(self, size: int, wire_size: int) -> str:
        # Of lines with other ends each reader makes something else: let it count them itself.
        return f"{_unique()},S={size},W={wire_size}" if self._is_clean else f"{_unique()},S={size}"
