"""The files of a page: nothing but what is in the folder, and asked for once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from browsing import ask, served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpmaild.web.files import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "secret.txt").write_text("not for you")
    folder = tmp_path / "page"
    (folder / "vendor").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "vendor" / "plot-1.0.js").write_text("plot()")
    (folder / "notes.py").write_text("print()")
    (folder / "README").write_text("read me")
    return Files(folder, frozenset({"vendor/plot-1.0.js"}))


def test_files_are_those_of_known_types(files: Files) -> None:
    assert files.paths == {"index.html", "vendor/plot-1.0.js"}
    assert files.get("index.html") == b"<!doctype html>"


def test_answers(files: Files) -> None:
    async def one(request: Request) -> Response:
        return files.answer(request, request.path_params["path"])

    async def main() -> None:
        async with served(Starlette(routes=[Route("/{path:path}", one)])) as server:
            page = await ask(server, "/index.html")
            assert (page.status, page.body) == (200, b"<!doctype html>")
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["cache-control"] == "no-cache"
            again = await ask(server, "/index.html", headers={"If-None-Match": page.headers["etag"]})
            assert (again.status, again.body) == (304, b"")
            assert again.headers["etag"] == page.headers["etag"]
            plot = await ask(server, "/vendor/plot-1.0.js")
            assert plot.headers["cache-control"] == "public, max-age=31536000, immutable"
            for path in ("/notes.py", "/../secret.txt", "/%2e%2e/secret.txt", "/vendor/../../secret.txt", "/"):
                assert (await ask(server, path)).status == 404

    asyncio.run(main())
