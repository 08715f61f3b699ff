"""A client for sessions of the embedding API, in memory or over a socket pair."""

from __future__ import annotations

import asyncio
import socket

from smtpmaild.embedding import Esmtp, Smtp
from smtpmaild.embedding.session import Smtp as AnySession

HOST = "mx.example"
ENVELOPE = ("EHLO client.example", "MAIL FROM:<ann@a.example>", "RCPT TO:<bob@b.example>")
BODY = b"Subject: hi\r\n\r\n..dot\r\nlast line\r\n.\r\n"
MESSAGE = b"Subject: hi\r\n\r\n.dot\r\nlast line\r\n"


class Recorder:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, /, **facts: object) -> None:
        self.facts.append((event, facts))

    warning = error = exception = info

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.facts]


def esmtp(**options: object) -> Esmtp:
    return Esmtp(**{"hostname": HOST, "log": Recorder(), **options})


def smtp(**options: object) -> Smtp:
    return Smtp(**{"hostname": HOST, "log": Recorder(), **options})


class Talk:
    """A session driven by process_once; what is sent and what comes back is text, a reply a line."""

    def __init__(self, session: AnySession, *lines: str) -> None:
        self.session = session
        self.banner = session.banner().decode()
        self.is_closed = False
        for line in lines:
            self(line)

    def __call__(self, line: str) -> str:
        """Send a command; the reply without its last line end."""
        return self.send(line.encode() + b"\r\n")

    def send(self, data: bytes) -> str:
        output, self.is_closed = self.session.process_once(data)
        return output.decode().removesuffix("\r\n")

    def message(self, data: bytes = BODY) -> str:
        assert self("DATA").startswith("354 ")
        return self.send(data)


async def replies_to(session: AnySession, data: bytes, *, seconds: float = 5.0) -> bytes:
    """Everything a session says over a socket to this input, the client's half being closed after it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        serving = asyncio.create_task(session.process(theirs))
        reader, writer = await asyncio.open_connection(sock=ours.dup())
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(seconds):
            output = b""
            await serving
            theirs.shutdown(socket.SHUT_WR)
            output = await reader.read(-1)
            while more := await reader.read(-1):
                output += more
        writer.close()
        await writer.wait_closed()
    return output
