"""What could not be written where it shall be: stores, the queue, the history, the sockets of the attendant.

All of it is a warning. Where to is a matter of the machine, which may not be the one that serves: there the daemon does
not start without its sockets, mail is put off without its stores, and goes on without a history.
"""

from __future__ import annotations

import errno
import os

from smtpmaild.config.findings import Finding, Findings
from smtpmaild.config.models import Config
from smtpmaild.config.rights import rights_of
from smtpmaild.config.sockets import UnixAddress
from smtpmaild.config.yaml_nodes import Loc
from smtpmaild.sink.builtin import writable
from smtpmaild.sink.folder import why_not_writable


def unwritable_paths(config: Config) -> Findings:
    """Stores and files are made and written by who serves, sockets (below) by who starts the daemon."""
    with rights_of(config.user, config.group):
        problems: dict[Loc, str | None] = {
            ("deliver_to", name, "path"): writable(store) for name, store in config.deliver_to.items()
        }
        if config.needs_queue:
            problems["queue", "path"] = why_not_writable(config.queue.path)
        if config.sendmail is not None:
            problems["sendmail", "drop"] = why_not_writable(config.sendmail.drop)
        if config.history is not None:
            problems["history", "path"] = _why_no_file(config.history.path)
    for loc, problem in problems.items():
        if problem:
            yield Finding(loc, problem, "warning")


def unmade_sockets(config: Config) -> Findings:
    """Their folders are made where they are missing."""
    sockets: dict[Loc, str] = {}
    if config.control is not None:
        sockets["control", "socket"] = config.control.socket
    if config.status is not None and isinstance(config.status.listen, UnixAddress):
        sockets["status", "listen"] = config.status.listen.path
    for loc, path in sockets.items():
        if problem := why_not_writable(os.path.dirname(path)):
            yield Finding(loc, problem, "warning")


def _why_no_file(path: str) -> str | None:
    """Why a file could not be made and written, with others beside it; None if it could."""
    number = 0
    if os.path.isdir(path):
        number = errno.EISDIR
    elif os.path.lexists(path) and not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        number = errno.EACCES
    return f"{path}: {os.strerror(number)}" if number else why_not_writable(os.path.dirname(path))
