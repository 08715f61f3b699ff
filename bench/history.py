"""What the history costs: `bench/history.py cost` in this process, `search` over 100,000 messages, `load` on a daemon.

cost: the journal of a session with one message, told to a log that keeps nothing, with the Recorder before it and
without; then the thread's part, per message. load: messages a second and CPU of one worker and all beside it, by
turns: nothing on, the history, and all of history, metrics and a page that somebody looks at. A page costs by the
second, so bursts are long.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import HOST, Shape
from servers import SHARED_MAILDIR, Server, always, free_port, smtpmaild, started
from turns import show, take_turns

from smtpmaild.content import Content
from smtpmaild.envelope import Destination, Envelope, Peer, Recipient, Route, Rule, Session, Transaction
from smtpmaild.facts import Remember
from smtpmaild.history import Settings
from smtpmaild.history.events import CHUNK_EVENTS, Chunk, Told, chunk_of
from smtpmaild.history.reading import Reading
from smtpmaild.history.recorder import History, Recorder
from smtpmaild.history.store import Store
from smtpmaild.journal import Journal
from smtpmaild.metrics import Metrics
from smtpmaild.queue_id import make
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply

HEADER = (
    b"Received: from client.example.net by relay.example.net; Sun, 22 Nov 2026 20:31:04 +0000\r\n" * 8
    + b"From: Sender <sender@example.net>\r\nTo: user@example.com\r\nDate: Sun, 22 Nov 2026 20:31:04 +0000\r\n"
    + b"X-Spam-Status: No, score=-1.9 required=5.0 tests=BAYES_00,DKIM_SIGNED,DKIM_VALID autolearn=ham\r\n" * 8
    + b"Message-ID: <20261122203104.abcdef@client.example.net>\r\nSubject: A subject of usual length\r\n\r\n"
)


#: Seconds after which the thread has written what was told.
WRITTEN_AFTER = 0.7


class Silent:
    """A log that is set to a higher level."""

    def info(self, event: str, /, **facts: object) -> object:
        return None

    warning = error = exception = info


class Sessions:
    """Makes what a journal is told of: one client, sender and recipient each, of many."""

    def __init__(self, people: int = 20_000) -> None:
        self.chance = random.Random(1)
        self.people = people

    def address(self, domain: str) -> Address:
        name = f"user{self.chance.randrange(self.people)}"
        return Address(name, domain, f"{name}@{domain}")

    def one(self) -> tuple[Session, Transaction, Reply]:
        peer = Peer(f"192.0.{self.chance.randrange(256)}.{self.chance.randrange(256)}", 40000)
        session = Session(make(), "mx", "mx.example.com", peer, "client.example.net")
        to = self.address("example.com")
        destination = Destination("mail", "example.com", to.local_part, "", to)
        route = Route(Rule("local_domains.example.com", "smtp.yaml:9"), RECIPIENT_OK, (destination,))
        envelope = Envelope(
            make(), session.session_id, "mx", "mx.example.com", peer, session.hello, "ESMTP", time.time(),
            self.address("example.net"), recipients=[Recipient(to, route)],
        )  # fmt: skip
        return session, Transaction(session, envelope), Reply(250, "2.0.0", f"Ok: queued as {envelope.queue_id}")


def told_of(log: Silent, count: int, record: Remember | None = None) -> float:
    """CPU seconds of this thread for the journals of so many sessions."""
    content, metrics = Content(keep_body=False), Metrics()
    content.write(HEADER)
    made = Sessions()
    sessions = [made.one() for _ in range(count)]
    began = time.thread_time()
    for session, transaction, reply in sessions:
        journal = Journal(session, log, metrics, 0.0, record)
        journal.concluded(transaction, reply, content, 4096, ())
        journal.closed("", ())
    return time.thread_time() - began


def kept(count: int) -> list[Told]:
    """What a history would keep."""
    told: list[Told] = []
    told_of(Silent(), count, lambda event, facts, trace: told.append((time.time(), event, facts, trace)))
    return told


def chunks_of(told: list[Told]) -> list[Chunk]:
    made = [chunk_of(told[at : at + CHUNK_EVENTS])[0] for at in range(0, len(told), CHUNK_EVENTS)]
    return [chunk for chunk in made if chunk is not None]


def cost(folder: Path, count: int = 20_000) -> None:
    def microseconds(seconds: float) -> str:
        return f"{seconds / count * 1e6:5.1f} us a message"

    # By turns, and the best of each: whoever else is at work on the machine only makes it slower.
    few, runs_off, runs_on = count // 10, [], []
    for _ in range(20):
        runs_off.append(told_of(Silent(), few))
        history = History(Settings(str(folder / "loop.sqlite"), 1e9, 10**9), Silent())
        history.start(asyncio.new_event_loop())
        runs_on.append(told_of(Silent(), few, Recorder(Silent(), history).record))
        asyncio.run(history.stop())
    off, on = 10 * min(runs_off), 10 * min(runs_on)
    told = kept(count)
    parts: dict[str, Callable[[], object]] = {"of it chunks": lambda: chunks_of(told)}
    store, chunks = Store(Settings(str(folder / "cost.sqlite"), 1e9, 10**9), print), chunks_of(told)

    def write() -> None:
        for at in range(0, len(chunks), 64):
            store.append(chunks[at : at + 64])

    parts["thread"] = write
    print(f"in the loop   {microseconds(on - off)} (journal without history: {microseconds(off).strip()})")
    for name, part in parts.items():
        runs = []
        for _ in range(5):
            began = time.process_time()
            part()
            runs.append(time.process_time() - began)
        print(f"{name:13} {microseconds(min(runs))}")
    print(f"on disk       {Path(folder / 'cost.sqlite').stat().st_size / 5 / count:5.0f} bytes a message")


def search(folder: Path, count: int = 100_000) -> None:
    path = str(folder / "search.sqlite")
    store, told = Store(Settings(path, 1e9, 10**9), print), kept(count)
    for at in range(0, len(told), 500):
        store.append(chunks_of(told[at : at + 500]))
    wanted: Any = told[2 * (count // 3)][2]  # a message; its session follows
    with Reading(path) as reading:
        questions: dict[str, Callable[[], object]] = {
            "by queue id": lambda: [*reading.named(wanted["queue_id"])],
            "by sender": lambda: [*reading.named(wanted["reverse_path"])],
            "text, rare": lambda: reading.search(wanted["queue_id"].lower(), 200),
            "text, never": lambda: reading.search("nothing like this", 200),
            "text, common": lambda: reading.search("example.net", 200),
            "latest 200": lambda: reading.latest(200),
            "since": lambda: reading.since(reading.cursor() - 100),
        }
        for name, ask in questions.items():
            runs = []
            for _ in range(5):
                began = time.perf_counter()
                ask()
                runs.append(time.perf_counter() - began)
            print(f"{name:13} {statistics.median(runs) * 1000:6.1f} ms")


def server(name: str, store: str, more: str) -> Server:
    def prepare(folder: Path, port: int) -> list[str]:
        command = smtpmaild(store, "1")(folder, port)
        with (folder / "smtp.yaml").open("a") as config:
            config.write(more)
        return command

    return Server(name, "", always, prepare, None)


def watch(port: int, stopping: threading.Event) -> None:
    """Somebody has the page open, and Prometheus comes by every five seconds."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/api/events", timeout=30) as live:
        asked_at = 0.0
        while not stopping.is_set():
            live.readline()
            if time.monotonic() - asked_at > 5:
                asked_at = time.monotonic()
                urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=30).read()


