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
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple
from zlib import crc32

from pydantic_core import to_json

from smtpmaild.history import Event

#: Of the form of what chunk_of() writes. A file of another version is begun anew.
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
#: Facts that name somebody or something, in any event.
_NAMING = ("session_id", "queue_id", "about", "recipient", "reverse_path", "user", "sender")
MESSAGES = frozenset(("message_accepted", "message_deferred", "message_refused"))
ATTEMPTS = frozenset(("delivered", "deferred", "bounced", "expired"))

#: Events of a chunk: what is parsed to find one of them, and what becomes text at once, 0.5 ms of the event loop.
CHUNK_EVENTS = 64

#: An event as it is told: seconds since the epoch, one of KEPT, its facts, and what journal.py tells for us alone.
Told = tuple[float, str, Mapping[str, Any], Any]


def _getter(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    return itemgetter(*names) if names else lambda _: ()


def _names_of_message(facts: Mapping[str, Any], trace: Any) -> tuple[str | None, ...]:
    named = (facts["session_id"], facts["queue_id"], facts["reverse_path"], facts.get("user"))
    return named if trace is None else (*named, trace[1], *[one[0] for one in trace[0]])


def _names_of_session(facts: Mapping[str, Any], _: Any) -> tuple[str | None, ...]:
    named = (facts["session_id"], facts.get("user"))
    return (*named, *_refused(facts)) if facts.get("refusals") else named


def _names_of_others(facts: Mapping[str, Any], _: Any) -> tuple[str | None, ...]:
    return (*map(facts.get, _NAMING), *_refused(facts))


def _refused(facts: Mapping[str, Any]) -> Iterator[str | None]:
    for one in facts.get("refusals") or ():
        yield one["argument"]
        yield one.get("reverse_path")


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a row is made of an event's facts, worked out once: two of them are made for every message.

    usual, said: how many facts it has where it has no others, and which those are; with_trace: the same with a trace.
    """

    values: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    names: Callable[[Mapping[str, Any], Any], tuple[str | None, ...]]
    usual: int
    said: frozenset[str]
    usual_with_trace: int
    said_with_trace: frozenset[str]


def _plan(event: str, names: Sequence[str]) -> _Plan:
    usual, said = len(names), frozenset(names) | _FOR_THE_LOG
    if event in MESSAGES:
        more, says = usual + len(_IN_TRACE), said | _IN_TRACE
        return _Plan(_getter(names), _names_of_message, usual, said, more, says)
    of = _names_of_session if event == "session_closed" else _names_of_others
    return _Plan(_getter(names), of, usual, said, usual, said)


_PLANS = {event: _plan(event, names) for event, names in KEPT.items()}


def _text_of(at: float, name: str, facts: Mapping[str, Any], trace: Any, plan: _Plan) -> bytes:
    # [milliseconds, name, trace, facts..., rest]. A whole number: shortest texts of floats cost 0.4 us each.
    try:
        values = plan.values(facts)
    except KeyError:  # who tells it has learnt to leave something out
        values = tuple(map(facts.get, KEPT[name]))
    if len(facts) == (plan.usual if trace is None else plan.usual_with_trace):
        return _encoded((int(at * 1000), name, trace, *values))
    said = plan.said if trace is None else plan.said_with_trace
    rest = {key: value for key, value in facts.items() if key not in said}
    return _encoded((int(at * 1000), name, trace, *values, rest))


def _encoded(value: Any) -> bytes:
    try:
        return to_json(value, fallback=str)
    except ValueError:  # half a surrogate pair, as in a file's name that is no UTF-8
        return json.dumps(value, separators=(",", ":"), default=str).encode("ascii")


class Chunk(NamedTuple):
    """Events that are kept together: a row of the file (store.py).

    events: how many.  begins, ends: moments of the first and the last.  keys: four bytes for each name in them, each
    once: what Reading.named() finds them by.  text: JSON values with commas between them.
    """

    events: int
    begins: float
    ends: float
    keys: bytes
    text: bytes


def chunk_of(told: Sequence[Told]) -> tuple[Chunk | None, Sequence[Exception]]:
    """These events, kept together; None where there are none. And why others of them cannot be kept: a mistake of ours.

    Other facts than JSON knows become text.
    """
    texts: list[bytes] = []
    names: set[str | None] = set()
    mistakes: list[Exception] = []
    for at, name, facts, trace in told:
        plan = _PLANS[name]
        try:
            text, named = _text_of(at, name, facts, trace, plan), plan.names(facts, trace)
        except Exception as error:
            mistakes.append(error)
            continue
        texts.append(text)
        names.update(named)
        names.add(host_of(str(facts.get("peer") or "")))
    if not texts:
        return None, mistakes
    names -= {None, ""}
    # All at once: one by one they cost twice as much. No name has a line feed; one that had would not be found.
    lowered = "\n".join(map(str, names)).lower().encode("utf-8", "replace")
    keys = array("I", map(crc32, lowered.split(b"\n"))).tobytes()
    return Chunk(len(texts), told[0][0], told[-1][0], keys, b",".join(texts)), mistakes


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


# What journal.py tells as `trace`, and the names it gets here.


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


def host_of(peer: str) -> str:
    """The address in "192.0.2.1:4000" or "[2001:db8::1]:4000"."""
    host, _, port = peer.rpartition(":")
    return (host if port.isdecimal() else peer).strip("[]")


def key_of(name: str) -> bytes:
    """The key of a name, in whatever case."""
    return array("I", [crc32(name.lower().encode("utf-8", "replace"))]).tobytes()


def names_of(event: Event) -> set[str]:
    """The names by which this event is found, in lower case: those whose keys chunk_of() made."""
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
