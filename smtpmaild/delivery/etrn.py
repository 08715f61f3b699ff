"""ETRN (RFC 1985): a host that is there now and then says so, and what waits for it is tried at once.

| it asks for     | what is tried                                                        |
|-----------------|----------------------------------------------------------------------|
| `example.com`   | mail for that domain                                                 |
| `@example.com`  | mail for that domain and all below it                                |
| `#smarthost`    | mail that the relay of this name takes on (`relays` of the config)   |

The replies are those of RFC 1985 §5, without 250 and 252: we count what we start. Only who is trusted is offered the
verb. Held mail stays held.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection

from smtpmaild.envelope import Session
from smtpmaild.facts import Log
from smtpmaild.queue import Query
from smtpmaild.queue.shards import Shards
from smtpmaild.smtp.reply import Reply

_ARGUMENT = re.compile(r"(?P<kind>[@#]?)(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,253}[A-Za-z0-9])?)")

SYNTAX = Reply(501, "5.5.4", "ETRN takes a domain, @domain or #queue")


class Etrn:
    """Answers the verb.

    is_ours: whether a domain is a local one: nothing waits for it.  to_ascii: a domain as the queue has it.  revive:
    tells the runner who has come back.
    """

    def __init__(
        self,
        shards: Shards,
        log: Log,
        is_ours: Callable[[str], bool],
        revive: Callable[[Collection[str]], object],
    ) -> None:
        self._shards = shards
        self._log = log
        self._is_ours = is_ours
        self._revive = revive

    async def answer(self, session: Session, argument: str) -> Reply:
        """A Step of the verb."""
        match = _ARGUMENT.fullmatch(argument.strip(" "))
        if match is None:
            return SYNTAX
        name = match["name"].lower()
        if match["kind"] != "#" and self._is_ours(name):
            return Reply(459, "4.7.1", f"Node {name} not allowed: its mail is delivered here")
        query = _QUERIES[match["kind"]](name if match["kind"] != "#" else match["name"])
        why = f"ETRN {argument} from {session.user or session.peer}"
        try:
            entries = await asyncio.to_thread(self._shards.change, "retry", query, why, time.time())
        except OSError as error:
            self._log.error("etrn_failed", session_id=session.session_id, argument=argument, cause=str(error))
            return Reply(458, "4.3.0", f"Unable to queue messages for node {name}")
        self._revive({one.destination for _, recipients in entries for one in recipients})
        self._log.info("etrn", session_id=session.session_id, argument=argument, messages=len(entries))
        if not entries:
            return Reply(251, "2.0.0", f"Ok, no messages waiting for node {name}")
        return Reply(253, "2.0.0", f"Ok, {len(entries)} pending messages for node {name} started")


_QUERIES: dict[str, Callable[[str], Query]] = {
    "": lambda name: Query(domain=name),
    "@": lambda name: Query(below=name),
    "#": lambda name: Query(relay=name),
}
