"""What the configuration asks for, as plain values, and the one exception for files that cannot serve it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: What a listener wants of its clients' certificates. ask: who shows one must show one of ours.
ClientCertificates = Literal["none", "ask", "require"]

#: Forward secrecy and authenticated encryption only. TLS 1.3 has no other suites, and this string does not touch them.
DEFAULT_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """One certificate and its key, in PEM.

    certificate: first ours, then the rest of its chain.  key: where its private key is, the same file perhaps.
    names: the names it is shown for, *.example.com among them; none: those that it has itself.
    """

    certificate: str
    key: str
    passphrase: str = field(default="", repr=False)
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The section `tls`.

    certificates: the first one is shown where no other fits.  self_signed_for: a host name to make one for at start,
    in place of certificates.  ciphers: an OpenSSL cipher list, for TLS 1.2.  client_ca: PEM file of those who sign the
    certificates of clients, "" for none.
    """

    certificates: tuple[CertificateFiles, ...] = ()
    self_signed_for: str = ""
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    ciphers: str = DEFAULT_CIPHERS
    client_ca: str = ""

    @property
    def paths(self) -> list[str]:
        """Every file that is read, once."""
        files = [path for one in self.certificates for path in (one.certificate, one.key)]
        return [*dict.fromkeys([*files, self.client_ca] if self.client_ca else files)]


class TlsError(Exception):
    """The files or words of the section cannot be used; the text says why, for people.

    loc: the key that is meant, within the section.
    """

    def __init__(self, loc: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.loc = loc
