"""Queue ids: the name of one accepted message, in the 250 reply, the log, the Received field and file names."""

from __future__ import annotations

import itertools
import os
import re
import time

_QUEUE_ID = re.compile(r"[0-9A-F]{18}", re.ASCII)

# 20 bits of counter from a random start tell apart messages of one process in one microsecond step and two
# processes of one host; the time tells apart restarts.
_counter = itertools.count(int.from_bytes(os.urandom(3), "big"))


def make() -> str:
    """A new id of 18 hexadecimal digits: 13 of microseconds since the epoch, 5 of a counter. Sorts by time.

    Unique within a process; two workers could only meet in the same microsecond with the same counter, and every
    store creates its files exclusively, so that even then nothing is overwritten.
    """
    return f"{time.time_ns() // 1000:013X}{next(_counter) & 0xFFFFF:05X}"


def reseed() -> None:
    """Start the counter somewhere else: called in a new worker process, which inherited its parent's."""
    global _counter
    _counter = itertools.count(int.from_bytes(os.urandom(3), "big"))


def is_queue_id(text: str) -> bool:
    """True for text of the form that make() returns; safe to use as a file name."""
    return _QUEUE_ID.fullmatch(text) is not None
