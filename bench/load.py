"""Load for an SMTP server on the loopback interface: many small sessions, idle ones, one large message.

`send` takes Postfix's smtp-source, which is written in C and costs the server little CPU of the machine they share.
Where it is missing this file sends by itself, from threads of a process of its own; then it may well be the limit.
Everything is bounded in count and in time.
"""

from __future__ import annotations

import re
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

HOST = "127.0.0.1"
SENDER, RECIPIENT = "sender@example.net", "user@example.com"
SMTP_SOURCE = shutil.which("smtp-source", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
LONGEST = 120.0
LINE = b"x" * 78 + b"\r\n"
#: The last line of a reply: three digits and a blank (RFC 5321 §4.2.1).
LAST_LINE = re.compile(rb"(?:^|\n)(\d\d\d) [^\n]*\n\Z")


@dataclass(frozen=True)
class Shape:
    """sessions at a time, bytes of a message, and whether a session carries more than one message."""

    sessions: int
    size: int
    is_kept: bool


class Client:
    """One session, a command at a time."""

    def __init__(self, port: int, source: str = HOST) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=30, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.expect(b"220")
        self.say("EHLO client.example.net", b"250")

    def expect(self, code: bytes) -> None:
        reply = b""
        while not (last := LAST_LINE.search(reply)):
            piece = self.socket.recv(4096)
            if not piece:
                raise ConnectionError(f"closed after {reply!r}")
            reply += piece
        if last[1] != code:
            raise ConnectionError(f"answered {reply!r} where {code!r} was expected")

    def say(self, command: str, code: bytes) -> None:
        self.socket.sendall(command.encode() + b"\r\n")
        self.expect(code)

    def send(self, size: int) -> None:
        self.say(f"MAIL FROM:<{SENDER}>", b"250")
        self.say(f"RCPT TO:<{RECIPIENT}>", b"250")
        self.say("DATA", b"354")
        block = LINE * min(size // len(LINE) + 1, 1024)
        for _ in range(max(1, size // len(block))):
            self.socket.sendall(block)
        self.socket.sendall(b".\r\n")
        self.expect(b"250")

    def quit(self) -> None:
        self.say("QUIT", b"221")
        self.socket.close()


def send(port: int, shape: Shape, messages: int) -> float:
    """Send that many messages; the seconds it took. Raises RuntimeError where one was refused."""
    if SMTP_SOURCE is None:
        words = [sys.executable, __file__, str(port), str(shape.sessions), str(shape.size), str(int(shape.is_kept))]
        words.append(str(messages))
    else:
        words = [SMTP_SOURCE, "-s", str(shape.sessions), "-m", str(messages), "-l", str(shape.size)]
        words += ["-f", SENDER, "-t", RECIPIENT, "-M", "client.example.net", *(["-d"] if shape.is_kept else [])]
        words.append(f"inet:{HOST}:{port}")
    started = time.monotonic()
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONGEST, check=False)
    seconds = time.monotonic() - started
    if done.returncode or done.stderr:
        raise RuntimeError(done.stderr.strip()[-300:] or f"the load ended with status {done.returncode}")
    return float(done.stdout) if SMTP_SOURCE is None else seconds


def send_from_threads(port: int, shape: Shape, messages: int) -> float:
    """What smtp-source does, in Python."""
    failures: list[OSError] = []

    def session(share: int) -> None:
        try:
            while share > 0 and not failures:
                client = Client(port)
                for _ in range(share if shape.is_kept else 1):
                    client.send(shape.size)
                    share -= 1
                client.quit()
        except OSError as error:
            failures.append(error)

    shares = [messages // shape.sessions + (turn < messages % shape.sessions) for turn in range(shape.sessions)]
    threads = [threading.Thread(target=session, args=(share,)) for share in shares]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.monotonic() - started


def send_one(port: int, size: int) -> None:
    """One message of that size."""
    client = Client(port)
    client.send(size)
    client.quit()


class IdleSessions:
    """Sessions that said EHLO and then nothing, from several addresses of the loopback network."""

    #: Sessions from one address, and how many are greeted at a time: no more than a listen backlog holds.
    FROM_ONE_ADDRESS = 1000
    AT_A_TIME = 64

    def __init__(self, port: int) -> None:
        self.port = port
        self.sockets: list[socket.socket] = []

    def open(self, count: int) -> None:
        """Raises OSError where the server takes no more of them."""
        until = time.monotonic() + LONGEST
        while len(self.sockets) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"only {len(self.sockets)} sessions within {LONGEST:g} s")
            self._greet([self._connect() for _ in range(min(self.AT_A_TIME, count - len(self.sockets)))])

    def _connect(self) -> socket.socket:
        source = f"127.0.1.{len(self.sockets) // self.FROM_ONE_ADDRESS + 1}"
        connection = socket.create_connection((HOST, self.port), timeout=30, source_address=(source, 0))
        self.sockets.append(connection)
        return connection

    def _greet(self, connections: list[socket.socket]) -> None:
        for code, command in ((b"220", b"EHLO client.example.net\r\n"), (b"250", b"")):
            with selectors.DefaultSelector() as selector:
                for connection in connections:
                    selector.register(connection, selectors.EVENT_READ, b"")
                while selector.get_map():
                    ready = selector.select(30)
                    if not ready:
                        raise TimeoutError(f"{len(self.sockets)} sessions: no answer for 30 s")
                    for key, _ in ready:
                        self._read(selector, key, code)
            for connection in connections:
                connection.sendall(command)

    @staticmethod
    def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey, code: bytes) -> None:
        assert isinstance(key.fileobj, socket.socket)
        piece = key.fileobj.recv(4096)
        reply = key.data + piece
        if not piece:
            raise ConnectionError(f"closed after {reply!r}")
        if last := LAST_LINE.search(reply):
            if last[1] != code:
                raise ConnectionError(f"refused: {reply!r}")
            selector.unregister(key.fileobj)
        else:
            selector.modify(key.fileobj, selectors.EVENT_READ, reply)

    def close(self) -> None:
        for connection in self.sockets:
            connection.close()


if __name__ == "__main__":
    port_, sessions_, size_, is_kept_, messages_ = map(int, sys.argv[1:])
    print(send_from_threads(port_, Shape(sessions_, size_, bool(is_kept_)), messages_))
