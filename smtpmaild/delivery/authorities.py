"""Whom agents trust when a server proves who it is: the same for SMTP and https, and with every Python.

`ssl.create_default_context()` is not used: from Python 3.13 on it wants of authorities all that RFC 5280 does
(VERIFY_X509_STRICT). Many who run one of their own have it without, and an upgrade of Python would hold up their mail.
"""

from __future__ import annotations

import ssl


def verifying_context(ca_file: str) -> ssl.SSLContext:
    """For a client: TLS 1.2 or later, and a certificate for the server's name.

    ca_file: trust these authorities (PEM) alone; "": those of the system. Raises OSError where they cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.load_default_certs()
    return context
