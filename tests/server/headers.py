"""PROXY headers of version 2, as proxies make them."""

from __future__ import annotations

import struct

from smtpmaild.server.proxy_protocol import crc32c

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def header_v2(command: int, family: int, *blocks: bytes) -> bytes:
    block = b"".join(blocks)
    return SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block


def with_checksum(header: bytes) -> bytes:
    """Its TLV 0x03, four zeros so far, filled in."""
    at = header.rindex(tlv(0x03, bytes(4))) + 3
    return header[:at] + struct.pack("!I", crc32c(header)) + header[at + 4 :]
