"""What the queue costs by itself: messages a second through its verbs, and how it stands 100,000 of them.

    python bench/queue_store.py --directory var/bench [--messages 100000] [--size 4096] [--group 20]

One process, no network: put in groups, start again over the full queue, look for one domain, count memory, claim and
settle until it is empty. The promises are: start under 3 s, one domain under 0.3 s, memory under 150 MB.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smtpmaild import queue_id
from smtpmaild.queue import BY_MX, Entry, Query, QueuedMessage, QueuedRecipient, Room, Settlement, State
from smtpmaild.queue.body import BytesBody
from smtpmaild.queue.sqlite import SqliteQueue, prepare
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import Reply

SENDER = Address("a", "x.test", "a@x.test")
OK = Reply(250, "2.0.0", "Ok")
DOMAINS = 1000


class Log:
    """Nothing to say."""

    def info(self, event: str, /, **facts: object) -> object:
        """Say nothing."""
        return None

    warning = error = exception = info


@contextmanager
def timed(what: str, count: int = 0) -> Iterator[None]:
    """Print how long a part took."""
    began, cpu = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    rate = f"  {count / seconds:9,.0f}/s  {1000 * cpu / count:.3f} ms CPU each" if count else ""
    print(f"{what:32} {seconds:8.3f} s{rate}", flush=True)


def message(number: int, size: int, now: float) -> Entry:
    """One of many, to one of DOMAINS."""
    domain = f"d{number % DOMAINS}.test"
    recipient = QueuedRecipient(0, Address("user", domain, f"user@{domain}"), BY_MX, next_attempt=now)
    body = (b"Subject: bench\r\n\r\n" + b"0123456789abcdef" * (size // 16))[:size]
    return QueuedMessage(queue_id.make(), SENDER, now, BytesBody(body), listener="mx", peer="192.0.2.1:1"), [recipient]


def fill(queue: SqliteQueue, count: int, size: int, group: int) -> None:
    """Put them in groups, as group commit does."""
    now = time.time()
    for first in range(0, count, group):
        queue.put([message(number, size, now) for number in range(first, min(first + group, count))])


def empty(queue: SqliteQueue, group: int) -> int:
    """Claim and settle until nothing is left; how many."""
    done = 0
    room = Room(other=group)
    while True:
        now = time.time()
        claims = queue.claim(now, now + 600, group, room)
        if not claims:
            return done
        queue.settle([(one, [Settlement(0, State.DELIVERED, OK, "mx", now)]) for one in claims])
        done += len(claims)


def full_start(directory: str) -> None:
    """Start over a full queue, in a process of its own: time, the search, memory."""
    with timed("prepare"):
        prepare(directory, Log())
    queue = SqliteQueue(directory, Log())
    with timed("open, first claim"):
        queue.open()
        now = time.time()
        assert len(queue.claim(now, now + 600, 100, Room())) == 100
    with timed("find one domain"):
        found = sum(1 for _ in queue.find(Query(domain="d7.test")))
    print(f"{'messages of it':32} {found:8}")
    with timed("find all, 1 by 1"):
        found = sum(1 for _ in queue.find(Query()))
    print(f"{'peak memory':32} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:8} MiB")
    queue.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--group", type=int, default=20)
    parser.add_argument("--full-start", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.full_start:
        full_start(options.directory)
        return
    directory = Path(options.directory) / "queue"
    shutil.rmtree(directory, ignore_errors=True)
    prepare(str(directory), Log())
    queue = SqliteQueue(str(directory), Log())
    queue.open()
    few = options.messages // 10
    with timed("put, empty queue", few):
        fill(queue, few, options.size, options.group)
    with timed("put, the rest", options.messages - few):
        fill(queue, options.messages - few, options.size, options.group)
    with timed("put, full queue", few):
        fill(queue, few, options.size, options.group)
    queue.close()
    subprocess.run([sys.executable, __file__, "--directory", str(directory), "--full-start"], check=True)
    queue.open()
    with timed("claim and settle all", options.messages + few):
        empty(queue, options.group)
    with timed("put, emptied queue", few):
        fill(queue, few, options.size, options.group)
    queue.close()
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
