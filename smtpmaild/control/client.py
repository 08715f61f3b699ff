"""The other end of the control socket, for commands: blocking, standard library only.

`ask` yields the rows of an answer as they come and returns what it was done with.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, BinaryIO

Record = dict[str, Any]
EX_UNAVAILABLE, EX_TEMPFAIL, EX_NOPERM = 69, 75, 77
_CONNECT_SECONDS = 5.0
_COPY_AT_ONCE = 64 * 1024


class ControlError(Exception):
    """It could not be done; the text is for people. status: what to exit with."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class NotRunningError(ControlError):
    """Nobody listens there."""


def ask(
    path: str, verb: str, arguments: Mapping[str, Any] | None = None, body: BinaryIO | None = None
) -> Generator[Record, None, Record]:
    """The rows of the answer; returns its end. body: follows the request, for verbs that take a message.

    Raises NotRunningError, or ControlError.
    """
    with _connected(path) as sock:
        try:
            sock.sendall(json.dumps({"verb": verb, "arguments": arguments or {}}).encode() + b"\n")
            while body is not None and (block := body.read(_COPY_AT_ONCE)):
                sock.sendall(block)
        except OSError:
            pass  # it has answered already, and hung up
        for line in _lines(sock):
            answer = json.loads(line)
            if "row" in answer:
                yield answer["row"]
            elif "error" in answer:
                raise ControlError(answer["error"], answer["status"])
            else:
                done: Record = answer["done"]
                return done
    raise ControlError("who answers ended before it had answered; try again", EX_TEMPFAIL)


def _lines(sock: socket.socket) -> Iterator[bytes]:
    """What comes, to its end or to that of the other side."""
    with sock.makefile("rb") as lines:
        try:
            yield from lines
        except ConnectionError:
            pass


def answer(
    path: str,
    verb: str,
    arguments: Mapping[str, Any] | None = None,
    body: BinaryIO | None = None,
    each: Callable[[Record], object] = lambda _: None,
) -> Record:
    """The end of the answer. each: is called with the rows before it."""
    asking = ask(path, verb, arguments, body)
    while True:
        try:
            each(next(asking))
        except StopIteration as end:
            done: Record = end.value
            return done


def is_running(path: str) -> bool:
    """Somebody listens there. Raises ControlError where we may not know."""
    try:
        _connected(path).close()
    except NotRunningError:
        return False
    return True


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(_CONNECT_SECONDS)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise _explained(path, error) from None
    sock.settimeout(None)
    return sock


def _explained(path: str, error: OSError) -> ControlError:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return NotRunningError(f"no smtpmaild is running here: nobody listens on {path}", EX_UNAVAILABLE)
    if error.errno in (errno.EACCES, errno.EPERM):
        text = f"you may not use {path}: become root or the user of the daemon, or let it name a group (control.group)"
        return ControlError(text, EX_NOPERM)
    return ControlError(f"{path}: {error.strerror or error}", EX_UNAVAILABLE)
