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
#: How long the daemon may say nothing, in seconds, before it is taken to hang.
_PATIENCE = 60.0
#: The same for verbs that work longer before they have something to say, by their first word: a reload waits for new
#: workers (desk.RELOAD_PATIENCE), and what is done to a million messages is told when it is done.
_MORE_PATIENCE: Mapping[str, float] = {"reload": 180.0, "queue": 900.0}
_COPY_AT_ONCE = 64 * 1024


class ControlError(Exception):
    """It could not be done; the text is for people. status: what to exit with."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class NotRunningError(ControlError):
    """Nobody listens there."""


def ask(
    path: str,
    verb: str,
    arguments: Mapping[str, Any] | None = None,
    body: BinaryIO | None = None,
    *,
    seconds: float | None = None,
) -> Generator[Record, None, Record]:
    """The rows of the answer; returns its end. body: follows the request, for verbs that take a message.  seconds: how
    long the daemon may say nothing; as long as patience() has it for this verb where it is None.

    Raises NotRunningError, or ControlError, also where nothing comes for too long; OSError where the body cannot be
    read.
    """
    with _connected(path) as sock:
        seconds = patience(verb) if seconds is None else seconds
        sock.settimeout(seconds)
        try:
            _send(sock, {"verb": verb, "arguments": arguments or {}}, body)
            for line in _lines(sock):
                if not line.endswith(b"\n"):  # it ended amid what it said
                    break
                answer = json.loads(line)
                if "row" in answer:
                    yield answer["row"]
                elif "error" in answer:
                    raise ControlError(answer["error"], answer["status"])
                else:
                    done: Record = answer["done"]
                    return done
        except TimeoutError:
            text = f"smtpmaild says nothing at {path}, for {seconds:g} s now; what was asked for may yet be done"
            raise ControlError(text, EX_TEMPFAIL) from None
    raise ControlError("who answers ended before it had answered; try again", EX_TEMPFAIL)


def patience(verb: str) -> float:
    """How long the daemon may say nothing while it does this, in seconds."""
    return _MORE_PATIENCE.get(verb.partition(".")[0], _PATIENCE)


def _send(sock: socket.socket, request: Mapping[str, Any], body: BinaryIO | None) -> None:
    """What the other side takes of it. Raises TimeoutError, and OSError where the body cannot be read."""
    try:
        sock.sendall(json.dumps(request).encode() + b"\n")
        while body is not None and (block := body.read(_COPY_AT_ONCE)):
            sock.sendall(block)
    except ConnectionError:
        pass  # it has answered already, and hung up


def _lines(sock: socket.socket) -> Iterator[bytes]:
    """What comes, to its end or to that of the other side. Raises TimeoutError."""
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
    *,
    seconds: float | None = None,
) -> Record:
    """The end of the answer. each: is called with the rows before it.  seconds: see ask()."""
    asking = ask(path, verb, arguments, body, seconds=seconds)
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
    return sock


def _explained(path: str, error: OSError) -> ControlError:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return NotRunningError(f"no smtpmaild is running here: nobody listens on {path}", EX_UNAVAILABLE)
    if isinstance(error, TimeoutError | BlockingIOError):  # EAGAIN: more wait to be accepted than may
        return ControlError(f"smtpmaild does not answer at {path}; try again", EX_TEMPFAIL)
    if error.errno in (errno.EACCES, errno.EPERM):
        text = f"you may not use {path}: become root or the user of the daemon, or let it name a group (control.group)"
        return ControlError(text, EX_NOPERM)
    return ControlError(f"{path}: {error.strerror or error}", EX_UNAVAILABLE)
