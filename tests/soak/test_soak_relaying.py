"""kill -9 while mail comes in and travels on through a next hop that fails: nothing acknowledged is lost.

Each message is acknowledged once by us and at least once by the next hop. It comes there twice only where a kill, or a
connection that it dropped after its own 250, left open whether it has it.
"""

from __future__ import annotations

import random
import re
import socketserver
import threading
import time
from collections import Counter
from pathlib import Path
from typing import BinaryIO, Self

import pytest
from real_daemon import Client, RealDaemon, is_alive, scaled, until

from smtpmaild.queue import Query
from smtpmaild.queue.shards import Shards

pytestmark = pytest.mark.soak

_CONFIG = """\
hostname: mx.example.com
listeners: [{{name: mx, listen: ["127.0.0.1:0"]}}]
relay_rules: [{{name: on, to_domains: [far.example], relay: hop}}]
relays: {{hop: {{host: 127.0.0.1, port: {port}}}}}
queue: {{path: "{disk}/queue", retry_first: 100ms, retry_longest: 1s, min_free: {min_free}}}
limits: {{connections_per_ip: 0}}
timeouts: {{drain: 5s}}
logging: {{level: info, format: json}}
workers: {workers}
"""


class FlakyHop:
    """A next hop: one in five messages is deferred, some connections are dropped, before its 250 and behind it.

    taken: how often each number was acknowledged.  unsure: how often a connection was dropped behind a 250.
    """

    def __init__(self) -> None:
        self.taken: Counter[int] = Counter()
        self.unsure = 0
        self._lock = threading.Lock()
        hop = self

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    hop._serve(self.rfile, self.wfile)  # type: ignore[arg-type]
                except OSError:
                    pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Session)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, source: BinaryIO, target: BinaryIO) -> None:
        dice = random.Random()

        def say(text: str) -> None:
            target.write(text.encode() + b"\r\n")
            target.flush()

        say("220 hop.example")
        while line := source.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                say("354 go on")
                if not self._take(source, dice, say):
                    return
            elif verb == b"RCPT" and dice.random() < 0.1:
                say("450 4.2.1 Mailbox busy")
            elif verb == b"QUIT":
                say("221 bye")
                return
            else:
                say("250 hop.example" if verb in (b"EHLO", b"HELO") else "250 2.0.0 Ok")

    def _take(self, source: BinaryIO, dice: random.Random, say: object) -> bool:
        """Read a message; False to drop the connection."""
        lines: list[bytes] = []
        last = dice.randrange(3) if dice.random() < 0.03 else 1_000_000
        while (line := source.readline()) != b".\r\n":
            if not line or len(lines) == last:
                return False
            lines.append(line)
        assert callable(say)
        if dice.random() < 0.1:
            say("451 4.2.0 Later")
            return True
        found = re.search(rb"^X-Number: (\d+)\r\n(?s:.*)end of (\d+)\r\n\Z", b"".join(lines), re.MULTILINE)
        assert found, "a message in part"
        assert found[1] == found[2], "two messages in one"
        is_dropped = dice.random() < 0.01
        with self._lock:
            self.taken[int(found[1])] += 1
            self.unsure += is_dropped
        if not is_dropped:
            say("250 2.0.0 Ok")
        return not is_dropped


class RelayDaemon(RealDaemon):
    def __init__(
        self, root: Path, port: int, workers: int, *, disk: Path | None = None, min_free: str = "100 MB"
    ) -> None:
        super().__init__(root, workers=workers)
        text = _CONFIG.format(root=root, disk=disk or root, port=port, workers=workers, min_free=min_free)
        self._config.write_text(text)


def message_of(number: int) -> bytes:
    size = 90_000 if number % 16 == 7 else 40 * (number % 50)
    lines = [f"X-Number: {number}", "Subject: soak", "", *["x" * 70] * (size // 70), f"end of {number}", ""]
    return "\r\n".join(lines).encode()


class Senders:
    """Clients that send numbered messages until there are enough; over restarts of the daemon."""

    def __init__(self, daemon: RelayDaemon, count: int) -> None:
        self.accepted: set[int] = set()
        self._daemon = daemon
        self._numbers = iter(range(count))
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(6)]
        for thread in self._threads:
            thread.start()

    @property
    def are_at_work(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def wait_for(self, count: int) -> None:
        """Until so many are accepted."""
        until(lambda: len(self.accepted) >= count or not self.are_at_work, f"{count} messages", 60)

    def _next(self) -> int | None:
        with self._lock:
            return next(self._numbers, None)

    def _run(self) -> None:
        number = self._next()
        while number is not None:
            is_begun = False
            try:
                with Client(self._daemon.address) as client:
                    client.greet()
                    while number is not None:
                        is_begun = True
                        reply = client.send_message(message_of(number), ["bob@far.example"])
                        if reply.startswith("250 "):
                            self.accepted.add(number)
                        number = self._next()
            except OSError:
                if is_begun:
                    number = self._next()  # what became of it nobody knows: it does not count
                time.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2])
def test_kills_while_mail_travels_on(tmp_path: Path, workers: int) -> None:
    kills, count = scaled(2, 30), scaled(240, 5000)
    with FlakyHop() as hop:
        daemon = RelayDaemon(tmp_path, hop.port, workers)
        with daemon:
            senders = Senders(daemon, count)
            for turn in range(1, kills + 1):
                senders.wait_for(turn * count // (kills + 2))
                daemon.kill()
                daemon.start()
            until(lambda: not senders.are_at_work, "the end of the load", 120)
            until(lambda: _is_empty(tmp_path), "the end of the queue", 150)
            daemon.assert_no_mistakes()
            assert is_alive(daemon.pid)
    lost = senders.accepted - set(hop.taken)
    twice = sum(times - 1 for times in hop.taken.values())
    assert not lost
    assert len(senders.accepted) > count // 2
    # At a kill each worker has at most so many deliveries in flight as it may have to one destination.
    assert twice <= hop.unsure + kills * workers * 20
    assert not [path for path in (tmp_path / "queue" / "bodies").rglob("*") if path.is_file()] or kills


def _is_empty(root: Path) -> bool:
    class Quiet:
        def info(self, event: str, /, **facts: object) -> object:
            return None

        warning = error = exception = info

    return next(iter(Shards(f"{root}/queue", Quiet()).find(Query(limit=1))), None) is None
