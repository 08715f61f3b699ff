"""From the section `tls` to SSL contexts, and from OpenSSL's complaints to sentences.

TLS 1.2 and 1.3, no compression, no renegotiation. Each certificate has a context of its own; a handshake begins with
that of the first and goes over to another one where the client asks for a name (SNI, RFC 6066 §3). What cannot be
used raises a TlsError; `mistakes` collects them all, for `check`.
"""

from __future__ import annotations

import os
import ssl
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from smtpmaild.tls import self_signed, x509
from smtpmaild.tls.settings import CertificateFiles, ClientCertificates, TlsError, TlsSettings
from smtpmaild.tls.x509 import Certificate

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY: Mapping[ClientCertificates, ssl.VerifyMode] = {
    "none": ssl.CERT_NONE,
    "ask": ssl.CERT_OPTIONAL,
    "require": ssl.CERT_REQUIRED,
}
# One ticket is what a mail client uses up before it gets the next one; OpenSSL sends two, 0.03 ms and 250 octets each.
_TICKETS = 1
# Every client has it (RFC 8446 §9.1), and Python lets us name just one. Left alone, OpenSSL also takes ffdhe8192 where
# the client wants it: 160 ms of CPU for a handshake, which a few clients could stop a worker with.
_GROUP = "prime256v1"
# Below this OpenSSL's own names are RC4, DES and NULL.
_LEAST_BITS = 128
_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


class TlsObject(ssl.SSLObject):
    """One connection's TLS. server_name: the name that the client asked for, "" if none."""

    server_name = ""


