"""Contexts: who is shown which certificate, and what is refused."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from authority import client_context, issue, write_ca
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from smtpmaild.envelope import ClientCertificate
from smtpmaild.tls import contexts, self_signed
from smtpmaild.tls.contexts import TlsObject, doubts, load_all, mistakes
from smtpmaild.tls.handshake import channel_binding, distinguished_name, facts_of
from smtpmaild.tls.settings import CertificateFiles, TlsError, TlsSettings


def shake(client: ssl.SSLContext, server: ssl.SSLContext, name: str | None = None) -> tuple[ssl.SSLObject, TlsObject]:
    """A handshake in memory: both sides of it."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    if name is None:
        client.check_hostname = False
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert isinstance(theirs, TlsObject)
    return ours, theirs


def settings(folder: Path, *hosts: str, **more: object) -> TlsSettings:
    files = tuple(issue(folder, host).files for host in hosts or ("mx.example.com",))
    return replace(TlsSettings(files), **more)  # type: ignore[arg-type]


def shown(server: ssl.SSLContext, name: str | None) -> str:
    """The first name of the certificate that a client is shown."""
    client = client_context()
    client.check_hostname = False
    ours, _ = shake(client, server, name)
    certificate = ours.getpeercert()
    assert certificate is not None
    return str(certificate["subjectAltName"][0][1])


def test_names_choose_the_certificate(tmp_path: Path) -> None:
    tls = settings(tmp_path, "mx.example.com", "mx.example.org", "*.wild.example", "a.wild.example")
    context = load_all(tls, "none")[0].context
    assert shown(context, None) == "mx.example.com"
    assert shown(context, "mx.example.com") == "mx.example.com"
    assert shown(context, "MX.Example.ORG") == "mx.example.org"
    assert shown(context, "a.wild.example") == "a.wild.example"
    assert shown(context, "b.wild.example") == "*.wild.example"
    for stranger in ("wild.example", "a.b.wild.example", "mx.example.net", "localhost"):
        assert shown(context, stranger) == "mx.example.com"


def test_names_of_the_configuration_win(tmp_path: Path) -> None:
    first, second = issue(tmp_path).files, issue(tmp_path, "mx.example.org").files
    tls = TlsSettings((first, replace(second, names=("mx.example.com", "mail.example.com"))))
    context = load_all(replace(tls, certificates=(replace(first, names=("x.example",)), tls.certificates[1])), "none")
    assert shown(context[0].context, "mx.example.com") == "mx.example.org"
    assert shown(context[0].context, "mx.example.org") == "mx.example.com"


def test_facts(tmp_path: Path) -> None:
    context = load_all(settings(tmp_path), "none")[0].context
    _, theirs = shake(client_context(), context, "mx.example.com")
    facts = facts_of(theirs)
    assert facts.version == "TLSv1.3"
    assert facts.cipher.startswith("TLS_AES_")
    assert facts.bits in (128, 256)
    assert (facts.server_name, facts.client) == ("mx.example.com", None)


def test_client_of_our_own(tmp_path: Path) -> None:
    context = load_all(settings(tmp_path, client_ca=write_ca(tmp_path)), "ask")[0].context
    pair = issue(tmp_path, "printer@example.com", stem="printer", common_name="printer, 2nd floor")
    _, theirs = shake(client_context(pair), context, "mx.example.com")
    client = facts_of(theirs).client
    assert isinstance(client, ClientCertificate)
    assert client.subject.startswith("CN=printer\\, 2nd floor,OU=")
    assert ",O=trustme" in client.subject
    der = ssl.PEM_cert_to_DER_cert(pair.certificate.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----")
    assert client.fingerprint == hashlib.sha256(der).hexdigest()


def test_who_is_not_asked_shows_nothing(tmp_path: Path) -> None:
    context = load_all(settings(tmp_path), "none")[0].context
    pair = issue(tmp_path, "printer@example.com", stem="printer")
    _, theirs = shake(client_context(pair), context, "mx.example.com")
    assert facts_of(theirs).client is None


def test_minimum_version(tmp_path: Path) -> None:
    context = load_all(settings(tmp_path, minimum_version="1.3"), "none")[0].context
    client = client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="unsupported protocol"):
        shake(client, context, "mx.example.com")


