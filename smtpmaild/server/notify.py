"""Tells systemd how we are: sd_notify(3) and the watchdog, without a library.

A datagram to NOTIFY_SOCKET for each state. A notifier without a socket says nothing, so callers need not ask. What
cannot be sent is dropped: a service manager that does not listen must not stop mail.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping


class Notifier:
    """The way to the service manager of one process.

    address: path of a datagram socket, "@" first for an abstract one; "" for nobody.  watchdog: seconds between two
    signs of life, at most; 0 where nobody watches.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self.watchdog = watchdog
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._next_ping = 0.0

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Notifier:
        """Take NOTIFY_SOCKET and WATCHDOG_*: they are for this process, not for what it starts."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        is_watched = microseconds.isascii() and microseconds.isdecimal() and pid in ("", str(os.getpid()))
        return cls(address, int(microseconds) / 1e6 if is_watched else 0.0)

    def ready(self, status: str) -> None:
        """All listeners accept connections: after a start and after a reload, refused or not."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; ready() ends it. systemd wants the time of it (Type=notify-reload)."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", "STATUS=reading the configuration again")

    def stopping(self, status: str) -> None:
        """No new connections from now on."""
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def ping(self, now: float) -> None:
        """A sign of life, twice as often as the watchdog wants it; call at least that often. now: any steady clock."""
        if self.watchdog and now >= self._next_ping:
            self._next_ping = now + self.watchdog / 2
            self._send("WATCHDOG=1")

    def _send(self, *states: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.sendto("\n".join(states).encode(), self._address)
            except OSError:
                pass
