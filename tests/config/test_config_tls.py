"""Certificates and keys in the file: what OpenSSL says of them, told with the line that named them."""

from __future__ import annotations

import datetime
import importlib.util
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from authority import issue, write_ca
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from smtpmaild.config import Config, ConfigError
from smtpmaild.config.reading import load_text
from smtpmaild.tls import self_signed

#: The entries of tls.certificates begin in line 5.
CONFIG = """\
user: root
listeners: [{{name: mx, listen: ["127.0.0.1:2525"], tls: optional}}]
tls:
  certificates:
{entries}
  {more}
local_domains: {{example.com: {{deliver: mail}}}}
deliver_to: {{mail: {{type: discard}}}}
"""


def read(folder: Path, *entries: str, more: str = "", user: str = "root") -> Config:
    text = CONFIG.format(entries="\n".join(f"    - {{{entry}}}" for entry in entries), more=more)
    return load_text(text.replace("user: root", f"user: {user}"), str(folder / "smtp.yaml"))


def refused(folder: Path, *entries: str, more: str = "") -> list[str]:
    """What is wrong, with line and column, without the name of the folder."""
    with pytest.raises(ConfigError) as caught:
        read(folder, *entries, more=more)
    return [
        f"{one.line}:{one.column} {one.message}".replace(f"{folder}/", "")
        for one in caught.value.mistakes
        if one.is_error
    ]


def warned(config: Config, folder: Path) -> list[str]:
    return [f"{one.line}:{one.column} {one.message}".replace(f"{folder}/", "") for one in config.warnings]


def secret(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o600)


def test_certificate_and_key(tmp_path: Path) -> None:
    issue(tmp_path)
    config = read(tmp_path, "certificate: mx.example.com.pem, key: mx.example.com.key")
    assert config.warnings == ()
    assert config.tls.settings("h").paths == [f"{tmp_path}/mx.example.com.pem", f"{tmp_path}/mx.example.com.key"]


def test_key_in_the_file_of_the_certificate(tmp_path: Path) -> None:
    pair = issue(tmp_path)
    secret(tmp_path, "both.pem", pair.certificate.read_text() + pair.key.read_text())
    assert read(tmp_path, "certificate: both.pem").warnings == ()
    assert refused(tmp_path, "certificate: mx.example.com.pem") == [
        "5:21 there is no private key in 'mx.example.com.pem'"
    ]


