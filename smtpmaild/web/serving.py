"""Runs a web application in the event loop that is there: uvicorn, without its hands on signals, loop and log.

A `WebServer` is a companion: start() binds, so that a port in use is an error at once, and stop() ends what is open.
It never raises for what a client does. Errors of the application go to our log; requests are not logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from smtpmaild.facts import Log
from smtpmaild.server.sockets import Address, InheritedSockets, SocketTable, TcpAddress, name_of

#: Connections at once, live ones included; more are answered 503.
_CONNECTIONS = 200
#: A request's head; ours are short.
_HEAD = 16 * 1024
_KEEP_ALIVE_SECONDS = 15
#: For a client to send its request, and to take the last of its answer. uvicorn has no limit for either.
_IDLE_SECONDS = 20.0


class Ends(Protocol):
    """What keeps requests open: it must end before the server can."""

    def close(self) -> None: ...


class WebServer:
    """A web application at one address.

    name: what it is called in errors.  streams: are closed before the server waits for its requests.  sockets: those
    of the address, where somebody else has bound them and will close them; start() binds it otherwise.
    """

    def __init__(
        self,
        app: ASGIApp,
        address: Address,
        log: Log,
        *,
        name: str = "status",
        streams: Sequence[Ends] = (),
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self._app = app
        self._address = address
        self._log = log
        self._name = name
        self._streams = streams
        self._sockets = sockets
        self._table = SocketTable(InheritedSockets({}))
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> list[str]:
        """Where it listens, the port chosen; nothing before start() and after stop()."""
        return [name_of(sock) for sock in self._sockets]

    @property
    def urls(self) -> list[str]:
        """The same as a person types it; a Unix socket has none."""
        return [f"http://{one}/" for one in self.addresses if not one.startswith("/")]

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind, if that is still to be done, and serve. Raises SocketError."""
        _tell_errors_to(self._log)
        if not self._sockets:
            self._table = self._table.rebind([(self._name, self._address, 128)])
            self._sockets = self._table.get(self._address)
            self._log.info("listening", listener=self._name, address=" ".join(self.addresses))
        self._server = _Server(_configured(self._app))
        self._task = loop.create_task(self._run(self._server))

    async def stop(self) -> None:
        """Serve no more; whoever is being answered has a moment."""
        for stream in self._streams:
            stream.close()
        if self._task is None or self._server is None:
            return
        self._server.should_exit = True
        await self._task
        self._table.close_all_but()
        self._table = SocketTable(InheritedSockets({}))
        self._sockets, self._task = (), None

    async def _run(self, server: _Server) -> None:
        # uvicorn closes what it gets; others may still accept from ours.
        sockets = [sock.dup() for sock in self._sockets]
        try:
            await server.serve(sockets)
        except Exception:
            self._log.exception("web_server_failed", cause="it ended")
        finally:
            for sock in sockets:
                sock.close()


def is_loopback(address: Address) -> bool:
    """Only this machine can reach it."""
    if not isinstance(address, TcpAddress):
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host.lower() == "localhost"


def _configured(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=_HEAD,
    )


class _Server(uvicorn.Server):
    """uvicorn's server as a guest: signals belong to the daemon, and who does not read is not waited for."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._idle: dict[tuple[Any, Any], float] = {}

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._cut_off(time.monotonic())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _cut_off(self, now: float) -> None:
        """Drop clients that send half a request, or nothing, and those that do not take the rest of an answer.

        A connection is the same idle one as long as its last request is: those in use come to the next.
        """
        connections: set[Any] = self.server_state.connections
        idle = {(one, one.cycle) for one in connections if _is_idle(one)}
        self._idle = {key: self._idle.get(key, now) for key in idle}
        for (connection, _), since in self._idle.items():
            if now - since > _IDLE_SECONDS:
                connection.transport.abort()


def _is_idle(connection: Any) -> bool:
    cycle = connection.cycle
    # more_body: of a request that has come as far as its head; ours are short.
    return cycle is None or cycle.response_complete or cycle.more_body or connection.transport.is_closing()


class _ToLog(logging.Handler):
    """uvicorn's errors, as facts."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.getMessage().strip()
        if record.exc_info and isinstance(record.exc_info[1], ClientDisconnect):
            return  # in the middle of its request
        if record.exc_info and record.exc_info[1] is not None:
            try:
                raise record.exc_info[1]
            except BaseException:
                self._log.exception("web_request_failed", cause=cause)
        elif not cause.startswith(_NOT_WORTH_A_LINE):
            self._log.warning("web_server_warned", cause=cause)


#: What any client can make it say as often as it likes; the last is a live page that was cut off.
_NOT_WORTH_A_LINE = (
    "Invalid HTTP request received.",
    "Exceeded concurrency limit.",
    "Unsupported upgrade request.",
    "No supported WebSocket library",
    "ASGI callable returned without completing response.",
)


def _tell_errors_to(log: Log) -> None:
    logger = logging.getLogger("uvicorn.error")
    logger.handlers = [_ToLog(log)]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
