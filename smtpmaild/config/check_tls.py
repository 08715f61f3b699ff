"""What would keep TLS from working, or working for long: files, dates, rights, words that OpenSSL does not know."""

from __future__ import annotations

import os
import time

from smtpmaild.config.findings import Finding, Findings
from smtpmaild.config.listeners import Listener
from smtpmaild.config.models import Config
from smtpmaild.config.rights import rights_of
from smtpmaild.config.tls import is_offered
from smtpmaild.tls import contexts
from smtpmaild.tls.settings import ClientCertificates


def tls_listeners(config: Config) -> Findings:
    """Listeners with TLS need certificates, and those without have no use for what belongs to it."""
    has_certificates = bool(config.tls.certificates) or config.tls.self_signed
    for number, listener in enumerate(config.listeners):
        if is_offered(listener.tls):
            if not has_certificates:
                message = f"listener '{listener.name}' offers TLS, and there is no certificate under tls.certificates"
                yield Finding(("listeners", number, "tls"), message)
            if clients_of(config, listener) != "none" and config.tls.client_ca is None:
                yield from _without_ca(number, listener)
        elif listener.client_certificates not in (None, "none"):
            message = f"client certificates come with TLS, and listener '{listener.name}' has none"
            yield Finding(("listeners", number, "client_certificates"), message)


def clients_of(config: Config, listener: Listener) -> ClientCertificates:
    """What this listener wants of its clients' certificates."""
    return listener.client_certificates or config.tls.client_certificates


def _without_ca(number: int, listener: Listener) -> Findings:
    message = "nobody is known to sign certificates of clients: name the file as tls.client_ca"
    if listener.client_certificates is not None:
        yield Finding(("listeners", number, "client_certificates"), message)
    else:
        yield Finding(("tls", "client_certificates"), message)


def tls_files(config: Config) -> Findings:
    """Certificates, keys and ciphers, tried with OpenSSL."""
    section = config.tls
    if section.self_signed and section.certificates:
        yield Finding(("tls", "self_signed"), "there are certificates: none is made beside them", of_key=True)
        return
    settings = section.settings(config.hostname)
    for mistake in contexts.mistakes(settings):
        loc = ("tls", *mistake.loc)
        yield Finding(_existing(config, loc), str(mistake))
    for doubt in contexts.doubts(settings, time.time()):
        yield Finding(_existing(config, ("tls", *doubt.loc)), str(doubt), "warning")


def _existing(config: Config, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A key that was left out stands with the certificate."""
    if loc[-1] == "key" and isinstance(loc[2], int) and config.tls.certificates[loc[2]].key is None:
        return (*loc[:-1], "certificate")
    return loc


def tls_rights(config: Config) -> Findings:
    """Files that only root can read are read at start, and never again when they are renewed."""
    paths = {
        ("tls", "certificates", index, key): path
        for index, one in enumerate(config.tls.certificates)
        for key, path in (("certificate", one.certificate), ("key", one.key))
        if path is not None
    }
    with rights_of(config.user, config.group):
        unreadable = {loc: path for loc, path in paths.items() if not os.access(path, os.R_OK, effective_ids=True)}
    for loc, path in unreadable.items():
        if config.user and os.access(path, os.R_OK):
            message = f"'{config.user}' cannot read '{path}': a renewed one is not noticed before a restart"
            yield Finding(loc, message, "warning")
