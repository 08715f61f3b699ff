"""Ports for daemons that tests start: below those that the kernel gives to clients, which come and go all the time."""

from __future__ import annotations

import random
import socket

_CHANCE = random.SystemRandom()  # two processes that run tests must not draw alike


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    while True:
        port = _CHANCE.randrange(15_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
