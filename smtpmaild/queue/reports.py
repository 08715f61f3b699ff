"""The seam of reports: what senders are told of their mail (RFC 3461, RFC 3464).

The runner says what happened to recipients; a `Reporter` answers with the messages that tell the sender, ready for
the queue: null reverse-path, never one about a message that has the null reverse-path itself, and none that NOTIFY
does not want. They are put with the settlement they tell of, all or none: no end without its report, no report twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from smtpmaild.queue import Entry, QueuedMessage, QueuedRecipient


class Action(Enum):
    """What is told (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class Told:
    """One recipient and what is to be told of it.

    recipient: as it stands after the attempt: `last` and `remote` are what was said, state BOUNCED, EXPIRED, DEFERRED
    or DELIVERED.  status: the enhanced status code, where it is not that of what was said.  is_traced: of a message
    that is passed on its sender is told whatever NOTIFY says, but for NEVER: it has a time to be delivered by (RFC 2852
    §4.1.4).
    """

    action: Action
    recipient: QueuedRecipient
    status: str = ""
    is_traced: bool = False


class Reporter(Protocol):
    """Makes reports. Called in a thread, for it may read the message; raises OSError where that cannot be read now."""

    def __call__(self, message: QueuedMessage, told: Sequence[Told]) -> Sequence[Entry]:
        """The reports to put into the queue; none where nobody is to be told."""
        ...
