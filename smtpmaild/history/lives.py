"""Puts events together again: all that is known of one message, or of one session with its messages.

What is asked for is an id, an address, a message-id, an IP address or network, a user; anything else is searched for
as a text. An id has one life, an address or a client many: the newest come first.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from smtpmaild.history import Event
from smtpmaild.history.events import KEPT, MESSAGES, host_of, names_of
from smtpmaild.history.reading import Reading

_ID = re.compile(r"[0-9A-F]{18}", re.ASCII | re.IGNORECASE)
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Ids are made of the time in microseconds (queue_id.py); an event of theirs is no older than they are.
_TIME_DIGITS = 13
#: Clocks are set back now and then.
_TOLERANCE = 3600.0


@dataclass(frozen=True, slots=True)
class Life:
    """kind: "message", "session", or "event" for what belongs to neither.  name: its id.  events: the oldest first."""

    kind: str
    name: str
    events: tuple[Event, ...]


def lives(reading: Reading, wanted: str, limit: int, also: Collection[str] = ()) -> list[Life]:
    """What is known of whatever is wanted, the newest life first; at most so many. also: other names of it."""
    anchors: dict[tuple[str, str], Event] = {}
    names, network = {name.lower() for name in (*names_for(wanted), *also)}, _network_of(wanted)
    network = None if also else network  # an address by another name
    by_session = network is not None
    found = reading.named(*names) if network is None else _of_network(reading, network)
    for event in found if names or network else ():
        anchors.setdefault(_anchor(event, names, by_session=by_session), event)
        if len(anchors) > limit:
            break
    if not anchors and network is None:
        for event in reading.mentioning(wanted, KEPT):
            anchors.setdefault(_anchor(event, names, by_session=False), event)
            if len(anchors) > limit:
                break
    return _gathered(reading, _without_doubles(anchors)[:limit], anchors)


def life_of(reading: Reading, name: str) -> Life | None:
    """The life that has this id, of a message or of a session; None where nothing is known of it."""
    names = {name.lower()}
    for event in reading.named(name):
        anchor = _anchor(event, names, by_session=False)
        if anchor[1].lower() in names:
            (life,) = _gathered(reading, [anchor], {anchor: event})
            return life
    return None


def names_for(wanted: str) -> set[str]:
    """The names that somebody may have meant."""
    text = wanted.strip()
    inner = text.removeprefix("<").removesuffix(">")
    try:
        return {str(ipaddress.ip_address(inner.strip("[]")))}
    except ValueError:
        return {name for name in (text, inner, f"<{inner}>" if "@" in inner else "") if name}


def concerns(event: Event, names: Iterable[str]) -> bool:
    """True where an event belongs to one of these names, which are in lower case."""
    return not names_of(event).isdisjoint(names)


def _network_of(wanted: str) -> _Network | None:
    """An address or a network: then sessions are asked for."""
    try:
        return ipaddress.ip_network(wanted.strip().strip("[]"), strict=False)
    except ValueError:
        return None


def _of_network(reading: Reading, network: _Network) -> Iterator[Event]:
    if network.num_addresses == 1:
        yield from reading.named(str(network.network_address))
        return
    bits, separator = (8, ".") if network.version == 4 else (16, ":")
    parts = str(network.network_address).split(separator)[: network.prefixlen // bits]
    text = "".join(part + separator for part in parts if part)
    for event in reading.mentioning(text, KEPT):
        try:
            if ipaddress.ip_address(host_of(event.facts.get("peer") or "")) in network:
                yield event
        except ValueError:
            continue


def _anchor(event: Event, names: Collection[str], *, by_session: bool) -> tuple[str, str]:
    """Which life an event is part of. names: what is wanted, in lower case."""
    queue_id, session_id = event.facts.get("queue_id"), event.facts.get("session_id")
    about = event.facts.get("about")
    if about and about.lower() in names:
        return "message", about
    if session_id and (by_session or not queue_id or session_id.lower() in names):
        return "session", session_id
    if queue_id:
        return "message", queue_id
    return "event", str(event.number)


def _without_doubles(anchors: dict[tuple[str, str], Event]) -> list[tuple[str, str]]:
    """A session whose messages are asked for is told with each of them."""
    told = {event.facts.get("session_id") for (kind, _), event in anchors.items() if kind == "message"}
    return [(kind, name) for kind, name in anchors if kind != "session" or name not in told]


def _gathered(reading: Reading, wanted: list[tuple[str, str]], anchors: dict[tuple[str, str], Event]) -> list[Life]:
    ids = {name for kind, name in wanted if kind != "event"}
    if not ids:
        return [Life(kind, name, (anchors[kind, name],)) for kind, name in wanted]
    known: dict[int, Event] = {}
    missing = ids
    for _ in range(2):  # what they are part of, and what is part of that
        if missing:
            known.update((event.number, event) for event in reading.named(*missing, since=_moment_before(missing)))
        ids = ids | missing
        missing = {
            event.facts[key]
            for event in known.values()
            for key in ("session_id", "queue_id")
            if event.name in MESSAGES and event.facts.get(key) and event.facts[key] not in ids
        }
    found = sorted(known.values(), key=lambda event: (event.at, event.number))
    return [Life(kind, name, _part(kind, name, found, anchors)) for kind, name in wanted]


def _moment_before(ids: Iterable[str]) -> float:
    return min(int(name[:_TIME_DIGITS], 16) / 1e6 if _ID.fullmatch(name) else 0.0 for name in ids) - _TOLERANCE


def _part(kind: str, name: str, found: list[Event], anchors: dict[tuple[str, str], Event]) -> tuple[Event, ...]:
    if kind == "event":
        return (anchors[kind, name],)
    own = [event for event in found if name in (event.facts.get("queue_id"), event.facts.get("about"))]
    if kind == "message":
        sessions = {event.facts.get("session_id") for event in own} - {None}
        around = [e for e in found if e.facts.get("session_id") in sessions and e.name not in MESSAGES]
    else:
        own = [event for event in found if event.facts.get("session_id") == name]
        messages = {event.facts["queue_id"] for event in own if event.name in MESSAGES}
        around = [e for e in found if e.facts.get("queue_id") in messages or e.facts.get("about") in messages]
    whole = {event.number: event for event in (*own, *around)}
    return tuple(sorted(whole.values(), key=lambda event: (event.at, event.number)))