def load(folder: Path, rounds: int, messages: int, store: str) -> None:
    """All servers are there all the time."""
    page = free_port()
    history = "history: {path: history.sqlite}\n"
    status = f"status: {{listen: '{HOST}:{page}'}}\n"
    kinds = {"off": "", "history": history, "all": history + status}
    shapes = {"a session each": Shape(20, 4096, False), "kept sessions": Shape(20, 4096, True)}
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(started(server(name, store, more), folder / name)) for name, more in kinds.items()
        }
        stopping = threading.Event()
        watcher = threading.Thread(target=watch, args=(page, stopping), daemon=True)
        watcher.start()
        for title, shape in shapes.items():
            print(title)
            show(take_turns(running, shape, rounds, messages, WRITTEN_AFTER))
        stopping.set()
        watcher.join(10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="cost|search|load")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--messages", type=int, default=4_000, help="of a burst, which should take a second")
    parser.add_argument("--store", default=SHARED_MAILDIR, help="of deliver_to, for load")
    wanted = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="history-"))
    try:
        runs: dict[str, Callable[[], object]] = {
            "cost": lambda: cost(folder),
            "search": lambda: search(folder),
            "load": lambda: load(folder, wanted.rounds, wanted.messages, wanted.store),
        }
        for what in wanted.what or ("cost", "search"):
            print(f"\n{what}")
            runs[what]()
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
