"""The memory of what happened: the facts of the log that tell the life of a message, kept in one SQLite file.

It costs the mail nothing but a moment. Who has something to tell tells the log (facts.py); with `history` in the
config that log is a `Recorder` (recorder.py), which passes the fact on and, if its name is in the KEPT table
(events.py), appends it to a deque. That is all that happens in the event loop's thread. A thread of the process takes
what is there twice a second and writes it as one row (store.py). So:

- Nothing here may be waited for, and nothing here may fail towards the mail: a file that cannot be written is a line
  of the log, events that find no room are counted and told, and mail goes on.
- Any thread may tell a fact. Before start() and after stop(), and in a supervisor, which has no thread, a fact that is
  kept is written at once; those are few.
- The file is shared by all processes of the daemon and by whoever reads it (reading.py) while they write.
- What a fact says is not looked at: with `logging: {privacy: true}` it came through privacy.py before it came here.

The session with a message as example: `message_accepted` with recipients and their rules, `session_closed` with what
was refused; later `deferred` and `delivered` from the queue. lives.py puts them together again, story.py tells them.

Adding an event: a line in the KEPT table. What only the history wants of an event is told beside its facts, as `trace`:
journal.py makes it, where Service.record says that there is somebody to be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """Where it is kept and how much of it. keep: seconds.  size: bytes of the file."""

    path: str
    keep: float
    size: int


@dataclass(frozen=True, slots=True)
class Event:
    """One fact, as it was told. number: of all events in the file, in the order of writing.  at: seconds since the
    epoch, to the millisecond."""

    number: int
    at: float
    name: str
    facts: Mapping[str, Any]
