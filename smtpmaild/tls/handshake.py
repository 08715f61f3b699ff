"""What is known of a client once its handshake is finished."""

from __future__ import annotations

import hashlib
import ssl
from typing import Any

from smtpmaild.auth import ChannelBinding
from smtpmaild.envelope import ClientCertificate, Tls
from smtpmaild.tls.contexts import TlsObject

# RFC 4514 §3, from the names that OpenSSL has for them; the others keep OpenSSL's name.
_SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
# RFC 4514 §2.4: what is escaped wherever it stands.
_SPECIAL = str.maketrans({character: f"\\{character}" for character in '"+,;<>\\'} | {"\0": "\\00"})


def facts_of(tls: ssl.SSLObject) -> Tls:
    """Version, cipher, the name asked for, and the client's certificate if it showed one that was verified.

    The name is known of connections that our own contexts made; those of a program keep it to themselves.
    """
    cipher, version = tls.cipher(), tls.version()
    assert cipher is not None and version is not None, "the handshake is finished"
    server_name = tls.server_name if isinstance(tls, TlsObject) else ""
    return Tls(version, cipher[0], cipher[2], server_name, _client(tls))


def _client(tls: ssl.SSLObject) -> ClientCertificate | None:
    decoded = tls.getpeercert()  # {} where it was not verified
    der = tls.getpeercert(binary_form=True)
    if not decoded or not der:
        return None
    return ClientCertificate(distinguished_name(decoded["subject"]), hashlib.sha256(der).hexdigest())


def distinguished_name(subject: Any) -> str:
    """A subject as ssl decodes it, in the words of RFC 4514: the last relative name first."""
    return ",".join("+".join(_attribute(*pair) for pair in relative) for relative in reversed(subject))


def _attribute(name: str, value: str) -> str:
    text = value.translate(_SPECIAL)
    if text.endswith(" "):
        text = f"{text[:-1]}\\ "
    if text.startswith((" ", "#")):
        text = f"\\{text}"
    return f"{_SHORT_NAMES.get(name, name)}={text}"


def channel_binding(tls: ssl.SSLObject) -> ChannelBinding | None:
    """What SCRAM-PLUS binds to: tls-exporter (RFC 9266) where Python has it; before TLS 1.3 tls-unique (RFC 5929),
    which is undefined from then on."""
    name = "tls-unique" if tls.version() == "TLSv1.2" else "tls-exporter"
    if name not in ssl.CHANNEL_BINDING_TYPES:
        return None
    data = tls.get_channel_binding(name)
    return ChannelBinding(name, data) if data else None
