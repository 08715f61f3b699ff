"""Bodies of queued messages: in memory while they are small, in files where they are large.

The seam is `Body` in __init__.py. All of these are plain values; opening one that lives on disk blocks.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

#: Bodies up to so many bytes are small: a queue keeps them with the envelope, and they may be held in memory whole.
SMALL = 64 * 1024


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A body in memory."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.data)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


@dataclass(frozen=True, slots=True)
class FileBody:
    """A body in a file of its own."""

    path: str
    size: int

    def open(self) -> BinaryIO:
        return open(self.path, "rb")


@dataclass(frozen=True, slots=True)
class DescriptorBody:
    """A body in a file that is open: who opened it may have had other rights than who reads it."""

    descriptor: int
    size: int

    def open(self) -> BinaryIO:
        source = os.fdopen(os.dup(self.descriptor), "rb")
        source.seek(0)
        return source


@dataclass(frozen=True, slots=True)
class LazyBody:
    """A small body that is read only when somebody wants to see it: lists of the queue never do."""

    size: int
    read: Callable[[], bytes] = field(repr=False)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.read())


def file_body(path: str) -> FileBody:
    """The body in an existing file."""
    return FileBody(path, os.stat(path).st_size)
