"""Certificates as they are on disk: whoever renews them need not tell us.

Doors ask for a context at each handshake. `look` is called every few seconds, in a thread: files that have changed, and
have stayed the same since the look before (certificate and key are not renewed in one step), are read again. A bad new
one is logged and the old one stays; no connection notices either. Once a day they are read in any case: session tickets
(RFC 8446 §4.6.1) are encrypted with a key of the context, and no such key shall be older.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from ssl import SSLContext

from smtpmaild.facts import Log
from smtpmaild.tls import contexts
from smtpmaild.tls.contexts import Loaded
from smtpmaild.tls.settings import ClientCertificates, TlsError, TlsSettings

_DAY = 86400.0

_Stamps = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """All contexts of one section `tls`. clients: what its listeners want of client certificates, each of them once.

    Raises TlsError where they cannot be made.
    """

    def __init__(
        self,
        settings: TlsSettings,
        clients: Collection[ClientCertificates],
        log: Log,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._log = log
        self._clock = clock
        self._stamps = self._seen = self._stat()
        self._loaded = self._load()
        self._read_at = clock()
        self._warned_at = 0.0

    def context(self, clients: ClientCertificates) -> SSLContext:
        """What the next handshake begins with."""
        return self._loaded[clients][0].context

    def look(self) -> None:
        """Read again what has changed; warn once a day of what expires. Blocks."""
        stamps, now = self._stat(), self._clock()
        has_changed = stamps != self._stamps and stamps == self._seen
        self._seen = stamps
        if has_changed or now - self._read_at >= _DAY:
            self._read_again(stamps, now, has_changed)
        if now - self._warned_at >= _DAY:
            self._warned_at = now
            self._warn(now)

    def _read_again(self, stamps: _Stamps, now: float, has_changed: bool) -> None:
        self._stamps, self._read_at = stamps, now  # a bad one is not tried again until it changes
        try:
            self._loaded = self._load()
        except TlsError as error:
            self._log.error("certificates_refused", cause=str(error))
            return
        if has_changed:
            first = self._loaded_once()[0].certificate
            self._log.info("certificates_reread", names=[*first.names], expires=first.last_day)
            self._warned_at = 0.0

    def _warn(self, now: float) -> None:
        for one in self._loaded_once():
            if words := contexts.expiry(one.certificate, now):
                self._log.warning("certificate_expires", certificate=one.path, names=[*one.names], cause=words)

    def _load(self) -> Mapping[ClientCertificates, list[Loaded]]:
        return {clients: contexts.load_all(self._settings, clients) for clients in self._clients}

    def _loaded_once(self) -> list[Loaded]:
        return next(iter(self._loaded.values()))

    def _stat(self) -> _Stamps:
        return tuple(_stamp(path) for path in self._settings.paths)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
