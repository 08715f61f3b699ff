"""A server on a Unix socket that says what a test wants, in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

EHLO = b"250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n"


@dataclass
class Scripted:
    """replies: what it says to a line that begins so, b"" to hang up, None to say nothing; else 250.

    said: the lines that came.  message: between DATA and the dot.
    """

    replies: Mapping[str, bytes | None] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    message: bytes = b""

    def reply(self, line: str) -> bytes | None:
        self.said.append(line)
        found = [said for start, said in self.replies.items() if line.startswith(start)]
        return found[0] if found else {"EHLO": EHLO, "DATA": b"354 \r\n"}.get(line[:4], b"250 2.0.0 Ok\r\n")

    def serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as lines:
            reply = self.reply("greeting") if "greeting" in self.replies else b"220 mx.example\r\n"
            while reply is None or reply:
                sock.sendall(reply or b"")
                if reply == b"354 \r\n":
                    for line in iter(lines.readline, b".\r\n"):
                        self.message += line
                    reply = self.reply("end of data")
                    continue
                line = lines.readline()
                if not line:
                    return
                reply = self.reply(line.decode().rstrip())


@contextmanager
def serving(folder: Path, server: Scripted) -> Iterator[str]:
    """The path of its socket; every connection is served in turn."""
    path = str(folder / "s.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def accept() -> None:
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    return
                try:
                    server.serve(sock)
                except OSError:
                    pass  # the client has gone

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
