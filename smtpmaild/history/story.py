"""Tells a life in words, a line for each thing that happened, in order: for people who want to know why.

The texts hold what came from the network as it came; whoever shows them escapes them for where they are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Any

from smtpmaild.history import Event
from smtpmaild.history.events import ATTEMPTS, MESSAGES
from smtpmaild.history.lives import Life

#: How a line is meant: that something went well, was refused, or waits.
GOOD, BAD, WAITS = "good", "bad", "waits"
_TIME_DIGITS = 13


@dataclass(frozen=True, slots=True)
class Line:
    """at: seconds since the epoch.  more: what stands below it.  tone: "" for what is neither."""

    at: float
    text: str
    more: tuple[str, ...] = ()
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """title: what it is about.  lines: in order.  end: what came of it in one sentence, and how that is meant."""

    title: str
    lines: tuple[Line, ...]
    end: str
    tone: str = ""


def story_of(life: Life) -> Story:
    """The whole of it."""
    about = life.name if life.kind == "message" else ""
    lines = [*_opening(life.events), *(line for event in life.events for line in lines_of(event, about))]
    lines.sort(key=lambda line: line.at)  # in one millisecond the order stays: the session opens first
    end, tone = _end(life)
    return Story(_title(life), tuple(lines), end, tone)


def short_of(event: Event) -> Line:
    """A message or an attempt in one line: whose it is, and what was said where it did not go well."""
    facts = event.facts
    verb, tone = _CONCLUSIONS[event.name] if event.name in MESSAGES else (event.name, _ATTEMPTS[event.name][1])
    first, *others = facts["recipients"] if event.name in MESSAGES else [facts["recipient"]]
    sender = facts.get("reverse_path") or facts.get("sender") or "<>"
    more = f" and {len(others)} more" if others else ""
    reply = f": {facts['reply']}" if tone != GOOD else ""
    return Line(event.at, f"{verb} {sender} > {first}{more}{reply}", tone=tone)


def lines_of(event: Event, about: str = "") -> Iterator[Line]:
    """One event in words. about: a queue id; then only what concerns this message is told of its session."""
    if event.name == "session_closed":
        yield from _session(event, about)
    elif event.name in MESSAGES:
        yield _message(event)
    elif event.name in ATTEMPTS:
        yield _attempt(event)
    elif event.name in _WORDS:
        words, tone = _WORDS[event.name]
        said = (event.facts["reply"],) if event.facts.get("reply") else ()
        yield Line(event.at, words(event.facts), (*said, *_rest(event.facts, _SAID)), tone)
    else:
        yield Line(event.at, event.name.replace("_", " "), _rest(event.facts, _SAID))


# The session


def _opening(events: Sequence[Event]) -> Iterator[Line]:
    """Its id says when a session was opened; what it was then, each of its events says."""
    for event in events:
        facts = event.facts
        session_id = facts.get("session_id")
        if session_id and "helo" in facts:
            name = f" ({facts['client_name']})" if facts.get("client_name") else ""
            more = [f"session {session_id}"]
            if facts.get("proxy"):
                more.append(f"by way of the proxy {facts['proxy']}")
            if facts.get("helo"):
                more.append(f"greets as {facts['helo']}")
            more += [facts["tls"]] if facts.get("tls") else []
            at = _moment_of(session_id, event.at)
            yield Line(at, f"{facts['peer']}{name} connects to listener {facts['listener']}", tuple(more))
            return


def _moment_of(name: str, otherwise: float) -> float:
    try:
        moment = int(name[:_TIME_DIGITS], 16) // 1000 / 1000
    except ValueError:
        return otherwise
    return moment if 0 < moment <= otherwise else otherwise


def _session(event: Event, about: str) -> Iterator[Line]:
    facts = event.facts
    moments: Sequence[Mapping[str, Any]] = facts.get("refused_at") or ()
    others = 0
    for number, refusal in enumerate(facts["refusals"]):
        when: Mapping[str, Any] = moments[number] if number < len(moments) else {"at": event.at, "queue_id": ""}
        if about and when["queue_id"] not in ("", about):
            others += 1
            continue
        if refusal["command"] != "end of data":  # of which message_refused tells more
            yield _refusal(when["at"], refusal)
    more = [f"refused by the protocol: {one}" for one in facts.get("refused_commands") or ()]
    if others:
        more.append(f"{others} more refused for other messages of the session")
    if about and facts["messages"] > 1:
        more.append(f"{facts['messages']} messages in the session")
    reason = f": {facts['reason']}" if facts["reason"] else ""
    yield Line(event.at, f"session closed after {_span(facts['seconds'])}{reason}", tuple(more))


def _refusal(at: float, refusal: Mapping[str, str]) -> Line:
    what = {"connect": "the client", "MAIL": f"MAIL FROM:<{refusal['argument']}>"}.get(
        refusal["command"], f"{refusal['command']} {refusal['argument']}".strip()
    )
    if refusal["command"] == "RCPT":
        what = f"RCPT TO:<{refusal['argument']}>"
    verb = "refused" if refusal["reply"].startswith("5") else "deferred"
    rule = (f"by {refusal['rule']}",) if refusal["rule"] else ()
    return Line(at, f"{what} {verb}", (refusal["reply"], *rule), BAD if verb == "refused" else WAITS)


# A message

_CONCLUSIONS = {
    "message_accepted": ("accepted", GOOD),
    "message_deferred": ("deferred", WAITS),
    "message_refused": ("refused", BAD),
}


def _message(event: Event) -> Line:
    facts = event.facts
    verb, tone = _CONCLUSIONS[event.name]
    more = [facts["reply"]]
    if facts.get("decided_by"):
        more.append(f"by {facts['decided_by']}")
    if facts.get("user"):
        more.append(f"signed in as {facts['user']}")
    replies = facts.get("replies") or ()
    for number, one in enumerate(facts.get("accepted") or ()):
        rule = f"{one['rule']} ({one['where']})" if one["where"] else one["rule"]
        more.append(f"{one['address']}: by {rule}")
        more += [f"    {_place(to)}" for to in one["to"]] if event.name == "message_accepted" else []
        more += [f"    {replies[number]}"] if number < len(replies) else []
    sender = f"<{facts['reverse_path']}>"
    size = f", {_size(facts['size'])}" if facts["size"] else ""
    return Line(event.at, f"message {facts['queue_id']} from {sender}{size} {verb}", tuple(more), tone)


def _place(to: Mapping[str, str]) -> str:
    mailbox = f"{to['mailbox']}@{to['domain']}" if to["domain"] else to["mailbox"]
    if to["route"]:
        return f"queued for {mailbox}, to go by {to['route']}"
    return f"stored in {to['store']}, the mailbox of {mailbox}"


# Mail that travels on

_ATTEMPTS = {
    "delivered": ("delivered to", GOOD),
    "deferred": ("could not be delivered yet to", WAITS),
    "bounced": ("bounced for", BAD),
    "expired": ("was given up for", BAD),
}


def _attempt(event: Event) -> Line:
    facts = event.facts
    words, tone = _ATTEMPTS[event.name]
    said = f"{facts['remote']} said: {facts['reply']}" if facts["remote"] else facts["reply"]
    more = [said, f"attempt {facts['attempts']} by {facts['route']}, {_span(facts['age'])} after it came"]
    if facts.get("next_attempt"):
        wait = _span(facts["next_attempt"] - event.at)
        more.append(f"the next one in {wait}")
    return Line(event.at, f"{facts['queue_id']} {words} {facts['recipient']}", tuple(more), tone)


# Everything else: its words, and its tone

_Words = Callable[[Mapping[str, Any]], str]
#: Facts that a line has told, or that the whole life is about.
_SAID = frozenset(
    (
        "session_id",
        "queue_id",
        "listener",
        "peer",
        "reply",
        "policy",
        "rule",
        "stage",
        "user",
        "about",
        "sender",
        "verb",
    )
)
_WORDS: Mapping[str, tuple[_Words, str]] = {
    "authenticated": (lambda f: f"signed in as {f.get('user')}", GOOD),
    "authentication_failed": (lambda f: f"could not sign in as {f.get('user') or 'anybody'}", BAD),
    "policy_would_accept": (lambda f: f"{_policy(f)} would accept", ""),
    "policy_would_defer": (lambda f: f"{_policy(f)} would defer", WAITS),
    "policy_would_refuse": (lambda f: f"{_policy(f)} would refuse", WAITS),
    "report_made": (lambda f: f"report {f.get('queue_id')} made for the sender of {f.get('about')}", ""),
    "queue_changed": (lambda f: f"queue {f.get('verb')} of {f.get('recipient')} by {f.get('user')}", ""),
    "tls_handshake_failed": (lambda f: f"TLS handshake with {f.get('peer')} failed", BAD),
    "connection_limit_reached": (lambda f: f"{f.get('peer')} has too many connections to {f.get('listener')}", BAD),
}


def _policy(facts: Mapping[str, Any]) -> str:
    return f"{facts.get('rule') or facts.get('policy')}, in monitor mode at {facts.get('stage')},"


def _rest(facts: Mapping[str, Any], said: frozenset[str]) -> tuple[str, ...]:
    return tuple(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items() if key not in said and value)


# The frame


def subject_of(facts: Mapping[str, Any]) -> str:
    """The subject in its characters (RFC 2047); as it stands where it cannot be read."""
    subject = str(facts.get("subject") or "")
    try:
        return str(make_header(decode_header(subject)))
    except (HeaderParseError, LookupError, UnicodeError, ValueError):
        return subject


def _title(life: Life) -> str:
    if life.kind == "message":
        for event in life.events:
            if event.name in MESSAGES and event.facts["queue_id"] == life.name:
                facts = event.facts
                title = f"message {life.name} from <{facts['reverse_path']}> to {', '.join(facts['recipients'])}"
                subject = subject_of(facts)
                return f'{title}, "{subject}"' if subject else title
        return f"message {life.name}"
    return f"session {life.name}" if life.kind == "session" else life.events[0].name.replace("_", " ")


def _end(life: Life) -> tuple[str, str]:
    """What came of it."""
    messages = [event for event in life.events if event.name in MESSAGES]
    if life.kind != "message":
        closed = next((event for event in life.events if event.name == "session_closed"), None)
        if closed is None:
            return ("the session is not closed, or nothing tells so", WAITS) if life.kind == "session" else ("", "")
        refused = len(closed.facts["refusals"]) + len(closed.facts.get("refused_commands") or ())
        words = f"{len(messages)} messages, {refused} commands refused"
        return words.replace("1 messages", "1 message").replace("1 commands", "1 command"), BAD if refused else GOOD
    if messages and messages[0].name != "message_accepted":
        return _CONCLUSIONS[messages[0].name]
    return _whereabouts(life, messages)


def _whereabouts(life: Life, messages: Sequence[Event]) -> tuple[str, str]:
    """Of the recipients of an accepted message."""
    states: dict[str, tuple[str, str]] = {}
    for event in messages:
        for one in event.facts.get("accepted") or ():
            for to in one["to"]:
                is_queued = bool(to["route"])
                who = f"{to['mailbox']}@{to['domain']}" if is_queued and to["domain"] else one["address"]
                states[who] = ("waits for its first attempt", WAITS) if is_queued else ("stored", GOOD)
    for event in life.events:
        if event.name in ATTEMPTS and event.facts.get("queue_id") == life.name:
            _, tone = _ATTEMPTS[event.name]
            words = "waits for its next attempt" if event.name == "deferred" else event.name
            states[event.facts["recipient"]] = (words, tone)
    if not states:
        return ("accepted", GOOD) if messages else ("nothing tells of its end", WAITS)
    counted: dict[str, int] = {}
    for words, _ in states.values():
        counted[words] = counted.get(words, 0) + 1
    tones = {tone for _, tone in states.values()}
    tone = next((tone for tone in (BAD, WAITS) if tone in tones), GOOD)
    if len(counted) == 1 and len(states) > 1:
        return f"all {len(states)} recipients: {next(iter(counted))}", tone
    return ", ".join(f"{count} {words}" if len(states) > 1 else words for words, count in counted.items()), tone


def _span(seconds: float | None) -> str:
    seconds = max(0.0, seconds or 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _size(size: int) -> str:
    for unit, name in ((1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
