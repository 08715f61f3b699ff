"""Queue ids: the name of one accepted message, in the 250 reply, the log, the Received field and file names."""

from __future__ import annotations

import itertools
import os
import re
import time

# Crockford's base 32: no I, L, O, U, so that an id survives being read aloud.
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_QUEUE_ID = re.compile(rf"[{_DIGITS}]{{16}}", re.ASCII)

# 20 bits of counter from a random start tell apart messages of one process in one microsecond step and two
# processes of one host; the time tells apart restarts.
_counter = itertools.count(int.from_bytes(os.urandom(3), "big"))


def make() -> str:
    """A new id of 16 characters: 12 of time (60 bits of microseconds), 4 of a counter. Sorts by time, is never reused.

    Unique within a process; two workers could only meet in the same microsecond with the same counter, and every
    store creates its files exclusively, so that even then nothing is overwritten.
    """
    number = ((time.time_ns() // 1000) << 20) | (next(_counter) & 0xFFFFF)
    pairs = []
    for _ in range(8):
        pairs.append(_PAIRS[number & 1023])
        number >>= 10
    return "".join(reversed(pairs))


def reseed() -> None:
    """Start the counter somewhere else: called in a new worker process, which inherited its parent's."""
    global _counter
    _counter = itertools.count(int.from_bytes(os.urandom(3), "big"))


def is_queue_id(text: str) -> bool:
    """True for text of the form that make() returns; safe to use as a file name."""
    return _QUEUE_ID.fullmatch(text) is not None