def test_keys_that_do_not_fit(tmp_path: Path) -> None:
    issue(tmp_path)
    issue(tmp_path, "other.example.com")
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret(tmp_path, "rsa.key", pem.decode())
    secret(tmp_path, "rubbish.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    certificate = "certificate: mx.example.com.pem"
    assert refused(
        tmp_path,
        f"{certificate}, key: other.example.com.key",
        f"{certificate}, key: rsa.key",
        f"{certificate}, key: rubbish.key",
        f"{certificate}, key: mx.example.com.pem",
    ) == [
        "5:46 'other.example.com.key' is not the key of the first certificate in 'mx.example.com.pem'",
        "6:46 'rsa.key' is not the key of the first certificate in 'mx.example.com.pem'",
        "7:46 OpenSSL cannot read the private key in 'rubbish.key'",
        "8:46 there is no private key in 'mx.example.com.pem'",
    ]


def test_passphrases(tmp_path: Path) -> None:
    issue(tmp_path, passphrase="open sesame")
    secret(tmp_path, "right", "open sesame\n")
    secret(tmp_path, "wrong", "open barley\n")
    pair = "certificate: mx.example.com.pem, key: mx.example.com.key"
    assert read(tmp_path, f"{pair}, key_passphrase_file: right").warnings == ()
    assert refused(tmp_path, pair, f"{pair}, key_passphrase_file: wrong") == [
        "5:46 the key in 'mx.example.com.key' has a passphrase: name the file with it as key_passphrase_file",
        "6:87 the passphrase does not open the key in 'mx.example.com.key'",
    ]


def test_passphrase_is_not_shown(tmp_path: Path) -> None:
    issue(tmp_path, passphrase="open sesame")
    secret(tmp_path, "right", "open sesame\n")
    config = read(tmp_path, "certificate: mx.example.com.pem, key: mx.example.com.key, key_passphrase_file: right")
    assert "sesame" not in repr(config) + repr(config.tls.settings("h"))


def test_what_is_no_certificate(tmp_path: Path) -> None:
    pair = issue(tmp_path)
    lines = pair.certificate.read_text().splitlines()
    (tmp_path / "cut.pem").write_text("\n".join(lines[:5]))
    (tmp_path / "short.pem").write_text("\n".join([lines[0], lines[1], lines[-1]]))
    (tmp_path / "rubbish.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    names = ("cut", "short", "rubbish")
    assert refused(tmp_path, *(f"certificate: {name}.pem, key: mx.example.com.key" for name in names)) == [
        f"{line}:21 there is no certificate in PEM in '{name}.pem'" for line, name in enumerate(names, 5)
    ]


def test_certificate_that_openssl_refuses(tmp_path: Path) -> None:
    pair = issue(tmp_path)
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "short.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=90))
        .sign(key, hashes.SHA256())
    )
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pair.key.write_bytes(pem)
    assert refused(tmp_path, "certificate: mx.example.com.pem, key: mx.example.com.key") == [
        "5:21 OpenSSL refuses 'mx.example.com.pem': ee key too small"
    ]


def test_expiry_is_a_warning(tmp_path: Path) -> None:
    issue(tmp_path, "old.example.com", days=-3)
    issue(tmp_path, "soon.example.com", days=13)
    issue(tmp_path, "later.example.com", days=15)
    names = ("old", "soon", "later")
    entries = [f"certificate: {name}.example.com.pem, key: {name}.example.com.key" for name in names]
    old, soon = warned(read(tmp_path, *entries), tmp_path)
    assert old.startswith("5:21 'old.example.com.pem' has expired on 20")
    assert soon.startswith("6:21 'soon.example.com.pem' expires on 20")


def test_key_that_everybody_can_read(tmp_path: Path) -> None:
    issue(tmp_path).key.chmod(0o644)
    assert warned(read(tmp_path, "certificate: mx.example.com.pem, key: mx.example.com.key"), tmp_path) == [
        "5:46 every user can read the private key in 'mx.example.com.key': chmod o-rwx it"
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="only root has files that others cannot read")
def test_key_that_only_root_can_read(tmp_path: Path) -> None:
    issue(tmp_path)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & stat.S_ISVTX:  # /tmp, where everybody may look
            break
        folder.chmod(0o755)
    config = read(tmp_path, "certificate: mx.example.com.pem, key: mx.example.com.key", user="nobody")
    assert warned(config, tmp_path) == [
        "5:46 'nobody' cannot read 'mx.example.com.key': a renewed one is not noticed before a restart"
    ]


def test_client_ca(tmp_path: Path) -> None:
    issue(tmp_path)
    write_ca(tmp_path)
    entry = "certificate: mx.example.com.pem, key: mx.example.com.key"
    config = read(tmp_path, entry, more="client_ca: ca.pem")
    assert config.tls.client_ca == f"{tmp_path}/ca.pem"
    assert refused(tmp_path, entry, more="client_ca: mx.example.com.key") == [
        "6:14 there is no certificate in PEM in 'mx.example.com.key'"
    ]
    assert refused(tmp_path, entry, more="client_ca: nothing.pem") == [
        "6:14 cannot read 'nothing.pem': No such file or directory"
    ]


def test_self_signed_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        assert name == "cryptography"

    find: Callable[[str], None] = missing
    monkeypatch.setattr(importlib.util, "find_spec", find)
    text = CONFIG.replace("certificates:", "self_signed: true").format(entries="", more="")
    with pytest.raises(ConfigError) as caught:
        load_text(text, str(tmp_path / "smtp.yaml"))
    assert [(one.line, one.message) for one in caught.value.mistakes] == [(3, self_signed.MISSING)]
