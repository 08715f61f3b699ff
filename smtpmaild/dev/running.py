"""`smtpmaild dev`: the catcher, the page beside it, and one line for each message, until a signal.

SMTP listens before anything of the web is imported: who starts a program beside it need not wait.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smtpmaild import __version__
from smtpmaild.dev.catcher import Catcher, Settings
from smtpmaild.dev.caught import Caught
from smtpmaild.dev.failures import Failure
from smtpmaild.dev.inbox import Bounds, Change, Inbox
from smtpmaild.facts import Log
from smtpmaild.server.sockets import TcpAddress

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says. http: the port of the page, None for no page.  as_json: lines for scripts."""

    settings: Settings
    bounds: Bounds
    http: int | None
    failures: Sequence[Failure] = ()
    as_json: bool = False


async def run(wishes: Wishes, log: Log, escaped: Callable[[str], str], say: Say) -> None:
    """Serve until SIGINT or SIGTERM. Raises SocketError, TlsError before anything is served.

    escaped: makes text of strangers harmless for a terminal.
    """
    inbox = Inbox(wishes.bounds)
    catcher = Catcher(wishes.settings, inbox, log)
    catcher.failures.replace(wishes.failures)
    told = Told(say, escaped, as_json=wishes.as_json)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await catcher.start()
    try:
        told.listening("smtp", catcher.addresses)
        inbox.listen(told.changed)
        if wishes.http is None:
            await stop.wait()
        else:
            await _with_page(wishes.http, catcher, log, told, stop)
    finally:
        await catcher.stop()


async def _with_page(port: int, catcher: Catcher, log: Log, told: Told, stop: asyncio.Event) -> None:
    from smtpmaild.dev.api import Api
    from smtpmaild.web.guard import Guard
    from smtpmaild.web.serving import WebServer, is_loopback

    api = Api(catcher.inbox, catcher.failures, catcher.addresses)
    address = TcpAddress(catcher.settings.host, port)
    app = Guard(api, any_host=not is_loopback(address), hosts=[catcher.settings.host])
    server = WebServer(app, address, log, name="inbox", streams=[api.events])
    server.start(asyncio.get_running_loop())
    try:
        told.listening("http", server.urls)
        await stop.wait()
    finally:
        await server.stop()


class Told:
    """What is printed: lines for people, or JSON."""

    def __init__(self, say: Say, escaped: Callable[[str], str], *, as_json: bool) -> None:
        self._out = say
        self._escaped = escaped
        self._as_json = as_json
        if not as_json:
            self._say(f"smtpmaild {__version__} catches all mail and sends nothing on; Ctrl-C ends it")

    def _say(self, line: str) -> None:
        try:
            self._out(line)
        except OSError:  # `| head -1`: nobody reads on, and mail comes in all the same
            pass

    def listening(self, what: str, where: Sequence[str]) -> None:
        """Something takes connections."""
        self._say(json.dumps({what: [*where]}) if self._as_json else f"  {what}  {'  '.join(where)}")

    def changed(self, change: Change) -> None:
        """A Listener of the inbox."""
        kind, message = change
        if kind == "caught" and message is not None:
            self._say(self._as_line(message))

    def _as_line(self, message: Caught) -> str:
        if self._as_json:
            facts = {"id": message.id, "sender": message.sender, "recipients": message.recipients}
            return json.dumps({"caught": {**facts, "subject": message.subject, "size": len(message.raw)}})
        more = f" and {len(message.recipients) - 2} more" if len(message.recipients) > 2 else ""
        addresses = f"<{message.sender}> to {', '.join(message.recipients[:2])}{more}"
        return self._escaped(f"{addresses}: {message.subject[:200] or '(no subject)'}")
