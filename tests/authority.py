"""A certification authority for tests, and files as an operator has them."""

from __future__ import annotations

import datetime
import re
import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from smtpmaild.tls.settings import CertificateFiles

#: What the examples name.
CERTIFICATES = "/etc/letsencrypt/live/mail.example.com"
SECRETS = "/run/secrets"


@cache
def authority() -> trustme.CA:
    """One for all tests: who trusts it trusts every certificate made here."""
    return trustme.CA()


def bare(ca: trustme.CA) -> bytes:
    """This authority's certificate as `openssl req -x509` once made them, without all that RFC 5280 wants, in PEM."""
    whole = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(whole.subject)
        .issuer_name(whole.issuer)
        .public_key(whole.public_key())
        .serial_number(whole.serial_number)
        .not_valid_before(whole.not_valid_before_utc)
        .not_valid_after(whole.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and its key, as files."""

    certificate: Path
    key: Path

    @property
    def files(self) -> CertificateFiles:
        return CertificateFiles(str(self.certificate), str(self.key))


def issue(
    folder: Path,
    *names: str,
    stem: str = "",
    days: float = 90,
    passphrase: str = "",
    by: trustme.CA | None = None,
    common_name: str | None = None,
) -> Pair:
    """A certificate for these names (mx.example.com if none) in mx.example.com.pem and mx.example.com.key."""
    names = names or ("mx.example.com",)
    now = datetime.datetime.now(datetime.UTC)
    leaf = (by or authority()).issue_cert(
        *names,
        common_name=common_name,
        not_before=now - datetime.timedelta(days=365),
        not_after=now + datetime.timedelta(days=days),
    )
    pair = Pair(folder / f"{stem or names[0]}.pem", folder / f"{stem or names[0]}.key")
    pair.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    pem = leaf.private_key_pem.bytes()
    if passphrase:
        key = serialization.load_pem_private_key(pem, None)
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    pair.key.write_bytes(pem)
    pair.key.chmod(0o600)
    return pair


def with_certificates(path: Path, folder: Path) -> Path:
    """An example of a configuration, with files that this machine has for the certificates and secrets it names."""
    text = path.read_text()
    secrets = re.findall(rf"{SECRETS}/([a-z]+)", text)
    if CERTIFICATES not in text and not secrets:
        return path
    for name in secrets:
        (folder / name).write_text("secret\n")
        (folder / name).chmod(0o600)
    pair = issue(folder, "mail.example.com")
    pair.certificate.rename(folder / "fullchain.pem")
    pair.key.rename(folder / "privkey.pem")
    copied = folder / path.name
    copied.write_text(text.replace(CERTIFICATES, str(folder)).replace(SECRETS, str(folder)))
    return copied


def write_ca(folder: Path, by: trustme.CA | None = None) -> str:
    path = folder / "ca.pem"
    (by or authority()).cert_pem.write_to_path(str(path))
    return str(path)


def client_context(pair: Pair | None = None) -> ssl.SSLContext:
    """For a client that trusts our authority alone, and shows a certificate if it has one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context
