"""The PROXY protocol, versions 1 and 2: what a proxy says of its client before the client's first byte.

Bytes in, a verdict out: `parse` looks at what has come so far and says how many octets more surely belong to the
header, or what the header says, or what is wrong with it. So a reader that never takes more than it is told to takes
no byte of what follows. No I/O, no state; nothing a peer sends raises. The reference is HAProxy's proxy-protocol.txt.

    version 1 = "PROXY" SP ( "TCP4" / "TCP6" ) SP source SP destination SP port SP port CRLF
              / "PROXY" SP "UNKNOWN" *octet CRLF                          ; at most 107 octets
    version 2 = signature 12 octets, version and command 1, family and transport 1, length 2, addresses, TLVs

A source of None stands for the proxy itself: it checks whether we are there, or does not know its client.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from smtpmaild.envelope import Peer
from smtpmaild.smtp.reply import printable


@dataclass(frozen=True, slots=True)
class NeedMore:
    """So many octets, at least, are missing; all of them belong to the header."""

    octets: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """It is no header, or a broken one. cause: for the log."""

    cause: str


@dataclass(frozen=True, slots=True)
class Header:
    """A complete header.

    size: its octets.  source: the client, Peer("") for one on a Unix socket, None for the proxy itself.  is_probe: the
    proxy says that it is a check of its own.  facts: what else it tells, for the log: authority (the host name that
    the client asked for), tls_version, tls_cipher, tls_client (the common name of a client certificate that the proxy
    has verified).
    """

    size: int
    source: Peer | None
    is_probe: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)


Parsed = NeedMore | Malformed | Header

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_KEYWORD = b"PROXY "
#: "PROXY UNKNOWN" CRLF; version 2 has 16 octets at least.
SHORTEST = 15
#: "The maximum line lengths the receiver must support including the CRLF [...] worst case [...] 107".
_LONGEST_V1 = 107
#: Addresses and TLVs. Senders are asked to stay within a segment (536 octets); certificates may make it a few KiB.
_LONGEST_V2 = 8192
_HEAD_V2 = 16


def parse(data: bytes) -> Parsed:
    """What these octets, the first of a connection, are. Those behind the header do not matter."""
    if not data:
        return NeedMore(SHORTEST)
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _parse_v2(data) if len(data) >= _HEAD_V2 else NeedMore(_HEAD_V2 - len(data))
    if data[: len(_KEYWORD)] == _KEYWORD[: len(data)]:
        return _parse_v1(data) if len(data) >= SHORTEST else NeedMore(SHORTEST - len(data))
    return Malformed("there is no PROXY header")


# Version 1

_PORT = r"(0|[1-9][0-9]{0,4})"
_TCP = re.compile(rf"PROXY (TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) {_PORT} {_PORT}", re.ASCII)
_UNKNOWN = re.compile(r"PROXY UNKNOWN(?: |\Z)")
_SPACES = 5


def _parse_v1(data: bytes) -> Parsed:
    end = data.find(b"\r\n", 0, _LONGEST_V1)
    if end < 0:
        return _rest_of_v1(data)
    line = data[:end].decode("latin-1")
    size = end + 2
    # "the receiver must ignore anything presented before the CRLF is found"; a check says so, too.
    if _UNKNOWN.match(line):
        return Header(size, None, is_probe=True)
    match = _TCP.fullmatch(line)
    if match is None:
        return Malformed(f"not a header of version 1: {printable(line)}")
    version = int(match[1][3])
    source, destination = (_address(text, version) for text in (match[2], match[3]))
    if source is None or destination is None or int(match[4]) > 65535 or int(match[5]) > 65535:
        return Malformed(f"not a header of version 1: {printable(line)}")
    return Header(size, Peer(source, int(match[4])))


def _rest_of_v1(data: bytes) -> NeedMore | Malformed:
    if len(data) >= _LONGEST_V1:
        return Malformed("a header of version 1 without an end")
    if b"\n" in data:
        return Malformed("a header of version 1 that ends in LF alone")
    if data.endswith(b"\r"):
        return NeedMore(1)
    # Of what is missing a space and one character for each field, and the end of the line, are sure.
    spaces = _SPACES if _UNKNOWN.match(data.decode("latin-1")) else min(data.count(b" "), _SPACES)
    return NeedMore(min(2 * (_SPACES - spaces) + 2, _LONGEST_V1 - len(data)))


def _address(text: str, version: int) -> str | None:
    """In its shortest form; IPv4 even where it is written as ::ffff:192.0.2.1."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return _shortest(address) if address.version == version else None


