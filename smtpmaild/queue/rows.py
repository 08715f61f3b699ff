"""Messages and recipients as rows of the queue's tables, and back. The tables themselves are in sqlite_file.py."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from smtpmaild.envelope import NO_PARAMETERS, BodyType
from smtpmaild.queue import Body, QueuedMessage, QueuedRecipient, State
from smtpmaild.queue.body import FileBody
from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address
from smtpmaild.smtp.reply import Reply

#: Numbers in the file. Waiting states come first: the index holds those up to IN_DELIVERY.
NUMBER: Mapping[State, int] = {
    State.QUEUED: 0,
    State.DEFERRED: 1,
    State.IN_DELIVERY: 2,
    State.HELD: 3,
    State.DELIVERED: 4,
    State.BOUNCED: 5,
    State.EXPIRED: 6,
}
STATE = {number: state for state, number in NUMBER.items()}

#: The columns of a message.
MESSAGE_COLUMNS = (
    "id, queue_id, received_at, reverse_path, sender_domain, size, in_file, body_type, is_utf8, parameters, user, "
    "listener, peer, deadline"
)
MESSAGE_WIDTH = MESSAGE_COLUMNS.count(",") + 1
#: The columns of a recipient, behind the number of its message, its destination and flow.
RECIPIENT_COLUMNS = (
    "number, address, domain, route, state, parameters, attempts, next_attempt, attempted_at, code, enhanced, text, "
    "remote, accepted_as"
)

_QUOTED_PAIR = re.compile(r"\\(.)")


def message_row(number: int, message: QueuedMessage) -> tuple[object, ...]:
    """For MESSAGE_COLUMNS."""
    body = message.body
    return (
        number,
        message.queue_id,
        message.received_at,
        message.reverse_path.text,
        message.reverse_path.domain,
        body.size,
        isinstance(body, FileBody),
        message.body_type.value,
        message.is_utf8,
        _as_text(message.parameters),
        message.user,
        message.listener,
        message.peer,
        message.deadline,
    )


def recipient_row(message: int, flow: str, one: QueuedRecipient) -> tuple[object, ...]:
    """For RECIPIENT_COLUMNS, with the three before them."""
    last = one.last
    said = (last.code, last.enhanced, last.text) if last else (0, "", "")
    return (
        message,
        one.destination,
        flow,
        one.number,
        one.address.text,
        one.address.domain,
        one.route,
        NUMBER[one.state],
        _as_text(one.parameters),
        one.attempts,
        one.next_attempt,
        one.attempted_at,
        *said,
        one.remote,
        one.accepted_as,
    )


def _as_text(parameters: Mapping[str, str]) -> str:
    return json.dumps(dict(parameters)) if parameters else ""


def _as_mapping(text: str) -> Mapping[str, str]:
    return json.loads(text) if text else NO_PARAMETERS


def to_message(row: Sequence[Any], body: Body) -> QueuedMessage:
    """From MESSAGE_COLUMNS, whatever follows them."""
    _, queue_id, received_at, sender, domain, _, _, body_type, is_utf8, parameters, user, listener, peer = row[:13]
    return QueuedMessage(
        queue_id=queue_id,
        reverse_path=_address(sender, domain),
        received_at=received_at,
        body=body,
        body_type=BodyType(body_type),
        is_utf8=bool(is_utf8),
        parameters=_as_mapping(parameters),
        user=user,
        listener=listener,
        peer=peer,
    )


def to_recipient(row: Sequence[Any]) -> QueuedRecipient:
    """From RECIPIENT_COLUMNS."""
    (
        number,
        text,
        domain,
        route,
        state,
        parameters,
        attempts,
        next_attempt,
        attempted_at,
        code,
        enhanced,
        said,
        remote,
        accepted_as,
    ) = row
    return QueuedRecipient(
        number=number,
        address=_address(text, domain),
        route=route,
        state=STATE[state],
        parameters=_as_mapping(parameters),
        attempts=attempts,
        next_attempt=next_attempt,
        attempted_at=attempted_at,
        last=Reply(code, enhanced, said) if code else None,
        remote=remote,
        accepted_as=accepted_as,
    )


def _address(text: str, domain: str) -> Address:
    if not text:
        return NULL_REVERSE_PATH
    local_part = text.rpartition("@")[0] if domain else text
    if local_part.startswith('"'):
        local_part = _QUOTED_PAIR.sub(r"\1", local_part[1:-1])
    return Address(local_part, domain, text)
