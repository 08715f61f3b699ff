"""The report to whoever dropped a message that the daemon then refused for good: it is dropped in its turn.

Nobody is waiting for a reply any more, so the sender's address is told, as it is of mail from the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from smtpmaild.queue import QueuedMessage, QueuedRecipient, State
from smtpmaild.queue.body import BytesBody
from smtpmaild.queue.dsn import HEADER_LIMIT
from smtpmaild.queue.reports import Action, Reporter, Told
from smtpmaild.sendmail import Letter
from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address
from smtpmaild.smtp.reply import Reply

_ROUTE = "drop"


def report_of(
    reporter: Reporter,
    name: str,
    letter: Letter,
    message: BinaryIO,
    refused: Sequence[tuple[Address, Reply]],
    now: float,
) -> tuple[Letter, bytes] | None:
    """What to drop; None where nobody is to be told: the null sender, NOTIFY=NEVER."""
    message.seek(0)
    body = BytesBody(message.read(HEADER_LIMIT))
    about = QueuedMessage(name, letter.reverse_path, now, body, parameters=letter.mail)
    told = [
        Told(Action.FAILED, QueuedRecipient(number, one, _ROUTE, State.BOUNCED, letter.rcpt, 1, 0.0, now, reply))
        for number, (one, reply) in enumerate(refused)
    ]
    for report, _ in reporter(about, told):
        with report.body.open() as stream:
            return Letter(NULL_REVERSE_PATH, (letter.reverse_path,)), stream.read()
    return None
