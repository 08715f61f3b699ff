"""The seam of the log: one event per fact, for every room that has something to tell.

Whoever logs takes a `Log` as a constructor argument and says what happened in the past tense with fixed keys:
`log.warning("commit_failed", sink="mail", queue_id=..., cause=str(error))`. The daemon passes a structlog logger,
tests pass a recorder. A call never blocks and never raises, and nothing here knows how a fact is printed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Log(Protocol):
    """What of a structlog logger is used: the name of the event and its facts."""

    def info(self, event: str, /, **facts: object) -> object: ...
    def warning(self, event: str, /, **facts: object) -> object: ...
    def error(self, event: str, /, **facts: object) -> object: ...
    def exception(self, event: str, /, **facts: object) -> object:
        """Like error(), inside an `except` block: the traceback goes with it."""


#: The seam of a memory that wants more than the log (history/): the name of the event, its facts, and what the log does
#: not hear. Passes the facts on to the log as info(). Who tells it does not change the facts any more; as a mapping and
#: not by keywords, which would be copied at every step.
Remember = Callable[[str, dict[str, Any], Any], object]
