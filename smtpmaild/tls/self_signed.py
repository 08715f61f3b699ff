"""Makes a certificate that nobody has signed but itself, for trying things out: it encrypts, and proves nothing.

Python cannot make certificates and the openssl command may be missing, so this needs the package `cryptography`; it
is loaded only where a configuration asks for it. The certificate lives as long as the process, reloads included.
"""

from __future__ import annotations

import datetime
import importlib.util
from functools import cache

from smtpmaild.tls.settings import TlsError

MISSING = "a self-signed certificate needs the package cryptography: pip install 'smtpmaild[tls]'"
_DAYS = 365


def is_possible() -> bool:
    """The package is there."""
    return importlib.util.find_spec("cryptography") is not None


@cache
def make(hostname: str) -> bytes:
    """Certificate and key in PEM for this name and localhost; the same ones at each call. Raises TlsError."""
    if not is_possible():
        raise TlsError(("certificates",), MISSING)
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hostname[:64])])
    names = dict.fromkeys((hostname, "localhost"))
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
