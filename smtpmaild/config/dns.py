"""The section `dns`: whom to ask, and how long to wait for an answer."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema

from smtpmaild.config.section import Section
from smtpmaild.config.units import Duration

_FORM = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")
_PORT = 53


def dns_server(value: object) -> tuple[str, int]:
    """(address, port); raises ValueError."""
    text = str(value) if isinstance(value, str) else ""
    match = _FORM.fullmatch(text)
    try:
        if match is None:
            return str(ipaddress.IPv6Address(text)), _PORT  # without a port it needs no brackets
        kind = ipaddress.IPv6Address if match["v6"] else ipaddress.IPv4Address
        host, port = str(kind(match["v6"] or match["v4"])), int(match["port"] or _PORT)
    except ValueError:
        raise ValueError(f"'{value}' is not a DNS server: write it as 127.0.0.1, 127.0.0.1:5353 or [::1]:53") from None
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is not between 1 and 65535")
    return host, port


DnsServer = Annotated[
    tuple[str, int],
    PlainValidator(dns_server),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1", "127.0.0.1:5353", "[::1]:53"]}),
]


class Dns(Section):
    """Whom we ask for names."""

    servers: tuple[DnsServer, ...] = Field(
        (), description="Resolvers, asked in this order; left out: those of the machine (/etc/resolv.conf)."
    )
    timeout: Duration = Field(
        3.0, gt=0, description="How long one client may take to be looked up; then it has no name."
    )
