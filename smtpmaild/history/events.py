"""Which facts are kept, and the text they are kept as: JSON arrays, a value for each name of the table, then the rest.

The names of the facts of every message are written once, here, and not with each of them: with them a session and its
message take 760 bytes, without them 240. pydantic's encoder does it in 1.3 us for both, json's in 3.5 us.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any
from zlib import crc32

from pydantic_core import to_json

from smtpmaild.history import Event

#: Of the form of what rows() writes and keys_of() finds. A file of another version is begun anew.
VERSION = 1

_MESSAGE = (
    "session_id", "queue_id", "listener", "peer", "helo", "reverse_path", "size", "reply", "decided_by", "seconds",
)  # fmt: skip
_DELIVERY = ("queue_id", "sender", "recipient", "route", "destination", "remote", "reply", "attempts", "age")
_SESSION = (
    "session_id", "listener", "peer", "helo", "messages", "refused_recipients", "refusals", "reason", "seconds",
)  # fmt: skip
_ANYTHING: tuple[str, ...] = ()

#: The events that are kept -> the facts that all of them have. Others follow them by name.
KEPT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # a session
        "session_closed": _SESSION,
        "message_accepted": _MESSAGE,
        "message_deferred": _MESSAGE,
        "message_refused": _MESSAGE,
        "client_named": _ANYTHING,
        "authenticated": _ANYTHING,
        "authentication_failed": _ANYTHING,
        "tls_handshake_failed": _ANYTHING,
        "proxy_refused": _ANYTHING,
        "connection_limit_reached": _ANYTHING,
        "session_failed": _ANYTHING,
        # what policies would have said, or could not
        "policy_would_accept": _ANYTHING,
        "policy_would_defer": _ANYTHING,
        "policy_would_refuse": _ANYTHING,
        "policy_failed": _ANYTHING,
        # mail that travels on
        "delivered": _DELIVERY,
        "deferred": _DELIVERY,
        "bounced": _DELIVERY,
        "expired": _DELIVERY,
        "report_made": _ANYTHING,
        "report_nowhere": _ANYTHING,
        "report_failed": _ANYTHING,
        "agent_failed": _ANYTHING,
        "queue_changed": _ANYTHING,
        "dropped_mail_handed_in": _ANYTHING,
        "dropped_mail_refused": _ANYTHING,
        # the daemon
        "store_failed": _ANYTHING,
        "queue_failed": _ANYTHING,
        "queue_takes_no_mail": _ANYTHING,
        "queue_takes_mail_again": _ANYTHING,
        "worker_died": _ANYTHING,
        "reloaded": _ANYTHING,
        "reload_refused": _ANYTHING,
        "stopping": _ANYTHING,
        "stopped": _ANYTHING,
    }
)
#: Told with a message, and in its trace already: who gets it, and by which rule.
_IN_TRACE = frozenset(("recipients", "rules"))
#: Facts that cannot be written down: a traceback is for the log.
_FOR_THE_LOG = frozenset(("exc_info", "exception"))
MESSAGES = frozenset(("message_accepted", "message_deferred", "message_refused"))
ATTEMPTS = frozenset(("delivered", "deferred", "bounced", "expired"))

#: An event as it is kept: when, its text, the client's address and port if it has one, and the names it is found by.
Row = tuple[float, bytes, str | None, tuple[str | None, ...]]


def _getter(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    return itemgetter(*names) if names else lambda _: ()


_GETTERS = {event: _getter(names) for event, names in KEPT.items()}
#: Event -> how many facts it has where it has no others, and which those are; with a trace, and without one.
_ALONE = {event: (len(names), frozenset(names) | _FOR_THE_LOG) for event, names in KEPT.items()}
_TRACED = {
    event: (usual + len(_IN_TRACE), said | _IN_TRACE) if event in MESSAGES else (usual, said)
    for event, (usual, said) in _ALONE.items()
}


def row_of(at: float, name: str, facts: Mapping[str, Any], trace: Any) -> Row:
    """The event as a row. at: seconds since the epoch.  name: one of KEPT.  trace: what journal.py told for us alone.

    Other facts than JSON knows become text. Raises TypeError or ValueError for what has none.
    """
    # [milliseconds, name, trace, facts..., rest]. A whole number: shortest texts of floats cost 0.4 us each.
    try:
        values = _GETTERS[name](facts)
    except KeyError:  # who tells it has learnt to leave something out
        values = tuple(map(facts.get, KEPT[name]))
    row = [int(at * 1000), name, trace, *values]
    usual, said = (_ALONE if trace is None else _TRACED)[name]
    if len(facts) > usual:
        row.append({key: value for key, value in facts.items() if key not in said})
    return at, _encoded(row), facts.get("peer"), _names(name, facts, trace)


def _encoded(value: Any) -> bytes:
    try:
        return to_json(value, fallback=str)
    except ValueError:  # half a surrogate pair, as in a file's name that is no UTF-8
        return json.dumps(value, separators=(",", ":"), default=str).encode("ascii")


def _names(name: str, facts: Mapping[str, Any], trace: Any) -> tuple[str | None, ...]:
    get = facts.get
    if name in MESSAGES:
        named = (facts["session_id"], facts["queue_id"], facts["reverse_path"], get("user"))
        return named if trace is None else (*named, trace[1], *[one[0] for one in trace[0]])
    refusals = get("refusals")
    if not refusals:
        return tuple(map(get, _NAMING))
    refused = [name for one in refusals for name in (one["argument"], one.get("reverse_path"))]
    return (*map(get, _NAMING), *refused)


def text_of(rows: Iterable[Row]) -> bytes:
    """The events as they are kept together: JSON values with commas between them."""
    return b",".join([text for _, text, _, _ in rows])


def events_of(text: bytes, first: int) -> Iterator[Event]:
    """The events again, numbered from `first`."""
    for number, row in enumerate(json.loads(b"[%b]" % text), first):
        yield _event(row, number)


#: Where a row begins. Within a text every quote has a backslash before it, so nothing else looks like this.
_ROW = re.compile(rb'\[\d+,"(?:%s)",' % "|".join(KEPT).encode())


def events_with(body: bytes, needle: bytes, first: int) -> Iterator[Event]:
    """Those in whose row these bytes stand, in lower case, the last ones first. needle: see needle_of(); in b"" there
    is nothing to look for, and it gives none.

    Only those are read as JSON: that of a whole file takes 2 s for 100,000 messages, and this 0.1 s.
    """
    lowered = body.lower()
    place = lowered.rfind(needle) if needle else -1
    begins = [row.start() for row in _ROW.finditer(body)] if place >= 0 else []
    end = len(body)
    while place >= 0:
        index = bisect_right(begins, place) - 1
        after = begins[index + 1] - 1 if index + 1 < len(begins) else end
        yield _event(json.loads(body[begins[index] : after]), first + index)
        place = lowered.rfind(needle, 0, begins[index])


def _event(row: list[Any], number: int) -> Event:
    names = KEPT.get(row[1], ())
    facts = dict(zip(names, row[3:], strict=False))
    if len(row) > 3 + len(names):
        facts.update(row[3 + len(names)])
    if row[2] is not None:
        facts.update(_UNPACK.get(row[1], _unpack_nothing)(row[2]))
    return Event(number, row[0] / 1000, row[1], facts)


# What journal.py tells under `trace`, and the names it gets here.


def _unpack_message(trace: Any) -> dict[str, Any]:
    to, message_id, subject = trace
    each = [
        {"address": address, "rule": rule, "where": where, "to": [dict(zip(_TO, one, strict=True)) for one in places]}
        for address, rule, where, places in to
    ]
    return {
        "recipients": [one["address"] for one in each],
        "accepted": each,
        "message_id": message_id,
        "subject": subject,
    }


def _unpack_session(trace: Any) -> dict[str, Any]:
    return {"refused_at": [{"at": at, "queue_id": queue_id} for at, queue_id in trace[0]]}


def _unpack_nothing(_: Any) -> dict[str, Any]:
    return {}


_TO = ("store", "mailbox", "domain", "route")
_UNPACK: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    **dict.fromkeys(MESSAGES, _unpack_message),
    "session_closed": _unpack_session,
}

# Keys: what an event is found by.

#: Facts that name somebody or something, in any event.
_NAMING = ("session_id", "queue_id", "about", "recipient", "reverse_path", "user", "sender")
_PORT = re.compile(r":\d+\Z", re.ASCII)


def host_of(peer: str) -> str:
    """The address in "192.0.2.1:4000" or "[2001:db8::1]:4000"."""
    return _PORT.sub("", peer).strip("[]")


def keys_of(rows: Iterable[Row]) -> bytes:
    """Four bytes for each name in these events, each once: what Reading.named() finds them by."""
    names: set[str | None] = set()
    peers: set[str | None] = set()
    for _, _, peer, named in rows:
        peers.add(peer)
        names.update(named)
    names.update(host_of(peer) for peer in peers if peer)
    # All at once: one by one they cost twice as much. No name has a line feed; one that had would not be found.
    lowered = "\n".join(filter(None, names)).lower().encode("utf-8", "replace")
    return array("I", map(crc32, lowered.split(b"\n"))).tobytes()


def key_of(name: str) -> bytes:
    """The key of a name, in whatever case."""
    return array("I", [crc32(name.lower().encode("utf-8", "replace"))]).tobytes()


def names_of(event: Event) -> set[str]:
    """The names by which this event is found, in lower case: those whose keys keys_of() made."""
    facts = event.facts
    names: set[Any] = {facts.get(key) for key in _NAMING}
    names |= {host_of(facts.get("peer") or ""), facts.get("message_id"), *facts.get("recipients", ())}
    for refusal in facts.get("refusals") or ():
        names |= {refusal["argument"], refusal.get("reverse_path")}
    return {name.lower() for name in names if name}


def mentions(event: Event, text: str) -> bool:
    """True where this text, which is in lower case, stands in any fact."""
    return text in event.name or any(text in one for one in _texts(event.facts))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, str):
        yield value.lower()
    elif isinstance(value, Iterable):
        for one in value:
            yield from _texts(one)
    elif value is not None:
        yield str(value)


def needle_of(text: str) -> bytes:
    """What stands in the kept text, in lower case, where an event mentions this text."""
    return _encoded(text.lower())[1:-1].lower()
