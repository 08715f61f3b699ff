"""What the tests of the history share: events as the journal and the runner tell them, and a file with them in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smtpmaild.history import Settings
from smtpmaild.history.events import CHUNK_EVENTS, Chunk, chunk_of
from smtpmaild.history.events import Told as Told  # for those who make events of their own
from smtpmaild.history.store import Store

NOW = 1_790_000_000.0
PEER = "192.0.2.1:4000"


def id_of(number: int, at: float = NOW) -> str:
    """An id as queue_id.make() gives it."""
    return f"{int(at * 1_000_000):013X}{number:05X}"


def message(
    queue_id: str,
    *,
    at: float = NOW,
    session_id: str = "",
    sender: str = "alice@sender.example",
    to: str = "bob@local.example",
    peer: str = PEER,
    route: str = "",
    name: str = "message_accepted",
    subject: str = "Hello",
    message_id: str = "",
    reply: str = "",
    **more: Any,
) -> Told:
    """The end of a message, for one recipient."""
    mailbox, _, domain = to.partition("@")
    places = [("queue" if route else "mail", mailbox, domain, route)]
    facts = {
        "session_id": session_id or id_of(0, at),
        "queue_id": queue_id,
        "listener": "mx",
        "peer": peer,
        "helo": "client.example",
        "reverse_path": sender,
        "recipients": [to],
        "rules": ["local_domains.local.example"],
        "size": 4096,
        "reply": reply or f"250 2.0.0 Ok: queued as {queue_id}",
        "decided_by": "",
        "seconds": 0.02,
        **more,
    }
    trace = ([(to, "local_domains.local.example", "smtp.yaml:9", places)], message_id or f"<{queue_id}@x>", subject)
    return at, name, facts, trace


def session(
    session_id: str,
    *,
    at: float = NOW,
    peer: str = PEER,
    refusals: list[dict[str, str]] | None = None,
    refused_at: list[tuple[float, str]] | None = None,
    **more: Any,
) -> Told:
    """The end of a session."""
    facts = {
        "session_id": session_id,
        "listener": "mx",
        "peer": peer,
        "helo": "client.example",
        "messages": 1,
        "refused_recipients": len(refusals or ()),
        "refusals": refusals or [],
        "reason": "",
        "seconds": 0.5,
        **more,
    }
    return at, "session_closed", facts, (refused_at,) if refused_at else None


def attempt(queue_id: str, name: str = "delivered", *, at: float = NOW, attempts: int = 1, **more: Any) -> Told:
    """What the runner says of an attempt."""
    facts = {
        "queue_id": queue_id,
        "sender": "alice@sender.example",
        "recipient": "carol@remote.example",
        "route": "relay:smarthost",
        "destination": "relay:smarthost",
        "remote": "mx.remote.example [192.0.2.99]:25",
        "reply": "250 2.0.0 thanks",
        "attempts": attempts,
        "age": 1.5,
        **more,
    }
    return at, name, facts, None


def refusal(argument: str, rule: str = "local_domains.local.example (smtp.yaml:9)") -> dict[str, str]:
    return {
        "command": "RCPT",
        "argument": argument,
        "reply": "550 5.1.1 No such mailbox",
        "rule": rule,
        "reverse_path": "alice@sender.example",
    }


def path_in(directory: Path) -> str:
    return str(directory / "var" / "history.sqlite")


def settings_in(directory: Path, keep: float = 1e9, size: int = 10**9) -> Settings:
    return Settings(path_in(directory), keep, size)


def chunk(*told: Told) -> Chunk:
    """These events, kept together."""
    kept, mistakes = chunk_of(told)
    assert kept is not None
    assert mistakes == []
    return kept


def append(store: Store, told: Sequence[Told]) -> None:
    """As the Recorder's thread does."""
    store.append([chunk(*told[at : at + CHUNK_EVENTS]) for at in range(0, len(told), CHUNK_EVENTS)])


def write(directory: Path, *batches: list[Told]) -> str:
    """A file with these events, each list written at once; its path."""
    store = Store(settings_in(directory), print)
    for batch in batches:
        append(store, batch)
    store.close()
    return path_in(directory)
