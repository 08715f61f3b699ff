"""The SMTP side of the room, in an event loop that is there: takes everything, from anybody, for anybody.

The daemon's own connections and protocol, with a chain that knows chosen failures only, a router that knows everybody
and a store that is an `Inbox`. Nothing of it leads out: there is no queue and no delivery agent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from smtpmaild.dev.failures import Failures
from smtpmaild.dev.inbox import Inbox
from smtpmaild.dev.login import Logins
from smtpmaild.dev.sink import INBOX, Everybody, InboxSink
from smtpmaild.envelope import Session
from smtpmaild.facts import Log
from smtpmaild.idn import to_ascii
from smtpmaild.metrics import Metrics
from smtpmaild.policy import Mode
from smtpmaild.policy.chain import Chain
from smtpmaild.server.connection import Connection
from smtpmaild.server.counts import Counts
from smtpmaild.server.listener import Door, Listener, Room, TlsOffer
from smtpmaild.server.sockets import InheritedSockets, SocketTable, TcpAddress, name_of
from smtpmaild.service import Service
from smtpmaild.smtp.extension import EXTENSIONS, Dialect, ServerOptions
from smtpmaild.tls.certificates import Certificates
from smtpmaild.tls.settings import CertificateFiles, TlsSettings

TlsMode = Literal["none", "optional", "required", "implicit"]
AuthMode = Literal["none", "optional", "required"]

_SWEEP_SECONDS = 1.0
_BACKLOG = 256
#: No message of a program under test has more, and a client that runs wild stops.
_RECIPIENTS = 100_000
#: For sessions to be gone, once they were told.
_FAREWELL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a catcher may be told.

    port: 0 lets the kernel choose.  hostname: how it calls itself.  tls: none, optional (STARTTLS is offered),
    required, implicit.  certificate: one to show instead of a self-signed one.  auth: none, optional, required.
    accounts: user -> password; None: every login is right.  Raises ValueError for what is none of these.
    """

    host: str = "127.0.0.1"
    port: int = 0
    hostname: str = "localhost"
    tls: TlsMode = "none"
    certificate: CertificateFiles | None = None
    auth: AuthMode = "optional"
    accounts: Mapping[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # The kernel would take a larger port for another one, and a test would go on without the TLS it asked for.
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is a number from 0 to 65535, not {self.port!r}")
        for name, value, words in (("tls", self.tls, get_args(TlsMode)), ("auth", self.auth, get_args(AuthMode))):
            if value not in words:
                raise ValueError(f"{name} is {', '.join(words[:-1])} or {words[-1]}, not {value!r}")


class Catcher:
    """One listener and what is behind it. start() and stop() in the thread of the loop.

    addresses: where it listens, as host:port; a name may have several.
    """

    def __init__(self, settings: Settings, inbox: Inbox, log: Log) -> None:
        """Raises TlsError where TLS is asked for and cannot be had."""
        self.inbox = inbox
        self.settings = settings
        self.addresses: list[str] = []
        self.failures = Failures(random.random, asyncio.sleep, self._drop)
        self._log = log
        self._table = SocketTable(InheritedSockets({}))
        self._door = Door(_service(settings, inbox, self.failures, log), tls=_tls_offer(settings, log))
        self._listener: Listener | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    @property
    def port(self) -> int:
        """Where it listens, or did."""
        return int(self.addresses[0].rpartition(":")[2])

    @property
    def sessions(self) -> int:
        """Those that are open now."""
        return len(self._listener.connections) if self._listener is not None else 0

    async def start(self) -> None:
        """Listen. Raises SocketError."""
        address = TcpAddress(self.settings.host, self.settings.port)
        self._table = self._table.rebind([("smtp", address, _BACKLOG)])
        self.addresses = [name_of(sock) for sock in self._table.get(address)]
        loop = asyncio.get_running_loop()
        counts = Counts(1).worker(0)
        self._listener = Listener(self._door, counts, Room.of_this_process(), loop, self._empty.set)
        for sock in self._table.get(address):
            await self._listener.open(sock, _BACKLOG)
        self._sweep = loop.call_later(_SWEEP_SECONDS, self._tick, loop)

    async def stop(self) -> None:
        """End the sessions and close."""
        listener, self._listener = self._listener, None
        if self._sweep is not None:
            self._sweep.cancel()
        try:
            if listener is not None:
                await self._end(listener)
        finally:
            self._table.close_all_but()

    async def _end(self, listener: Listener) -> None:
        listener.close()
        listener.abort()
        await listener.finish_tasks(0)
        listener.kill()
        if listener.connections:
            self._empty.clear()
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._empty.wait()
        await asyncio.gather(*listener.tasks, return_exceptions=True)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._listener is not None, "stop() cancels the timer"
        self._listener.sweep(loop.time())
        self._sweep = loop.call_later(_SWEEP_SECONDS, self._tick, loop)

    def _drop(self, session: Session) -> None:
        if self._listener is not None:
            for connection in [*self._listener.connections]:
                if isinstance(connection, Connection) and connection.session is session:
                    connection.kill()


def _service(settings: Settings, inbox: Inbox, failures: Failures, log: Log) -> Service:
    logins = Logins(failures, settings.accounts) if settings.auth != "none" else None
    options = ServerOptions(
        hostname=settings.hostname,
        banner="ESMTP smtpmaild dev: catches everything, sends nothing on",
        message_size=inbox.bounds.message,
        recipients=_RECIPIENTS,
        body_line=0,
        keep_bare_newlines=True,
        allow_bare_lf=True,
        to_ascii=to_ascii,
        starttls=settings.tls in ("optional", "required"),
        requires_tls=settings.tls == "required",
        mechanisms=logins.mechanisms if logins is not None else (),
        auth_in_clear=True,
        requires_auth=settings.auth == "required",
        reports=True,
    )
    metrics = Metrics()
    return Service(
        listener="dev",
        dialect=Dialect(options, EXTENSIONS),
        chain=Chain.compile([(failures, Mode.ENFORCE)], log, metrics),
        router=Everybody(),
        sinks={INBOX: InboxSink(inbox)},
        log=log,
        metrics=metrics,
        authenticator=logins,
    )


def _tls_offer(settings: Settings, log: Log) -> TlsOffer | None:
    if settings.tls == "none":
        return None
    given = (settings.certificate,) if settings.certificate is not None else ()
    tls = TlsSettings(given, self_signed_for="" if given else settings.hostname)
    return TlsOffer(Certificates(tls, {"none"}, log), is_implicit=settings.tls == "implicit")