def test_only_ciphers_of_today(tmp_path: Path) -> None:
    context = load_all(settings(tmp_path), "none")[0].context
    names = {cipher["name"] for cipher in context.get_ciphers()}
    assert names
    assert all(name.startswith("TLS_") or ("ECDHE" in name and ("GCM" in name or "POLY" in name)) for name in names)
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_keys_of_other_kinds(
    tmp_path: Path, version: ssl.TLSVersion, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> None:
    """The one group for the key exchange says nothing of the certificate's own key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "both.pem").write_bytes(pem)
    files = CertificateFiles(f"{tmp_path}/both.pem", f"{tmp_path}/both.pem")
    client = client_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.minimum_version = client.maximum_version = version
    _, theirs = shake(client, load_all(TlsSettings((files,)), "none")[0].context, "mx.example.com")
    assert facts_of(theirs).version == version.name.replace("_", ".")


def test_channel_bindings(tmp_path: Path) -> None:
    context = load_all(settings(tmp_path), "none")[0].context
    client = client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, theirs = shake(client, context, "mx.example.com")
    binding = channel_binding(theirs)
    assert binding is not None
    assert (binding.name, binding.data) == ("tls-unique", ours.get_channel_binding("tls-unique"))
    assert repr(binding.data) not in repr(binding)
    _, theirs = shake(client_context(), context, "mx.example.com")
    binding = channel_binding(theirs)
    assert (binding is not None) is ("tls-exporter" in ssl.CHANNEL_BINDING_TYPES)


def test_self_signed() -> None:
    tls = TlsSettings(self_signed_for="mx.example.com")
    assert [*mistakes(tls)] == []
    (loaded,) = load_all(tls, "none")
    assert loaded.certificate.names == ("mx.example.com", "localhost")
    assert loaded.path == ""
    (again,) = load_all(tls, "none")
    assert again.certificate == loaded.certificate  # for as long as the process lives
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=self_signed.make("mx.example.com").decode())
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    shake(client, loaded.context, "mx.example.com")


def test_self_signed_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_signed, "is_possible", lambda: False)
    with pytest.raises(TlsError, match="pip install"):
        load_all(TlsSettings(self_signed_for="without.example.com"), "none")


def test_long_host_name() -> None:
    name = f"{'a' * 60}.{'b' * 60}.example.com"
    assert load_all(TlsSettings(self_signed_for=name), "none")[0].certificate.names == (name, "localhost")


def test_unreadable_certificates_are_mistakes_and_no_doubts(tmp_path: Path) -> None:
    tls = TlsSettings((CertificateFiles(f"{tmp_path}/no.pem", f"{tmp_path}/no.key"),))
    (mistake,) = mistakes(tls)
    assert mistake.loc == ("certificates", 0, "certificate")
    assert [*doubts(tls, 0.0)] == []
    with pytest.raises(TlsError, match="No such file"):
        load_all(tls, "none")


def test_vanished_client_ca(tmp_path: Path) -> None:
    tls = settings(tmp_path, client_ca=f"{tmp_path}/no.pem")
    load_all(tls, "none")
    with pytest.raises(TlsError, match="No such file"):
        load_all(tls, "require")


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ((), ""),
        (((("commonName", "printer"),),), "CN=printer"),
        (
            ((("countryName", "AT"),), (("organizationName", "A, B & C"),), (("commonName", "x"),)),
            "CN=x,O=A\\, B & C,C=AT",
        ),
        (((("commonName", "x"), ("userId", "y")),), "CN=x+UID=y"),
        (((("commonName", "#1 \\ "),),), "CN=\\#1 \\\\\\ "),
        (((("commonName", " "),),), "CN=\\ "),
        (((("commonName", 'a"b+c;d<e>f'),),), 'CN=a\\"b\\+c\\;d\\<e\\>f'),
        (((("emailAddress", "a@b.example"),),), "emailAddress=a@b.example"),
    ],
)
def test_distinguished_names(subject: object, expected: str) -> None:
    """RFC 4514 §2."""
    assert distinguished_name(subject) == expected


def test_expiry_words(tmp_path: Path) -> None:
    (loaded,) = load_all(settings(tmp_path), "none")
    end = loaded.certificate.not_after
    assert contexts.expiry(loaded.certificate, end - 15 * 86400) == ""
    assert contexts.expiry(loaded.certificate, end - 13 * 86400).startswith("expires on 2")
    assert contexts.expiry(loaded.certificate, end + 1).startswith("has expired on 2")