def _shortest(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


# Version 2


def _tcp4(block: bytes) -> Peer:
    return Peer(str(ipaddress.IPv4Address(block[:4])), int.from_bytes(block[8:10]))


def _tcp6(block: bytes) -> Peer:
    return Peer(_shortest(ipaddress.IPv6Address(block[:16])), int.from_bytes(block[32:34]))


#: Family and transport -> octets of its addresses, and how the client's is read. Datagrams carry no SMTP.
_FAMILIES: Mapping[int, tuple[int, Callable[[bytes], Peer | None]]] = {
    0x00: (0, lambda _: None),
    0x11: (12, _tcp4),
    0x21: (36, _tcp6),
    0x31: (216, lambda _: Peer("")),
}
_LOCAL, _PROXY = 0x20, 0x21


def _parse_v2(data: bytes) -> Parsed:
    command, family, length = data[12], data[13], int.from_bytes(data[14:16])
    size = _HEAD_V2 + length
    if command not in (_LOCAL, _PROXY):
        return Malformed(f"version and command are 0x{command:02x}")
    if length > _LONGEST_V2:
        return Malformed(f"a header of {size} octets")
    if len(data) < size:
        return NeedMore(size - len(data))
    # "the receiver must accept this connection as valid and must use the real connection endpoints and discard the
    # protocol block including the family".
    if command == _LOCAL:
        return Header(size, None, is_probe=True)
    if family not in _FAMILIES:
        return Malformed(f"family and transport are 0x{family:02x}")
    octets, read_source = _FAMILIES[family]
    if length < octets:
        return Malformed(f"{length} octets cannot hold the addresses of family 0x{family:02x}")
    told = _facts(data[:size], _HEAD_V2 + octets)
    return told if isinstance(told, Malformed) else Header(size, read_source(data[_HEAD_V2:size]), facts=told)


# ALPN (0x01), the unique id (0x05), the network name space (0x30) and those of vendors are passed over.
_AUTHORITY, _CRC32C, _SSL = 0x02, 0x03, 0x20
_SSL_FACTS = {0x21: "tls_version", 0x23: "tls_cipher"}
_SSL_COMMON_NAME = 0x22
_CLIENT_HAS_CERTIFICATE = 0x02 | 0x04  # on this connection, or in the TLS session that it resumes
_LONGEST_FACT = 255


class _TruncatedError(Exception):
    """A TLV says that it is longer than what is left."""


def _tlvs(block: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, where its value begins, value)."""
    position = 0
    while position < len(block):
        value = position + 3
        end = value + int.from_bytes(block[position + 1 : value])
        if end > len(block) or value > len(block):
            raise _TruncatedError
        yield block[position], value, block[value:end]
        position = end


def _facts(header: bytes, begin: int) -> dict[str, str] | Malformed:
    facts: dict[str, str] = {}
    try:
        for kind, at, value in _tlvs(header[begin:]):
            if kind == _CRC32C and not _is_intact(header, begin + at, value):
                return Malformed("its CRC-32C is wrong")
            if kind == _AUTHORITY:
                facts["authority"] = _fact(value)
            elif kind == _SSL:
                facts |= _ssl_facts(value)
    except _TruncatedError:
        return Malformed("a TLV is longer than the header")
    return facts


def _ssl_facts(value: bytes) -> dict[str, str]:
    """client: what holds, one bit each; verify: 0 if the certificate was good; then TLVs."""
    if len(value) < 5:
        raise _TruncatedError
    is_verified = bool(value[0] & _CLIENT_HAS_CERTIFICATE) and not any(value[1:5])
    facts = {}
    for kind, _, text in _tlvs(value[5:]):
        if kind in _SSL_FACTS:
            facts[_SSL_FACTS[kind]] = _fact(text)
        elif kind == _SSL_COMMON_NAME and is_verified:
            facts["tls_client"] = _fact(text)
    return facts


def _fact(value: bytes) -> str:
    return printable(value[:_LONGEST_FACT].decode("utf-8", "replace"))


# CRC-32C, Castagnoli's (RFC 3309, appendix B.1), reflected.
_POLYNOMIAL = 0x82F63B78


def _crc_of_octet(octet: int) -> int:
    for _ in range(8):
        octet = octet >> 1 ^ (_POLYNOMIAL if octet & 1 else 0)
    return octet


_CRC_TABLE = tuple(map(_crc_of_octet, range(256)))


def crc32c(data: bytes) -> int:
    """The checksum of a header. 0.1 us for each octet, and headers are short."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _is_intact(header: bytes, at: int, value: bytes) -> bool:
    """It was computed over the whole header, with zeros in its own place."""
    return len(value) == 4 and crc32c(header[:at] + bytes(4) + header[at + 4 :]) == int.from_bytes(value)
