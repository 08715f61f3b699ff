"""Asks a listener for its banner, as a client would."""

from __future__ import annotations

import socket
from typing import IO

from smtpmaild.smtp.reply import printable

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a listener on every address is reached


def probe(address: str, timeout: float) -> str:
    """The first line that a listener on "host:port", "[::]:port" or "/path.sock" says, or why there is none."""
    try:
        with _connect(address, timeout) as sock, sock.makefile("rb") as replies:
            line = printable(replies.readline(512).decode("ascii", "replace").rstrip())
            _say_goodbye(sock, replies)
    except OSError as error:
        return error.strerror or str(error)
    return line or "closed without a banner"


def _say_goodbye(sock: socket.socket, replies: IO[bytes]) -> None:
    """Wait for the reply as well, so that the daemon logs no lost connection."""
    try:
        sock.sendall(b"QUIT\r\n")
        replies.readline(512)
    except OSError:
        pass  # one that refuses us may be gone already; what it said counts


def _connect(address: str, timeout: float) -> socket.socket:
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(timeout)
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return socket.create_connection((_ANYWHERE.get(host, host), int(port)), timeout)
