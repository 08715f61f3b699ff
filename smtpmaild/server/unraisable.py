"""Exceptions that Python can raise nowhere: logged, where it would print them on standard error in lines of its own.

A client can cause one: a handshake that asks for a name that is not ASCII fails before any code of ours sees the name.
"""

from __future__ import annotations

import sys
import time

from smtpmaild.facts import Log

_SAME_KIND_SECONDS = 1.0


def log_unraisable(log: Log) -> None:
    """From now on in this process; of one kind once a second, as it may be a client that causes them."""
    logged_at: dict[type[BaseException], float] = {}

    def hook(unraisable: sys.UnraisableHookArgs, /) -> None:
        kind, now = unraisable.exc_type, time.monotonic()
        if now >= logged_at.get(kind, 0.0) + _SAME_KIND_SECONDS:
            logged_at[kind] = now
            cause = f"{kind.__name__}: {unraisable.exc_value}"
            log.warning("exception_ignored", cause=cause, about=repr(unraisable.object)[:200])

    sys.unraisablehook = hook
