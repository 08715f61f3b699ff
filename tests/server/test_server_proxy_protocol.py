"""PROXY headers of both versions, octet by octet: what they say, what is wrong with them, and where they end."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from headers import SIGNATURE, header_v2, tlv, with_checksum
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.envelope import Peer
from smtpmaild.server.proxy_protocol import Header, Malformed, NeedMore, Parsed, crc32c, parse

V4 = ip_address("192.0.2.1").packed + ip_address("192.0.2.25").packed + struct.pack("!HH", 4711, 25)
V6 = ip_address("2001:db8::1").packed + ip_address("2001:db8::25").packed + struct.pack("!HH", 4711, 25)
MAPPED = ip_address("::ffff:192.0.2.1").packed + ip_address("::ffff:192.0.2.25").packed + struct.pack("!HH", 4711, 25)
SSL = b"\x07" + bytes(4) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"printer") + tlv(0x23, b"TLS_AES_128_GCM_SHA256")
SSL_FACTS = {"tls_version": "TLSv1.3", "tls_cipher": "TLS_AES_128_GCM_SHA256"}

GOOD: dict[str, tuple[bytes, Header]] = {
    "TCP4": (b"PROXY TCP4 192.0.2.1 192.0.2.25 4711 25\r\n", Header(0, Peer("192.0.2.1", 4711))),
    "TCP4, all short": (b"PROXY TCP4 1.1.1.1 1.1.1.1 0 1\r\n", Header(0, Peer("1.1.1.1", 0))),
    "TCP6": (b"PROXY TCP6 2001:DB8:0::1 ::25 65535 25\r\n", Header(0, Peer("2001:db8::1", 65535))),
    "TCP6, the longest": (
        b"PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".replace(b"f...f", b":".join([b"ffff"] * 6)),
        Header(0, Peer(":".join(["ffff"] * 8), 65535)),
    ),
    "IPv4 in IPv6": (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.25 4711 25\r\n", Header(0, Peer("192.0.2.1", 4711))),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", Header(0, None, is_probe=True)),
    "UNKNOWN, and more": (b"PROXY UNKNOWN what \xff\0\r ever\r\n", Header(0, None, is_probe=True)),
    "UNKNOWN, the longest": (b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n", Header(0, None, is_probe=True)),
    "v2 TCP4": (header_v2(0x21, 0x11, V4), Header(0, Peer("192.0.2.1", 4711))),
    "v2 TCP6": (header_v2(0x21, 0x21, V6), Header(0, Peer("2001:db8::1", 4711))),
    "v2 IPv4 in IPv6": (header_v2(0x21, 0x21, MAPPED), Header(0, Peer("192.0.2.1", 4711))),
    "v2 UNIX": (header_v2(0x21, 0x31, bytes(216)), Header(0, Peer(""))),
    "v2 unspecified": (header_v2(0x21, 0x00), Header(0, None)),
    "v2 LOCAL": (header_v2(0x20, 0x00), Header(0, None, is_probe=True)),
    "v2 LOCAL, and more": (header_v2(0x20, 0xFF, b"\x03\xff"), Header(0, None, is_probe=True)),
    "v2 authority": (
        header_v2(0x21, 0x11, V4, tlv(0x02, "mx.bücher.example\n".encode())),
        Header(0, Peer("192.0.2.1", 4711), facts={"authority": "mx.b?cher.example?"}),
    ),
    "v2 strangers": (
        header_v2(0x21, 0x11, V4, tlv(0x01, b"smtp"), tlv(0x04, bytes(7)), tlv(0x05, b"id"), tlv(0xEA, b"")),
        Header(0, Peer("192.0.2.1", 4711)),
    ),
    "v2 TLS": (
        header_v2(0x21, 0x21, V6, tlv(0x20, SSL)),
        Header(0, Peer("2001:db8::1", 4711), facts={**SSL_FACTS, "tls_client": "printer"}),
    ),
    "v2 TLS, a bad certificate": (
        header_v2(0x21, 0x21, V6, tlv(0x20, SSL[:1] + b"\0\0\0\x0a" + SSL[5:])),
        Header(0, Peer("2001:db8::1", 4711), facts=SSL_FACTS),
    ),
    "v2 TLS, no certificate": (
        header_v2(0x21, 0x21, V6, tlv(0x20, b"\x01" + SSL[1:])),
        Header(0, Peer("2001:db8::1", 4711), facts=SSL_FACTS),
    ),
    "v2 checksum": (
        with_checksum(header_v2(0x21, 0x11, V4, tlv(0x02, b"mx"), tlv(0x03, bytes(4)), tlv(0x04, b"?"))),
        Header(0, Peer("192.0.2.1", 4711), facts={"authority": "mx"}),
    ),
    "v2, the longest": (header_v2(0x21, 0x11, V4, tlv(0x04, bytes(8192 - 15))), Header(0, Peer("192.0.2.1", 4711))),
}  # fmt: skip

BAD: dict[str, bytes] = {
    "no PROXY header": b"EHLO client.example\r\n",
    "no PROXY header ": b"PROXX",
    "no PROXY header  ": b"\r\n\r\n\0\r\nQUIX",
    "no PROXY header, a handshake": b"\x16\x03\x01",
    "version 1: PROXY TCP5": b"PROXY TCP5 192.0.2.1 192.0.2.25 4711 25\r\n",
    "version 1: PROXY UNKNOWNX": b"PROXY UNKNOWNX\r\n",
    "version 1: PROXY TCP4  ": b"PROXY TCP4  192.0.2.1 192.0.2.25 4711 25\r\n",
    "version 1: PROXY TCP4 192.0.2.1 ": b"PROXY TCP4 192.0.2.1 192.0.2.25 4711\r\n",
    "version 1: PROXY TCP4 192.0.2.256 ": b"PROXY TCP4 192.0.2.256 192.0.2.25 4711 25\r\n",
    "version 1: PROXY TCP4 ::1": b"PROXY TCP4 ::1 ::1 4711 25\r\n",
    "version 1: PROXY TCP6 192": b"PROXY TCP6 192.0.2.1 192.0.2.25 4711 25\r\n",
    "version 1: PROXY TCP6 fe80::1%eth0": b"PROXY TCP6 fe80::1%eth0 ::1 4711 25\r\n",
    "version 1: PROXY TCP4 192.0.2.1 192.0.2.25 65536": b"PROXY TCP4 192.0.2.1 192.0.2.25 65536 25\r\n",
    "version 1: PROXY TCP4 192.0.2.1 192.0.2.25 4711 65536": b"PROXY TCP4 192.0.2.1 192.0.2.25 4711 65536\r\n",
    "version 1: PROXY TCP4 192.0.2.1 192.0.2.25 01": b"PROXY TCP4 192.0.2.1 192.0.2.25 01 25\r\n",
    "version 1: PROXY TCP4 192.0.2.1 192.0.2.25 -1": b"PROXY TCP4 192.0.2.1 192.0.2.25 -1 25\r\n",
    "LF alone": b"PROXY TCP4 192.0.2.1 192.0.2.25 4711 25\n",
    "without an end": b"PROXY TCP4 ".ljust(107, b"1"),
    "without an end, a moment later": b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n",
    "version and command are 0x11": header_v2(0x11, 0x11, V4),
    "version and command are 0x22": header_v2(0x22, 0x11, V4),
    "family and transport are 0x12": header_v2(0x21, 0x12, V4),
    "family and transport are 0x41": header_v2(0x21, 0x41, V4),
    "11 octets cannot hold": header_v2(0x21, 0x11, V4[:-1]),
    "a header of 8209 octets": header_v2(0x21, 0x11, bytes(8193)),
    "CRC-32C is wrong": header_v2(0x21, 0x11, V4, tlv(0x03, bytes(4))),
    "CRC-32C is wrong, and short": header_v2(0x21, 0x11, V4, tlv(0x03, bytes(3))),
    "a TLV is longer": header_v2(0x21, 0x11, V4, b"\x02\x00\x09mx"),
    "a TLV is longer, half of one": header_v2(0x21, 0x11, V4, b"\x02\x00"),
    "a TLV is longer, in TLS": header_v2(0x21, 0x11, V4, tlv(0x20, bytes(5) + b"\x21\x00\x09T")),
    "a TLV is longer, TLS too short": header_v2(0x21, 0x11, V4, tlv(0x20, bytes(4))),
}  # fmt: skip


def sized(header: Header, data: bytes) -> Header:
    return Header(len(data), header.source, header.is_probe, header.facts)


@pytest.mark.parametrize("name", GOOD)
def test_good_header(name: str) -> None:
    data, header = GOOD[name]
    assert parse(data) == parse(data + b"EHLO x\r\n") == sized(header, data)


@pytest.mark.parametrize("name", BAD)
def test_malformed_header(name: str) -> None:
    found = parse(BAD[name])
    assert isinstance(found, Malformed)
    assert name.partition(",")[0].rstrip() in found.cause


@pytest.mark.parametrize("name", GOOD)
def test_every_beginning_needs_no_more_than_what_belongs_to_it(name: str) -> None:
    data, _ = GOOD[name]
    for end in range(len(data)) if len(data) < 300 else (*range(20), len(data) - 1):
        found = parse(data[:end])
        assert isinstance(found, NeedMore)
        assert 1 <= found.octets <= len(data) - end


def read_as_told(stream: bytes) -> tuple[Parsed, int, int]:
    """What a reader that trusts parse() comes to, how much it took, in how many steps."""
    position, steps = 0, 0
    while True:
        found = parse(stream[:position])
        if not isinstance(found, NeedMore):
            return found, position, steps
        if position + found.octets > len(stream):
            return found, position, steps
        position += found.octets
        steps += 1


@pytest.mark.parametrize("name", GOOD)
def test_nothing_behind_a_header_is_taken(name: str) -> None:
    data, header = GOOD[name]
    found, taken, steps = read_as_told(data + b"220 mx ready\r\n")
    assert found == sized(header, data)
    assert taken == len(data)
    assert steps <= 48


@given(st.sampled_from([data for data, _ in GOOD.values()]), st.data())
@settings(deadline=None)
def test_damaged_headers_are_understood_or_refused(data: bytes, draw: st.DataObject) -> None:
    """Any octets changed, left out or put in: a verdict, no exception, and never more taken than a header may have."""
    at = draw.draw(st.integers(0, len(data)))
    out = draw.draw(st.integers(0, 3))
    damaged = data[:at] + draw.draw(st.binary(max_size=3)) + data[at + out :] + bytes(9000)
    found, taken, _ = read_as_told(damaged)
    assert not isinstance(found, NeedMore)
    assert taken <= 16 + 8192
    if isinstance(found, Header):
        assert found.size == taken
        assert all(text.isascii() and text.isprintable() for text in found.facts.values())


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x40"])
)
@settings(deadline=None)
def test_garbage_never_raises(garbage: bytes, beginning: bytes) -> None:
    data = beginning + garbage
    found = parse(data)
    if isinstance(found, NeedMore):
        assert found.octets > 0
    # Once refused, no further octet makes it good.
    elif isinstance(found, Malformed):
        assert isinstance(parse(data + b"\r\n"), Malformed)


def test_checksum_is_castagnoli_s() -> None:
    # RFC 3720 B.4: 32 octets of zeros, of ones, and counting up; and the check value of the catalogues.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283
