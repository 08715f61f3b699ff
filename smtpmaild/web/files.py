"""The files of a page, from the package and from memory: read once, answered with an ETag.

What is not in the folder when the server starts does not exist for it, so no path leads out of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

#: What there may be in a folder; anything else in it is not served.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
#: A browser asks again each time and hears 304: what belongs together is always of one version.
_ASK_AGAIN = "no-cache"
#: Files with their version in the name.
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    headers: Mapping[str, str]


class Files:
    """The files below one folder of the package, by their path in it. versioned: those that never change."""

    def __init__(self, folder: Traversable, versioned: frozenset[str] = frozenset()) -> None:
        self._files = {path: _read(file, path in versioned) for path, file in _walk(folder, "")}

    @property
    def paths(self) -> frozenset[str]:
        """All there are."""
        return frozenset(self._files)

    def get(self, path: str) -> bytes:
        """The content of one; raises KeyError."""
        return self._files[path].content

    def answer(self, request: Request, path: str) -> Response:
        """This file; 304 to who has it already, 404 if there is none."""
        file = self._files.get(path)
        if file is None:
            return PlainTextResponse("There is no such page.\n", 404)
        if file.headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=file.headers)
        return Response(file.content, headers=file.headers)


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif _suffix(entry.name) in _TYPES:
            found.append((prefix + entry.name, entry))
    return found


def _read(file: Traversable, is_versioned: bool) -> _File:
    content = file.read_bytes()
    headers = {
        "content-type": _TYPES[_suffix(file.name)],
        "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "cache-control": _FOR_EVER if is_versioned else _ASK_AGAIN,
    }
    return _File(content, headers)


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