class ServerContext(ssl.SSLContext):
    """Makes connections that remember the name they were asked for."""

    sslobject_class = TlsObject


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read of one certificate. path: its file, "" for a self-signed one."""

    context: ServerContext
    certificate: Certificate
    path: str
    names: tuple[str, ...]


def load_all(settings: TlsSettings, clients: ClientCertificates) -> list[Loaded]:
    """A context for each certificate; the first one chooses among them. Raises TlsError."""
    with _files(settings) as certificates:
        loaded = [_load(settings, clients, index, files) for index, files in enumerate(certificates)]
    loaded[0].context.sni_callback = _chooser(loaded)
    return loaded


@contextmanager
def _files(settings: TlsSettings) -> Iterator[Sequence[CertificateFiles]]:
    if not settings.self_signed_for:
        yield settings.certificates
        return
    # OpenSSL takes keys from files only, as far as Python can tell it.
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(self_signed.make(settings.self_signed_for))
        file.flush()
        yield (CertificateFiles(file.name, file.name),)


def _load(settings: TlsSettings, clients: ClientCertificates, index: int, files: CertificateFiles) -> Loaded:
    context = _plain_context(settings)
    certificate = _load_certificate(context, ("certificates", index), files)
    if clients != "none":
        _load_client_ca(context, settings.client_ca)
    context.verify_mode = _VERIFY[clients]
    path = "" if settings.self_signed_for else files.certificate
    return Loaded(context, certificate, path, files.names or certificate.names)


def _plain_context(settings: TlsSettings) -> ServerContext:
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = _TICKETS
    context.set_ecdh_curve(_GROUP)
    try:
        context.set_ciphers(settings.ciphers)
    except ssl.SSLError:
        raise TlsError(("ciphers",), f"'{settings.ciphers}' names no cipher that OpenSSL has") from None
    for cipher in context.get_ciphers():
        if cipher["strength_bits"] < _LEAST_BITS or cipher["auth"] == "auth-null":
            raise TlsError(("ciphers",), f"'{settings.ciphers}' lets {cipher['name']} in, which protects nobody")
    return context


def _load_certificate(context: ssl.SSLContext, loc: tuple[str | int, ...], files: CertificateFiles) -> Certificate:
    pem = _read(files.certificate, (*loc, "certificate"))
    try:
        certificate = x509.first_certificate(pem)
    except ValueError:
        message = f"there is no certificate in PEM in '{files.certificate}'"
        raise TlsError((*loc, "certificate"), message) from None
    key = _read(files.key, (*loc, "key"))
    if "PRIVATE KEY-----" not in key:
        raise TlsError((*loc, "key"), f"there is no private key in '{files.key}'")
    try:
        # Never without a passphrase: OpenSSL would ask for one on the terminal.
        context.load_cert_chain(files.certificate, files.key, files.passphrase)
    except ssl.SSLError as error:
        raise _explained(error, loc, files, "ENCRYPTED" in key) from None
    return certificate


def _read(path: str, loc: tuple[str | int, ...]) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("ascii", "replace")
    except OSError as error:
        raise TlsError(loc, f"cannot read '{path}': {error.strerror}") from None


def _explained(
    error: ssl.SSLError, loc: tuple[str | int, ...], files: CertificateFiles, is_encrypted: bool
) -> TlsError:
    key = (*loc, "key")
    if error.reason in _MISMATCHES:
        return TlsError(key, f"'{files.key}' is not the key of the first certificate in '{files.certificate}'")
    if error.reason:  # none, whatever its type says, where PEM cannot be read
        reason = error.reason.replace("_", " ").lower()
        return TlsError((*loc, "certificate"), f"OpenSSL refuses '{files.certificate}': {reason}")
    if not is_encrypted:
        return TlsError(key, f"OpenSSL cannot read the private key in '{files.key}'")
    if not files.passphrase:
        return TlsError(key, f"the key in '{files.key}' has a passphrase: name the file with it as key_passphrase_file")
    return TlsError((*loc, "key_passphrase_file"), f"the passphrase does not open the key in '{files.key}'")


def _load_client_ca(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise TlsError(("client_ca",), f"there is no certificate in PEM in '{path}'") from None
    except OSError as error:
        raise TlsError(("client_ca",), f"cannot read '{path}': {error.strerror}") from None


def _chooser(loaded: Sequence[Loaded]) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    by_name: dict[str, ServerContext] = {}
    for one in loaded:
        for name in one.names:
            by_name.setdefault(name.lower(), one.context)

    def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if not name:
            return
        assert isinstance(tls, TlsObject)
        tls.server_name = name
        name = name.lower()
        # RFC 6125 §6.4.3: the star stands for one label, the leftmost.
        context = by_name.get(name) or by_name.get(f"*.{name.partition('.')[2]}")
        if context is not None:
            tls.context = context

    return choose


# For `check`


def mistakes(settings: TlsSettings) -> Iterator[TlsError]:
    """Everything that would keep these settings from being served."""
    try:
        _plain_context(settings)
    except TlsError as error:
        yield error
    if settings.self_signed_for and not self_signed.is_possible():
        yield TlsError(("certificates",), self_signed.MISSING)
    for index, files in enumerate(settings.certificates):
        try:
            _load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ("certificates", index), files)
        except TlsError as error:
            yield error
    if settings.client_ca:
        try:
            _load_client_ca(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings.client_ca)
        except TlsError as error:
            yield error


def doubts(settings: TlsSettings, now: float) -> Iterator[TlsError]:
    """What is no reason not to start: an expiry date that is near, a key that others can read.

    An expired certificate is one too: mail servers that send to us mostly do not look at it, and a daemon that does
    not start takes no mail at all.
    """
    for index, files in enumerate(settings.certificates):
        try:
            certificate = x509.first_certificate(_read(files.certificate, ()))
            mode = os.stat(files.key).st_mode
        except (TlsError, ValueError, OSError):
            continue  # one of the mistakes
        if words := expiry(certificate, now):
            yield TlsError(("certificates", index, "certificate"), f"'{files.certificate}' {words}")
        if mode & stat.S_IROTH:
            loc = ("certificates", index, "key")
            yield TlsError(loc, f"every user can read the private key in '{files.key}': chmod o-rwx it")


def expiry(certificate: Certificate, now: float) -> str:
    """ "expires on 2027-01-31", or "has expired on ..."; "" if that is far away."""
    if certificate.not_after < now:
        return f"has expired on {certificate.last_day}"
    return f"expires on {certificate.last_day}" if certificate.not_after < now + _WARN_SECONDS else ""


_WARN_SECONDS = 14 * 86400.0
