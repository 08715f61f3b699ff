"""What we read of an X.509 certificate (RFC 5280 §4.1): for which names it is, and until when.

Python's ssl decodes a certificate only when a peer has shown it; for our own this walks over its DER. OpenSSL has
taken the certificate before, so its form is sound; what is no DER at all raises ValueError.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
# ASN.1 tags (X.690): what is built of other elements has bit 0x20, what a context gives its meaning bit 0x80.
_UTC_TIME = 0x17
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_DNS_NAME = 0x82  # of GeneralName, RFC 5280 §4.2.1.6
_COMMON_NAME, _SUBJECT_ALT_NAME = bytes((0x55, 4, 3)), bytes((0x55, 29, 17))

_Element = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Certificate:
    """names: DNS names in lower case, the common name where it has no others.  not_after: seconds since the epoch."""

    names: tuple[str, ...]
    not_after: float

    @property
    def last_day(self) -> str:
        """The day on which it ends, as 2027-01-31."""
        return datetime.fromtimestamp(self.not_after, UTC).date().isoformat()


def first_certificate(pem: str) -> Certificate:
    """The first certificate of a PEM file; raises ValueError where there is none."""
    _, found, rest = pem.partition(_BEGIN)
    body, ended, _ = rest.partition(_END)
    if not (found and ended):
        raise ValueError("there is no certificate in it")
    return parse(ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{body}{_END}"))


def parse(der: bytes) -> Certificate:
    """The certificate in DER; raises ValueError where it is none."""
    try:
        return _parse(der)
    except IndexError:
        raise ValueError("it is no certificate in DER") from None


def _parse(der: bytes) -> Certificate:
    to_be_signed = _inside(_inside(_inside(der)[0][1])[0][1])
    # Before version 3 there is no [0] with the version.
    fields = to_be_signed[1:] if to_be_signed[0][0] == _VERSION else to_be_signed
    _serial, _algorithm, _issuer, (_, validity), (_, subject), *rest = fields
    _, not_after = _inside(validity)
    names = [*_alternative_names(rest)] or [*_common_names(subject)]
    return Certificate(tuple(name.lower() for name in names), _time(not_after))


def _inside(data: bytes) -> list[_Element]:
    """The elements that stand one after the other in these bytes: tag and contents."""
    elements: list[_Element] = []
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:  # the long form: so many octets of length follow
            octets = length & 0x7F
            length = int.from_bytes(data[position : position + octets])
            position += octets
        elements.append((tag, data[position : position + length]))
        position += length
    return elements


def _time(element: _Element) -> float:
    tag, value = element
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280 §4.1.2.5.1: "Where YY is greater than or equal to 50, the year ... 19YY"
        text = f"{19 if int(text[:2]) >= 50 else 20}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _alternative_names(rest: list[_Element]) -> Iterator[str]:
    extensions = next((contents for tag, contents in rest if tag == _EXTENSIONS), b"")
    for _, extension in _inside(_inside(extensions)[0][1]) if extensions else ():
        (_, oid), *_critical, (_, value) = _inside(extension)
        if oid == _SUBJECT_ALT_NAME:
            names = _inside(_inside(value)[0][1])
            yield from (name.decode("ascii") for tag, name in names if tag == _DNS_NAME)


def _common_names(subject: bytes) -> Iterator[str]:
    for _, relative_name in _inside(subject):
        for _, attribute in _inside(relative_name):
            (_, oid), (_, value) = _inside(attribute)
            if oid == _COMMON_NAME:
                yield value.decode("utf-8", "replace")
