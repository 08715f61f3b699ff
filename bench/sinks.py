"""What the stores cost without SMTP in front of them: messages a second and CPU milliseconds a message.

    python bench/sinks.py --directory var/bench [--sinks maildir,spool,discard] [--in-flight 1,20,100] [--seconds 3]

An event loop keeps so many messages in flight through begin, write and commit; with --busy it also spends so many
microseconds of Python and a socket round trip on each, as a server would: writer threads then have to share the GIL
with it, and that is how they run. CPU is that of the whole process, user and system, less what --busy alone costs.

Every run gets a fresh directory and nothing is deleted: ext4 does not reuse an inode freed in the last minutes and
walks over all of them at each create, so a run behind a mass deletion measures the deletion. Remove --directory when
done with measuring.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from smtpmaild import queue_id, trace
from smtpmaild.envelope import Destination, Envelope, Peer, Recipient, Route, Rule
from smtpmaild.sink import Outcome, Sink
from smtpmaild.sink.builtin import SinkOptions, build
from smtpmaild.sink.options import DiscardOptions, MaildirOptions, SpoolOptions
from smtpmaild.sink.writer import Writer
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply

READ = 64 * 1024
LINE = b"The quick brown fox jumps over the lazy dog, again and again.\r\n"
RECIPIENT = Address("user", "example.com", "user@example.com")
DESTINATION = Destination("mail", "example.com", "user", "", RECIPIENT)
ACCEPTED = [Recipient(RECIPIENT, Route(Rule("local"), RECIPIENT_OK, (DESTINATION,)))]
SENDER = Address("a", "x.test", "a@x.test")
PEER = Peer("192.0.2.1", 40000)


class Log:
    """Prints what goes wrong: a benchmark of refusals would be fast."""

    def error(self, event: str, /, **facts: object) -> object:
        """Show it."""
        return print(event, facts, file=sys.stderr)

    info = warning = exception = error


class Load:
    """Keeps `in_flight` messages going through a sink until told to stop."""

    def __init__(self, sink: Sink, body: bytes, busy: float) -> None:
        self.stored = 0
        self.refused = 0
        self._sink = sink
        self._body = body
        self._busy = busy
        self._is_over = False
        self._running = 0
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._near, self._far = socket.socketpair()

    async def run(self, in_flight: int, seconds: float) -> float:
        """The seconds it took."""
        began = time.monotonic()
        self._loop.call_later(seconds, self._stop)
        self._running = in_flight
        for _ in range(in_flight):
            self._loop.call_soon(self._next)
        await self._ended
        return time.monotonic() - began

    def _stop(self) -> None:
        self._is_over = True

    def _next(self) -> None:
        if self._is_over:
            self._running -= 1
            if not self._running:
                self._ended.set_result(None)
            return
        if self._busy:
            self._be_busy()
        envelope = Envelope(
            queue_id.make(), "S", "mx", "mx.example.com", PEER, "x.test", "ESMTP", time.time(), SENDER,
            recipients=ACCEPTED,
        )  # fmt: skip
        delivery = self._sink.begin(envelope, (DESTINATION,), _nothing)
        delivery.write(trace.received(envelope))
        for start in range(0, len(self._body), READ):  # as a socket gives it; back-pressure is not what we measure
            delivery.write(self._body[start : start + READ])
        delivery.commit(self._done)

    def _be_busy(self) -> None:
        end = time.perf_counter() + self._busy / 2
        while time.perf_counter() < end:
            pass
        self._near.send(b"250")
        self._far.recv(10)
        end = time.perf_counter() + self._busy / 2
        while time.perf_counter() < end:
            pass

    def _done(self, outcome: Outcome) -> None:
        if isinstance(outcome, Reply) and outcome.is_positive:
            self.stored += 1
        else:
            self.refused += 1
        self._loop.call_soon(self._next)


def _nothing() -> None: ...


async def measure(options: SinkOptions, in_flight: int, seconds: float, size: int, busy: float) -> tuple[float, float]:
    """Messages a second, and CPU milliseconds a message."""
    writer = Writer(Log())
    sink = build(options, writer)
    sink.prepare()
    sink.start(asyncio.get_running_loop().call_soon_threadsafe)
    load = Load(sink, (LINE * (size // len(LINE) + 1))[:size], busy)
    cpu = time.process_time()
    took = await load.run(in_flight, seconds)
    sink.stop()
    cpu = time.process_time() - cpu
    if load.refused:
        sys.exit(f"{load.refused} messages were refused")
    return load.stored / took, cpu * 1000 / load.stored


def main() -> None:
    """One line a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", default="var/bench", type=Path)
    parser.add_argument("--sinks", default="maildir,spool,discard")
    parser.add_argument("--in-flight", default="1,20,100")
    parser.add_argument("--seconds", default=3.0, type=float)
    parser.add_argument("--size", default=4096, type=int)
    parser.add_argument("--busy", default=0.0, type=float, help="microseconds of Python beside each message")
    arguments = parser.parse_args()
    base: Path = arguments.directory.resolve()
    base.mkdir(parents=True, exist_ok=True)
    # ext4: put each run into a block group of its own, away from inodes freed in an earlier one.
    subprocess.run(["chattr", "+T", str(base)], stderr=subprocess.DEVNULL, check=False)
    kinds: dict[str, Callable[[str], SinkOptions]] = {
        "maildir": lambda path: MaildirOptions(type="maildir", path=f"{path}/{{domain}}/{{mailbox}}"),
        "spool": lambda path: SpoolOptions(type="spool", path=path),
        "discard": lambda _: DiscardOptions(type="discard"),
    }
    busy = arguments.busy / 1e6
    print(f"{'sink':8} {'in flight':>9} {'msgs/s':>8} {'CPU ms/message':>15}")
    for in_flight in map(int, arguments.in_flight.split(",")):
        idle = 0.0
        if busy:
            idle = uvloop.run(measure(kinds["discard"](""), in_flight, arguments.seconds, arguments.size, busy))[1]
        for name in arguments.sinks.split(","):
            os.sync()
            options = kinds[name](f"{base}/{name}.{time.time_ns():x}")
            rate, cpu = uvloop.run(measure(options, in_flight, arguments.seconds, arguments.size, busy))
            print(f"{name:8} {in_flight:9} {rate:8.0f} {cpu - idle:15.3f}", flush=True)


if __name__ == "__main__":
    main()
