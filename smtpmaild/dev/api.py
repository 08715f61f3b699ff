"""The JSON API of the inbox, and the page in page/ that lives on it. docs/dev.md describes every path.

Whatever is read of a message is read in a thread: a large one takes seconds, and mail comes in meanwhile. No message
makes an answer fail. What is served of a message is never served as what its sender calls it: files are downloads of
harmless types and names, its HTML is a document in which nothing runs (frame.py).
"""

from __future__ import annotations

import asyncio
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from smtpmaild import __version__
from smtpmaild.dev import frame
from smtpmaild.dev.caught import Caught
from smtpmaild.dev.failures import Chosen, Failures, parse
from smtpmaild.dev.inbox import Change, Inbox
from smtpmaild.dev.reading import Part
from smtpmaild.dev.remarks import remarks_on
from smtpmaild.dev.search import Matches, in_place, matcher
from smtpmaild.web.events import Broadcast
from smtpmaild.web.files import Files
from smtpmaild.web.guard import CONTENT_SECURITY_POLICY

#: Messages in one answer, at most and by default.
_MOST, _USUAL = 1000, 100
#: Seconds that who waits may wait.
_LONGEST, _WAIT = 300.0, 10.0
#: Octets of the raw message that the page shows; all of it is a download.
_RAW_SHOWN = 1024 * 1024
_PAGE_POLICY = {"content-security-policy": f"{CONTENT_SECURITY_POLICY}; frame-src 'self'"}
#: Nothing of a message is ever a document of ours.
_CLOSED = {"content-security-policy": "default-src 'none'; sandbox", "content-disposition": "attachment"}
#: Types of files that are passed on; others are octets.
_HARMLESS = frame.PICTURE_TYPES - {"image/svg+xml"} | {"text/plain", "text/csv", "application/pdf", "application/zip"}
_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|\s]+')


