"""Where a server is: what finding the next hop comes to, and what a connection is made to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one server.

    name: as the config or the MX record has it; its certificate is for this name.  host: its IP address, or the path of
    a Unix socket.  port: 0 for a Unix socket.
    """

    name: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        """As outcomes and logs name a server: "mx.example.net [192.0.2.1]:25"."""
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if self.name == self.host else f"{self.name} [{self.host}]:{self.port}"
