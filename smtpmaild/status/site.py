"""The addresses of the status page: who may ask what.

| address                  | wants the token                                 | answers                                |
|--------------------------|-------------------------------------------------|----------------------------------------|
| /livez, /readyz          | never; details only to who may read             | 200 or 503, a line for each check      |
| /, /page/...             | never: there is nothing in them                 | the page                               |
| /api/session             | never                                           | what may be done, with the token shown |
| /metrics, GET /api/...   | beyond this machine, or `token_for: everything` | text for Prometheus; JSON              |
| POST /api/queue/VERB     | always; without a token_file it is refused      | the recipients that were changed       |
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from smtpmaild.queue.shards import Who
from smtpmaild.status.exposition import exposed
from smtpmaild.status.health import Check, live, ready, told
from smtpmaild.status.messages import Messages
from smtpmaild.status.minutes import COLUMNS, Minutes
from smtpmaild.status.observed import Observer, as_json
from smtpmaild.web.events import Broadcast
from smtpmaild.web.files import Files
from smtpmaild.web.guard import Guard, Token, unauthorized

#: What the page may do with the queue, and nothing else.
VERBS = ("retry", "hold", "release", "drop")
#: Vendored, with their version in the name.
VERSIONED = frozenset({"vendor/uplot-1.6.32.js", "vendor/uplot-1.6.32.css"})
#: Messages of a destination that are listed, and that one order may change.
_MOST_LISTED = 200
_MOST_CHANGED = 1000
_LONGEST_WHY = 500

Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may. token: None where the configuration names none.  for_reading: it is wanted for that too.  hosts,
    any_host: see Guard."""

    token: Token | None = None
    for_reading: bool = False
    hosts: Sequence[str] = ()
    any_host: bool = False

    def may_read(self, request: Request) -> bool:
        """See what is known."""
        return not self.for_reading or self.may_steer(request)

    def may_steer(self, request: Request) -> bool:
        """Change what is in the queue."""
        return self.token is not None and self.token.is_shown_in(request)


class Site:
    """Everything that is answered. messages: None where no history is kept.  has_page: False for monitoring alone."""

    def __init__(
        self,
        observer: Observer,
        minutes: Minutes,
        broadcast: Broadcast,
        messages: Messages | None,
        access: Access,
        *,
        has_page: bool = True,
    ) -> None:
        self._observer = observer
        self._minutes = minutes
        self._broadcast = broadcast
        self._messages = messages
        self._access = access
        self._files = Files(package_files("smtpmaild.status") / "page", VERSIONED) if has_page else None
        routes = [
            Route("/livez", self._live),
            Route("/readyz", self._ready),
            Route("/metrics", self._read(self._metrics)),
        ]
        if has_page:
            routes += self._page_routes()
        self.app: ASGIApp = Guard(Starlette(routes=routes), hosts=access.hosts, any_host=access.any_host)

    def _page_routes(self) -> list[Route]:
        return [
            Route("/", self._page),
            Route("/page/{path:path}", self._page),
            Route("/api/session", self._session),
            Route("/api/overview", self._read(self._overview)),
            Route("/api/minutes", self._read(self._chart)),
            Route("/api/messages", self._read(self._latest)),
            Route("/api/messages/{name}", self._read(self._life)),
            Route("/api/queue", self._read(self._waiting)),
            Route("/api/queue/{verb}", self._change, methods=["POST"]),
            Route("/api/events", _Streaming(self._access, self._observer, self._broadcast)),
        ]

    def _read(self, answer: Answer) -> Answer:
        """The same, for those who may read."""

        async def guarded(request: Request) -> Response:
            return await answer(request) if self._access.may_read(request) else unauthorized()

        return guarded

    # For monitoring

    async def _live(self, request: Request) -> Response:
        observer = self._observer
        summary = observer.desk.workers()
        return self._told(request, live(observer.lag, summary, observer.now()))

    async def _ready(self, request: Request) -> Response:
        return self._told(request, ready(await self._observer.look(), self._observer.queue_limits))

    def _told(self, request: Request, checks: Sequence[Check]) -> Response:
        status, text = told(checks, in_detail=self._access.may_read(request))
        return PlainTextResponse(text, status)

    async def _metrics(self, request: Request) -> Response:
        text, content_type = exposed(await self._observer.look(), request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    # The page

    async def _page(self, request: Request) -> Response:
        assert self._files is not None, "there is a route to it only where there is a page"
        return self._files.answer(request, request.path_params.get("path", "index.html"))

    async def _session(self, request: Request) -> Response:
        access = self._access
        can = {
            "may_read": access.may_read(request),
            "may_steer": access.may_steer(request),
            "has_token": access.token is not None,
            "has_history": self._messages is not None,
        }
        return JSONResponse(can)

    async def _overview(self, request: Request) -> Response:
        return JSONResponse(as_json(await self._observer.look()))

    async def _chart(self, request: Request) -> Response:
        return JSONResponse({"columns": COLUMNS, "rows": self._minutes.rows})

    async def _latest(self, request: Request) -> Response:
        if self._messages is None:
            return JSONResponse([])
        return await _from_history(self._messages.latest(request.query_params.get("q", "")))

    async def _life(self, request: Request) -> Response:
        if self._messages is None:
            return JSONResponse([])
        return await _from_history(self._messages.life(request.path_params["name"]))

    async def _waiting(self, request: Request) -> Response:
        destination = request.query_params.get("destination", "")
        return JSONResponse(await self._observer.waiting(destination, _MOST_LISTED))

    async def _change(self, request: Request) -> Response:
        verb = request.path_params["verb"]
        if not self._access.may_steer(request):
            return unauthorized()
        order = _order(await request.body())
        if verb not in VERBS or order is None:
            return PlainTextResponse(f'POST /api/queue/({"|".join(VERBS)}) {{"ids": ["..."], "why": "..."}}\n', 400)
        try:
            changed = await self._observer.desk.change(verb, {"ids": order["ids"]}, Who("status page"), order["why"])
        except OSError as error:
            return PlainTextResponse(f"The queue cannot be changed: {error.strerror}\n", 503)
        return JSONResponse({"changed": len(changed)})


class _Streaming:
    """The answer to a page that listens. An ASGI application, for a stream is not a Response that waits for its end."""

    def __init__(self, access: Access, observer: Observer, broadcast: Broadcast) -> None:
        self._access = access
        self._observer = observer
        self._broadcast = broadcast

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp
        if not self._access.may_read(Request(scope)):
            answer = unauthorized()
        else:
            overview = as_json(await self._observer.look())
            answer = self._broadcast.stream([("overview", overview)])
        await answer(scope, receive, send)


async def _from_history(found: Awaitable[list[dict[str, Any]]]) -> Response:
    try:
        return JSONResponse(await found)
    except OSError:
        # It is there from the first event on; why it cannot be read stands in the log.
        return JSONResponse([])


def _order(body: bytes) -> Mapping[str, Any] | None:
    """{"ids": which messages, "why": in words}; None for anything else."""
    try:
        order = json.loads(body)
        ids, why = order["ids"], order["why"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    is_good = (
        isinstance(ids, list)
        and 0 < len(ids) <= _MOST_CHANGED
        and all(isinstance(one, str) and one for one in ids)
        and isinstance(why, str)
        and len(why) <= _LONGEST_WHY
    )
    return order if is_good else None
