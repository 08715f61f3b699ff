"""What is read of a certificate: the same that `cryptography` reads of it."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from authority import issue
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from smtpmaild.tls.x509 import Certificate, first_certificate, parse

KEY = ec.generate_private_key(ec.SECP256R1())
BEGIN = datetime.datetime(1990, 1, 1)


def made(names: list[str], common_name: str, end: datetime.datetime, *, more: bool = False) -> x509.Certificate:
    attributes = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "O")]
    if common_name:
        attributes.append(x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name))
    name = x509.Name(attributes)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGIN)
        .not_valid_after(end)
    )
    if more:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
    if names:
        others = [x509.RFC822Name("a@b.example")] if more else []
        alternatives = x509.SubjectAlternativeName([*others, *map(x509.DNSName, names)])
        builder = builder.add_extension(alternatives, critical=more)
    return builder.sign(KEY, hashes.SHA256())


@pytest.mark.parametrize(
    ("names", "common_name", "more", "expected"),
    [
        (["mx.example.com"], "other.example", False, ("mx.example.com",)),
        (["MX.example.com", "*.example.com"], "", True, ("mx.example.com", "*.example.com")),
        ([f"host-{number}.example.com" for number in range(40)], "", False, None),  # lengths of several octets
        ([], "Old.example", False, ("old.example",)),  # no extensions at all
        ([], "old.example", True, ("old.example",)),  # extensions, but no names among them
        ([], "bücher", False, ("bücher",)),
        ([], "", False, ()),
    ],
)
def test_names(names: list[str], common_name: str, more: bool, expected: tuple[str, ...] | None) -> None:
    certificate = made(names, common_name, datetime.datetime(2027, 1, 31), more=more)
    read = parse(certificate.public_bytes(serialization.Encoding.DER))
    assert read.names == (tuple(names) if expected is None else expected)


@pytest.mark.parametrize(
    "end",
    [
        datetime.datetime(1999, 12, 31, 23, 59, 59),
        datetime.datetime(2027, 1, 31, 1, 2, 3),
        datetime.datetime(2049, 12, 31),  # the last UTCTime
        datetime.datetime(2050, 1, 1),  # the first GeneralizedTime
        datetime.datetime(9999, 12, 31, 23, 59, 59),  # RFC 5280 §4.1.2.5: no end
    ],
)
def test_end(end: datetime.datetime) -> None:
    read = parse(made([], "", end).public_bytes(serialization.Encoding.DER))
    assert read.not_after == end.replace(tzinfo=datetime.UTC).timestamp()
    assert read.last_day == end.date().isoformat()


def test_first_of_a_chain(tmp_path: Path) -> None:
    pair = issue(tmp_path, "first.example.com", days=30)
    text = "a comment before it\n" + pair.certificate.read_text() + issue(tmp_path, "x.example").certificate.read_text()
    assert first_certificate(text).names == ("first.example.com",)


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA", "-----END CERTIFICATE-----"])
def test_no_certificate(text: str) -> None:
    with pytest.raises(ValueError, match="there is no certificate in it"):
        first_certificate(text)


DER = made(["mx.example.com"], "mx", datetime.datetime(2027, 1, 31)).public_bytes(serialization.Encoding.DER)


@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_whatever_it_is_it_raises_value_errors_only(position: int, octet: int) -> None:
    for data in (DER[:position], DER[:position] + bytes([octet]) + DER[position + 1 :]):
        try:
            assert isinstance(parse(data), Certificate)
        except ValueError:
            pass
