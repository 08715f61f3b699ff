"""Where a listener listens: the forms of `listen:` as values.

`host:port` and `[::]:port` are TCP, a path is a Unix socket, `systemd:NAME` a socket somebody else opened for us.
A host of "0.0.0.0" takes IPv4 alone and "::" IPv6 alone: IPV6_V6ONLY is always set, so the two do not collide.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from smtpmaild.config.names import host_name
from smtpmaild.config.paths import absolute_path


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """host: an IP address in its shortest form, or a name to be resolved at start.  port: 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """path: absolute."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class InheritedSocket:
    """name: that of FileDescriptorName= in a systemd socket unit."""

    name: str

    def __str__(self) -> str:
        return f"systemd:{self.name}"


ListenAddress = TcpAddress | UnixAddress | InheritedSocket

_INHERITED = re.compile(r"systemd:([^\s:/\x00-\x1f\x7f]{1,255})")
_TCP = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s\[\]:/]+)):(?P<port>[0-9]{1,5})")
# sun_path holds 108 bytes with its final NUL (unix(7)).
LONGEST_SOCKET_PATH = 107
_FORMS = "write it as 0.0.0.0:25, [::]:25, /run/smtpmaild/smtp.sock or systemd:NAME"


def parse_listen_address(value: object, info: ValidationInfo) -> ListenAddress:
    """One entry of `listen:`; raises ValueError."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if match := _INHERITED.fullmatch(text):
        return InheritedSocket(match[1])
    if "/" in text:
        return _unix_address(text, info)
    if match := _TCP.fullmatch(text):
        return _tcp_address(match["v6"], match["host"], int(match["port"]))
    raise ValueError(f"'{text}' is not an address to listen on{_hint(text)}")


def _hint(text: str) -> str:
    host, _, port = text.rpartition(":")
    if port.isdecimal() and port.isascii() and int(port) <= 65535:
        if host in ("", "*"):
            return f"; did you mean '0.0.0.0:{port}'?"
        if ":" in host:
            return f"; did you mean '[{host}]:{port}'?"
    if text.endswith((".sock", ".socket")) and ":" not in text:
        return f"; did you mean './{text}'?"
    return f": {_FORMS}"


def _unix_address(text: str, info: ValidationInfo) -> UnixAddress:
    path = absolute_path(text, info)
    if len(path.encode()) > LONGEST_SOCKET_PATH:
        raise ValueError(f"the path of a Unix socket may have {LONGEST_SOCKET_PATH} bytes, not {len(path.encode())}")
    return UnixAddress(path)


def _tcp_address(v6: str | None, host: str | None, port: int) -> TcpAddress:
    if port > 65535:
        raise ValueError(f"port {port} is not between 0 and 65535")
    if v6 is not None:
        return TcpAddress(_ip_address(v6, 6), port)
    assert host is not None
    if host == "*":
        raise ValueError(f"'*:{port}' is not an address to listen on; did you mean '0.0.0.0:{port}'?")
    if host.replace(".", "").isdecimal():
        return TcpAddress(_ip_address(host, 4), port)
    return TcpAddress(host_name(host), port)


def _ip_address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"'{text}' is not an IPv{version} address") from None
    if address.version != version:
        raise ValueError(f"'[{text}]': brackets are for IPv6 addresses; did you mean '{text}'?")
    return str(address)


Listen = Annotated[
    ListenAddress,
    PlainValidator(parse_listen_address),
    WithJsonSchema(
        {"type": "string", "examples": ["0.0.0.0:25", "[::]:25", "/run/smtpmaild/smtp.sock", "systemd:smtp"]}
    ),
]


def is_local(address: ListenAddress) -> bool:
    """Only this machine can connect to it. What systemd has opened, nobody can say."""
    if isinstance(address, UnixAddress):
        return True
    if not isinstance(address, TcpAddress):
        return False
    if address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False
