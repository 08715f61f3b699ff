"""What all agents do with recipients as a whole: one outcome for all, and an end for whatever we did wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from smtpmaild.delivery import Outcome
from smtpmaild.delivery.next_hop import NowhereError
from smtpmaild.facts import Log
from smtpmaild.queue import QueuedMessage, QueuedRecipient
from smtpmaild.smtp.reply import LOCAL_ERROR, Reply

Try = Callable[[QueuedMessage, Sequence[QueuedRecipient]], Awaitable[Sequence[Outcome]]]


async def attempt(
    log: Log, how: Try, message: QueuedMessage, recipients: Sequence[QueuedRecipient]
) -> Sequence[Outcome]:
    """What `how` came to; an exception is logged and temporary: it says nothing about the mail."""
    try:
        return await how(message, recipients)
    except NowhereError as error:
        return same(Reply(error.reply.code, error.reply.enhanced, error.reply.text), recipients)
    except Exception:
        log.exception("delivery_failed", queue_id=message.queue_id)
        return same(LOCAL_ERROR, recipients)


def same(reply: Reply, recipients: Sequence[QueuedRecipient]) -> list[Outcome]:
    """One outcome for all of them, in our own words."""
    return [Outcome(reply)] * len(recipients)
