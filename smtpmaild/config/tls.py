"""The section `tls`: certificates, and what is asked of clients. One for all listeners with TLS."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool

from smtpmaild.config.names import host_name
from smtpmaild.config.paths import ConfigPath, SecretFile
from smtpmaild.config.section import Section, Whole
from smtpmaild.tls.settings import DEFAULT_CIPHERS, CertificateFiles, ClientCertificates, TlsSettings

_PROTECTED = frozenset(("optional", "required", "implicit"))

TlsMode = Literal["none", "optional", "required", "implicit"]


def is_offered(mode: TlsMode) -> bool:
    """A listener in this mode needs certificates."""
    return mode in _PROTECTED


def _certificate_name(text: str) -> str:
    """A host name, or `*.` and one for the names one label below it."""
    return f"*.{host_name(text[2:])}" if text.startswith("*.") else host_name(text)


CertificateName = Annotated[str, AfterValidator(_certificate_name)]


class Certificate(Section):
    """One certificate with its key, in PEM files."""

    certificate: ConfigPath = Field(
        description="The certificate, with the others of its chain behind it.", examples=["mx.pem"]
    )
    key: ConfigPath | None = Field(None, description="Its private key. Left out: in the file of the certificate.")
    key_passphrase_file: SecretFile | None = Field(None, description="A file with the passphrase of the key.")
    names: tuple[CertificateName, ...] = Field(
        (),
        description="Shown to clients that ask for one of these names (SNI); *.example.com stands for names one label "
        "below. Left out: the names in the certificate.",
        examples=[["mx.example.com"]],
    )

    def files(self) -> CertificateFiles:
        """The same as the room tls/ takes it."""
        passphrase = self.key_passphrase_file.get_secret_value() if self.key_passphrase_file else ""
        return CertificateFiles(self.certificate, self.key or self.certificate, passphrase, self.names)


class Tls(Section):
    """TLS for all listeners that have it. Files are read again when they change."""

    certificates: tuple[Certificate, ...] = Field(
        (), description="The first one is shown where the client asks for no name, or for one that has none."
    )
    self_signed: StrictBool = Field(
        False,
        description="Make a certificate at start in place of certificates. It encrypts and proves nothing: for trying "
        "out only.",
    )
    minimum_version: Literal["1.2", "1.3"] = Field("1.2", description="The oldest version of TLS that is spoken.")
    ciphers: str = Field(
        DEFAULT_CIPHERS, min_length=1, description="OpenSSL's list of ciphers for TLS 1.2; TLS 1.3 has its own."
    )
    client_certificates: ClientCertificates = Field(
        "none",
        description="Whether clients are asked for a certificate. ask: one that shows none is welcome, one that shows "
        "another than those of client_ca is not.",
    )
    client_ca: ConfigPath | None = Field(
        None, description="PEM file with the authorities that sign certificates of clients."
    )
    handshakes: Whole = Field(
        16, ge=1, le=10_000, description="Handshakes that a worker has in flight; further clients wait for their turn."
    )

    def settings(self, hostname: str) -> TlsSettings:
        """The same as the room tls/ takes it. hostname: for the self-signed certificate."""
        return TlsSettings(
            certificates=tuple(one.files() for one in self.certificates),
            self_signed_for=hostname if self.self_signed else "",
            minimum_version=self.minimum_version,
            ciphers=self.ciphers,
            client_ca=self.client_ca or "",
        )
