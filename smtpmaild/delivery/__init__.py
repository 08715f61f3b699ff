"""The seam of delivery: agents take a message from the queue to where it goes, and say for each recipient what came
of it.

One agent is one target of the config: a smarthost, MX for everybody, a LMTP server, a command, a HTTP endpoint. The
runner (runner.py) calls it in the event loop; it never blocks, bodies are streamed, and every phase has its time
limit. An agent decides nothing about retries: 2yz is delivered, 4yz is tried again, 5yz goes back to the sender.

Adding one: a file here with the class and its `Options` (a pydantic model, what the YAML accepts under `relays`), and
one line in the BUILTIN table in builtin.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from smtpmaild.queue import QueuedMessage, QueuedRecipient
from smtpmaild.smtp.reply import Reply


class Passed(Enum):
    """What a success means to the sender who asked for a DSN (RFC 3461 §5.2)."""

    ON = "the next hop knows DSN: it will tell the sender itself"
    OUT = "relayed to where DSN is not known: `relayed`"
    IN = "in the recipient's hands: `delivered`"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one recipient's attempt came to.

    reply: the remote server's own words, or ours (4.4.1 connection refused, 5.4.4 no such domain ...).  remote: who
    said it: "mx.example.net [192.0.2.1]:25"; "" for us.  passed: of a success.  keeps_time: who took it knows
    DELIVERBY, and was told when it is to be delivered by.
    """

    reply: Reply
    remote: str = ""
    passed: Passed = Passed.OUT
    keeps_time: bool = False


class Agent(Protocol):
    """Takes messages to one target. May serve several messages at a time; keeps connections between them."""

    async def deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        """Try once: one outcome for each recipient, in order. Raises nothing but CancelledError: trouble is a 4yz."""
        ...

    async def close(self) -> None:
        """Say QUIT on idle connections and let go of everything."""
        ...