class RequestError(Exception):
    """A request that cannot be answered; its text is for who sent it."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Api:
    """The application. addresses: where mail is taken, for the page. In the loop's thread, as all changes of the inbox
    are."""

    def __init__(self, inbox: Inbox, failures: Failures, addresses: Sequence[str]) -> None:
        self._inbox = inbox
        self._failures = failures
        self._addresses = addresses
        self._files = Files(files("smtpmaild.dev") / "page")
        self.events = Broadcast()
        inbox.listen(self._tell)
        self._app = Starlette(routes=self._routes(), exception_handlers={RequestError: _refused})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        await self._app(scope, receive, send)

    def _routes(self) -> list[Route]:
        return [
            Route("/", self._page),
            Route("/page/{path:path}", self._file),
            Route("/api/server", self._server),
            Route("/api/events", self._events),
            Route("/api/wait", self._wait),
            Route("/api/messages", self._list),
            Route("/api/messages", self._clear, methods=["DELETE"]),
            Route("/api/messages/{id}", self._message),
            Route("/api/messages/{id}", self._delete, methods=["DELETE"]),
            Route("/api/messages/{id}/raw", self._raw),
            Route("/api/messages/{id}/html", self._html),
            Route("/api/messages/{id}/parts/{number:int}", self._part),
            Route("/api/failures", self._list_failures),
            Route("/api/failures", self._change_failures, methods=["POST", "PUT", "DELETE"]),
        ]

    # The page

    async def _page(self, request: Request) -> Response:
        answer = self._files.answer(request, "index.html")
        answer.headers.update(_PAGE_POLICY)
        return answer

    async def _file(self, request: Request) -> Response:
        return self._files.answer(request, request.path_params["path"])

    def _tell(self, change: Change) -> None:
        kind, message = change
        self.events.send(kind, {"id": message.id if message is not None else None})

    async def _events(self, request: Request) -> Response:
        return _Streamed(self.events)

    async def _server(self, request: Request) -> Response:
        bounds = self._inbox.bounds
        return JSONResponse(
            {
                "version": __version__,
                "smtp": [*self._addresses],
                "messages": bounds.messages,
                "octets": bounds.octets,
                "dropped": self._inbox.dropped,
            }
        )

    # Messages

    async def _list(self, request: Request) -> Response:
        limit = int(_number(request, "limit", _USUAL, 0, _MOST))
        before = request.query_params.get("before")
        matches = _matcher(request.query_params)

        def found() -> tuple[int, list[object]]:
            newest_first = [message for message in reversed(self._inbox.messages) if matches(message)]
            shown = [message for message in newest_first if before is None or message.id < before]
            return len(newest_first), [summary(message) for message in shown[:limit]]

        count, messages = await asyncio.to_thread(found)
        return JSONResponse({"total": len(self._inbox.messages), "matching": count, "messages": messages})

    async def _wait(self, request: Request) -> Response:
        seconds = _number(request, "timeout", _WAIT, 0, _LONGEST)
        after = request.query_params.get("after", "")
        matches = _matcher(request.query_params)
        looked_at: set[str] = set()

        def found() -> Caught | None:
            for message in self._inbox.messages:
                if message.id > after and message.id not in looked_at:
                    looked_at.add(message.id)
                    if matches(message):
                        return message
            return None

        message = await self._until(found, seconds)
        if message is None:
            raise RequestError(f"no such message came within {seconds:g} s", 404)
        return JSONResponse(await asyncio.to_thread(details, message))

    async def _until(self, found: Callable[[], Caught | None], seconds: float) -> Caught | None:
        news = asyncio.Event()
        stop = self._inbox.listen(lambda _: news.set())
        try:
            async with asyncio.timeout(seconds):
                while True:
                    news.clear()
                    if (message := await asyncio.to_thread(found)) is not None:
                        return message
                    await news.wait()
        except TimeoutError:
            return None
        finally:
            stop()

    async def _clear(self, request: Request) -> Response:
        self._inbox.clear()
        return Response(status_code=204)

    async def _message(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(details, self._find(request)))

    async def _delete(self, request: Request) -> Response:
        self._inbox.delete(self._find(request).id)
        return Response(status_code=204)

    async def _raw(self, request: Request) -> Response:
        message = self._find(request)
        if "download" in request.query_params:
            disposition = {"content-disposition": f'attachment; filename="{message.id}.eml"'}
            return Response(message.raw, headers=_CLOSED | disposition, media_type="message/rfc822")
        # For the page: octets that are no UTF-8 are shown as such.
        return Response(
            message.raw[:_RAW_SHOWN].decode("utf-8", "replace").encode(),
            headers=_CLOSED | {"x-octets": str(len(message.raw))},
            media_type="text/plain",
        )

    async def _html(self, request: Request) -> Response:
        reading = self._find(request).reading
        content = await asyncio.to_thread(frame.document, reading)
        return Response(content, headers=frame.headers(remote=request.query_params.get("remote") == "1"))

    async def _part(self, request: Request) -> Response:
        message = self._find(request)
        parts = await asyncio.to_thread(lambda: message.reading.parts)
        number = request.path_params["number"]
        if number >= len(parts):
            raise RequestError("there is no such part", 404)
        part = parts[number]
        kind = part.type if part.type in _HARMLESS else "application/octet-stream"
        return Response(part.content, headers=_CLOSED | {"content-disposition": disposition_of(part)}, media_type=kind)

    def _find(self, request: Request) -> Caught:
        message = self._inbox.get(request.path_params["id"])
        if message is None:
            raise RequestError("there is no such message", 404)
        return message

    # Failures

    async def _list_failures(self, request: Request) -> Response:
        return JSONResponse([_failure(one) for one in self._failures.chosen])

    async def _change_failures(self, request: Request) -> Response:
        """PUT: these and no others.  POST: these too.  DELETE: none."""
        written = await _written_failures(request) if request.method != "DELETE" else []
        try:
            failures = [parse(text) for text in written]
        except ValueError as error:
            raise RequestError(str(error)) from None
        if request.method != "POST":
            self._failures.replace(())
        for failure in failures:
            self._failures.add(failure)
        return await self._list_failures(request)


class _Streamed(Response):
    """The stream of a Broadcast as an answer."""

    def __init__(self, events: Broadcast) -> None:
        super().__init__()
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._events.stream()(scope, receive, send)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError), "it is registered for these"
    return JSONResponse({"error": str(error)}, error.status)


async def _written_failures(request: Request) -> list[str]:
    try:
        written = json.loads(await request.body())
    except ValueError:
        raise RequestError("this wants JSON") from None
    except RecursionError:
        raise RequestError("this is nested too deep") from None
    if not isinstance(written, list) or not all(isinstance(text, str) for text in written):
        raise RequestError('this wants a list of failures, such as ["rcpt=451:0.1"]')
    return written


def _number(request: Request, name: str, usual: float, least: float, most: float) -> float:
    text = request.query_params.get(name)
    if text is None:
        return usual
    try:
        number = float(text)
    except ValueError:
        number = most + 1
    if not least <= number <= most:
        raise RequestError(f"{name} is a number from {least:g} to {most:g}")
    return number


def _matcher(parameters: Mapping[str, str]) -> Matches:
    tests = [matcher(parameters.get("query", ""))]
    tests += [in_place(place, parameters[place]) for place in ("from", "to", "subject") if place in parameters]
    return lambda message: all(test(message) for test in tests)


def _failure(chosen: Chosen) -> dict[str, object]:
    failure = chosen.failure
    return {
        "failure": str(failure),
        "stage": failure.stage,
        "action": failure.action,
        "probability": failure.probability,
        "times": failure.times,
        "address": failure.address,
        "hits": chosen.hits,
    }


def summary(message: Caught) -> dict[str, object]:
    """A message as a line of the list."""
    reading = message.reading
    return {
        "id": message.id,
        "received_at": datetime.fromtimestamp(message.received_at, UTC).isoformat(timespec="milliseconds"),
        "sender": message.sender,
        "recipients": [*message.recipients][:_USUAL],
        "from": reading.field("from"),
        "subject": reading.subject,
        "size": len(message.raw),
        "attachments": message.attachment_count,
    }


def details(message: Caught) -> dict[str, object]:
    """All of a message but its octets."""
    reading, bcc = message.reading, frozenset(message.bcc)
    html = reading.html
    parameters = message.recipient_parameters or ({},) * len(message.recipients)
    return {
        **summary(message),
        "recipients": [*message.recipients],
        "envelope": {
            "sender": message.sender,
            "parameters": dict(message.parameters or {}),
            "recipients": [
                {"address": address, "is_bcc": address in bcc, "parameters": dict(said)}
                for address, said in zip(message.recipients, parameters, strict=True)
            ],
        },
        "client": message.client,
        "hello": message.hello,
        "protocol": message.protocol,
        "tls": message.tls,
        "user": message.user,
        "headers": [{"name": name, "value": value} for name, value in reading.fields],
        "text": reading.text,
        "html": html,
        "has_remote": frame.has_remote(html),
        "parts": [
            {
                "number": part.number,
                "type": part.type,
                "name": part.name,
                "size": len(part.content),
                "content_id": part.content_id,
                "is_body": part.is_body,
            }
            for part in reading.parts
        ],
        "remarks": remarks_on(message),
    }


def disposition_of(part: Part) -> str:
    """A download, under a name that no file system and no eye stumbles over (RFC 6266)."""
    visible = "".join(c for c in part.name if unicodedata.category(c)[0] != "C")
    name = _NOT_IN_NAMES.sub("_", visible).lstrip(".")[-100:] or f"part-{part.number}"
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
