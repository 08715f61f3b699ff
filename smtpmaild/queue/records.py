"""A queued message as JSON and back: what `queue show --json` prints, `export` writes and `import` reads.

    {"version": 1, "queue_id": "06A9...", "received_at": "2026-11-22T14:45:19+00:00", "reverse_path": "a@x.example",
     "size": 1234, "body": "7BIT", "smtputf8": false, "parameters": {}, "user": "", "listener": "mx", "peer": "...",
     "recipients": [{"address": "b@y.example", "route": "relay:mx", "destination": "relay:mx", "state": "deferred",
                     "attempts": 2, "next_attempt": "...", "attempted_at": "...", "reply": "451 4.4.1 ...",
                     "remote": "...", "parameters": {}, "accepted_as": ""}]}

Keys are only ever added. Of what `import` reads, only the addresses of recipients must be there: the `.json` of a spool
will do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from smtpmaild import queue_id
from smtpmaild.envelope import BodyType
from smtpmaild.queue import Body, Entry, QueuedMessage, QueuedRecipient, State
from smtpmaild.smtp.address import NULL_REVERSE_PATH, Address


class RecordError(Exception):
    """What is wrong with a record."""


def to_record(message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> dict[str, object]:
    """As JSON has it."""
    return {
        "version": 1,
        "queue_id": message.queue_id,
        "received_at": _time(message.received_at),
        "reverse_path": message.reverse_path.text,
        "size": message.body.size,
        "body": message.body_type.value,
        "smtputf8": message.is_utf8,
        "parameters": dict(message.parameters),
        "user": message.user,
        "listener": message.listener,
        "peer": message.peer,
        "recipients": [_recipient(one) for one in recipients],
    }


def _recipient(one: QueuedRecipient) -> dict[str, object]:
    return {
        "address": one.address.text,
        "route": one.route,
        "destination": one.destination,
        "state": one.state.value,
        "attempts": one.attempts,
        "next_attempt": _time(one.next_attempt),
        "attempted_at": _time(one.attempted_at),
        "reply": str(one.last) if one.last else "",
        "remote": one.remote,
        "parameters": dict(one.parameters),
        "accepted_as": one.accepted_as,
    }


def _time(seconds: float) -> str:
    """ "" for never."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if 0 < seconds < 1e11 else ""


def from_record(
    text: bytes,
    body: Body,
    now: float,
    parse: Callable[[str], Address | None],
    route: Callable[[Address], str],
) -> Entry:
    """A message to put into the queue, due at once or when its sender wants it released; raises RecordError.

    parse: a mailbox.  route: for recipients without one.
    """
    record = _mapping(text)
    recipients = record.get("recipients")
    if not isinstance(recipients, list) or not recipients:
        raise RecordError("there are no recipients")
    name = record.get("queue_id", "")
    message = QueuedMessage(
        queue_id=name if isinstance(name, str) and queue_id.is_queue_id(name) else queue_id.make(),
        reverse_path=_address(record.get("reverse_path", ""), parse, may_be_null=True),
        received_at=_seconds(record.get("received_at", ""), now),
        body=body,
        body_type=_body_type(record.get("body", "7BIT")),
        is_utf8=record.get("smtputf8") is True,
        parameters=_texts(record.get("parameters", {})),
        user=_text(record.get("user", "")),
        listener=_text(record.get("listener", "")),
        peer=_text(record.get("peer", "")),
    )
    try:
        _ = message.deadline, message.flow
        due_at = max(now, message.released_at)
    except ValueError:
        raise RecordError(f"BY, HOLDFOR, HOLDUNTIL or MT-PRIORITY is none: {dict(message.parameters)}") from None
    return message, [_from_recipient(number, one, due_at, parse, route) for number, one in enumerate(recipients)]


def _from_recipient(
    number: int, record: object, due_at: float, parse: Callable[[str], Address | None], route: Callable[[Address], str]
) -> QueuedRecipient:
    if not isinstance(record, dict):
        raise RecordError("a recipient is a mapping with its address")
    address = _address(record.get("address", ""), parse, may_be_null=False)
    state = State.HELD if record.get("state") == State.HELD.value else State.QUEUED
    its_route = _text(record.get("route", "")) or route(address)
    parameters = _texts(record.get("parameters", {}))
    accepted_as = _accepted_as(record.get("accepted_as", ""), parse)
    return QueuedRecipient(number, address, its_route, state, parameters, next_attempt=due_at, accepted_as=accepted_as)


def _mapping(text: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise RecordError(f"it is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise RecordError("it is not a mapping")
    return record


def _address(text: object, parse: Callable[[str], Address | None], *, may_be_null: bool) -> Address:
    if text == "" and may_be_null:
        return NULL_REVERSE_PATH
    address = parse(text) if isinstance(text, str) else None
    if address is None:
        raise RecordError(f"{text!r} is not a mail address")
    return address


def _accepted_as(text: object, parse: Callable[[str], Address | None]) -> str:
    """The one address without a domain, <postmaster>, is one that a client can name."""
    if isinstance(text, str) and text.lower() == "postmaster":
        return text
    return _address(text, parse, may_be_null=True).text


def _body_type(text: object) -> BodyType:
    try:
        return BodyType(text)
    except ValueError:
        raise RecordError(f"{text!r} is not a body type: 7BIT, 8BITMIME or BINARYMIME") from None


def _seconds(text: object, now: float) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else now
    except ValueError:
        raise RecordError(f"{text!r} is not a time, as in 2026-11-22T14:45:19Z") from None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> Mapping[str, str]:
    return {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}
