"""What is refused before an application sees it, and what every answer carries."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from browsing import Answer, ask, served
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from smtpmaild.web.guard import CONTENT_SECURITY_POLICY, HEADERS, Guard, Token, TokenError, read_token, unauthorized

SECRET = "correct horse battery"


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body(), headers={"cache-control": "max-age=5"})


async def framed(request: Request) -> Response:
    return PlainTextResponse("", headers={"content-security-policy": "sandbox"})


APP = Starlette(routes=[Route("/", echo, methods=["GET", "POST"]), Route("/framed", framed)])


def answer_to(
    path: str = "/",
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    **guard: object,
) -> Answer:
    async def main() -> Answer:
        async with served(Guard(APP, **guard)) as server:  # type: ignore[arg-type]
            return await ask(server, path, method=method, body=body, headers=headers)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/", {}, 200), ("/nowhere", {}, 404), ("/", {"Host": "evil.example"}, 421)],
    ids=["page", "no page", "refused"],
)
def test_every_answer_has_the_headers(path: str, headers: Mapping[str, str], status: int) -> None:
    answer = answer_to(path, headers=headers)
    assert answer.status == status
    wanted = HEADERS if status != 200 else {**HEADERS, "cache-control": "max-age=5"}
    assert {name: answer.headers.get(name) for name in wanted} == wanted


def test_nothing_inline_may_run() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none';")


def test_an_answer_may_bring_a_policy_of_its_own() -> None:
    assert answer_to("/framed").headers["content-security-policy"] == "sandbox"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("10.1.2.3", 200),  # a page cannot own an address
        ("[::1]:8080", 200),
        ("localhost:8080", 200),
        ("LOCALHOST.", 200),
        ("status.example.com", 200),
        ("evil.example:8080", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("[evil.example]", 421),
        ("", 421),
    ],
)
def test_host(host: str, status: int) -> None:
    assert answer_to(headers={"Host": host}, hosts=["Status.example.com"]).status == status


def test_any_host_where_strangers_come_anyway() -> None:
    assert answer_to(headers={"Host": "mail"}, any_host=True).status == 200


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("POST", None, 200),  # no browser, no page
        ("POST", "http://127.0.0.1", 200),
        ("POST", "http://evil.example", 403),
        ("POST", "null", 403),
        ("GET", "http://evil.example", 200),  # it cannot read the answer
    ],
)
def test_origin(method: str, origin: str | None, status: int) -> None:
    assert answer_to(method=method, headers={"Origin": origin} if origin else None).status == status


def test_bodies_are_bounded() -> None:
    assert answer_to(method="POST", body=b"x" * 20, body_limit=20).status == 200
    assert answer_to(method="POST", body=b"x" * 21, body_limit=20).status == 413
    chunked = {"Transfer-Encoding": "chunked"}
    assert answer_to(method="POST", body=b"1\r\nx\r\n0\r\n\r\n", headers=chunked).status == 411


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"Bearer {SECRET}", True),
        (f"bearer  {SECRET}", True),
        (f"Basic {SECRET}", False),
        (f"Bearer {SECRET}x", False),
        ("Bearer", False),
        ("Bearer \xe4", False),
        ("", False),
    ],
)
def test_token(header: str, expected: bool) -> None:
    request = HTTPConnection({"type": "http", "headers": [(b"authorization", header.encode("latin-1"))]})
    assert Token(SECRET).is_shown_in(request) is expected


def test_token_is_shown_nowhere() -> None:
    assert SECRET not in repr(Token(SECRET))
    assert unauthorized().status_code == 401


def test_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{SECRET} \nsecond line\n")
    assert read_token(str(path)) == SECRET
    for useless in (b"short\n", b"", "wörter mit Umlauten".encode()):
        path.write_bytes(useless)
        with pytest.raises(TokenError) as caught:
            read_token(str(path))
        assert "short" not in str(caught.value).split(" ")[:3]
        assert "wört" not in str(caught.value)
