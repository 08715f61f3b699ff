"""What every request passes before an application sees it, and every answer before it leaves.

- Host: a page elsewhere may make a browser resolve its own name to 127.0.0.1 and read us as "same origin" (DNS
  rebinding). So a request must name us by an IP address, as localhost or by a name that the operator has given; only
  where strangers can reach us anyway any name will do, for there the token keeps them out.
- Origin: a request that changes something and comes from a page must come from ours.
- Token: constant time, in the header Authorization, never in an address or a cookie.
- Bodies are bounded; answers carry headers that let a browser run nothing but our own files.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: No script, style, image or connection but from here; no form, no frame, no plug-in, no other base.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: For every answer that does not say otherwise itself.
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
#: Nobody has more to tell us in one request.
BODY = 64 * 1024
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SHORTEST_TOKEN = 16
#: With an answer that comes before the body was read.
_HANG_UP = {"connection": "close"}


class TokenError(Exception):
    """A token file is of no use; the operator reads its text."""


def read_token(path: str) -> str:
    """The token in a file: its first line. Raises TokenError, OSError; never shows what it read."""
    with Path(path).open(encoding="ascii", errors="strict") as file:
        try:
            token = file.readline(4096).strip()
        except UnicodeDecodeError:
            raise TokenError("it has characters beyond ASCII") from None
    if len(token) < _SHORTEST_TOKEN:
        raise TokenError(f"a token has {_SHORTEST_TOKEN} characters or more; `openssl rand -hex 32` makes one")
    return token


class Token:
    """Who may: whoever shows this. It appears in no text of ours."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def __repr__(self) -> str:
        return "Token(...)"

    def is_shown_in(self, connection: HTTPConnection) -> bool:
        """The request carries it: RFC 6750 §2.1."""
        scheme, _, shown = connection.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), self._secret)


UNAUTHORIZED = "This wants the token of the file that the configuration names: Authorization: Bearer ...\n"


def unauthorized() -> Response:
    """The answer to a request that should have shown the token."""
    return PlainTextResponse(UNAUTHORIZED, 401, {"www-authenticate": 'Bearer realm="smtpmaild"'})


class Guard:
    """Stands in front of an application.

    any_host: take every Host.  hosts: names that we have besides our addresses.  body_limit: bytes of a
    request at most.
    """

    def __init__(
        self, app: ASGIApp, *, any_host: bool = False, hosts: Collection[str] = (), body_limit: int = BODY
    ) -> None:
        self._app = app
        self._any_host = any_host
        self._hosts = frozenset(host.lower() for host in hosts) | {"localhost"}
        self._body = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._any_host and not self._is_ours(host):
            return PlainTextResponse("There is no such host here.\n", 421)
        origin = headers.get("origin")
        if scope["method"] not in _SAFE and origin is not None and origin.partition("://")[2] != host:
            return PlainTextResponse("Requests of other sites change nothing here.\n", 403)
        if "transfer-encoding" in headers:
            return PlainTextResponse("Say how long it is.\n", 411, _HANG_UP)
        if int(headers.get("content-length", "0")) > self._body:  # a number: the server has looked
            return PlainTextResponse("The request is too large.\n", 413, _HANG_UP)
        return None

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
        name = name.lower().rstrip(".")
        return name in self._hosts or _is_ip_address(name)


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
