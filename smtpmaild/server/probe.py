"""Asks a listener for its banner, as a client would, or as a balancer in front of it does."""

from __future__ import annotations

import socket
import ssl
from typing import IO

from smtpmaild.smtp.reply import printable

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a listener on every address is reached


# What a proxy's own check says before anything else.
_PROXY_CHECK = b"PROXY UNKNOWN\r\n"


def probe(address: str, timeout: float, *, as_proxy: bool = False, encrypted: bool = False) -> str:
    """The first line that a listener on "host:port", "[::]:port" or "/path.sock" says, or why there is none.

    as_proxy: it wants to be told of a client first.  encrypted: it speaks TLS from the first byte on, and whose
    certificate it has is not asked: it is our own.
    """
    try:
        with _opened(_connect(address, timeout), as_proxy, encrypted) as sock, sock.makefile("rb") as replies:
            line = printable(replies.readline(512).decode("ascii", "replace").rstrip())
            _say_goodbye(sock, replies)
    except OSError as error:
        return error.strerror or str(error)
    return line or "closed without a banner"


def _opened(sock: socket.socket, as_proxy: bool, encrypted: bool) -> socket.socket:
    try:
        if as_proxy:
            sock.sendall(_PROXY_CHECK)
        if not encrypted:
            return sock
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(sock)
    except BaseException:
        sock.close()
        raise


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
