"""What the log and the counters hear of one session: an event for each message, one for the session, and who signed in.

Facts are those of the session and its transaction at that moment; what is empty for most clients (a proxy, TLS, a user)
is left out for them. What a history wants besides is its `trace` (history/events.py). Decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from smtpmaild.auth import Authenticated, Failed
from smtpmaild.content import Content
from smtpmaild.envelope import Recipient, Session, Transaction
from smtpmaild.facts import Log, Remember
from smtpmaild.metrics import OTHER, Metrics
from smtpmaild.smtp.command import VERBS, split_command
from smtpmaild.smtp.reply import Reply

#: Refusals kept for the session's log event; a peer that collects more has made its point.
_REFUSALS_LOGGED = 100
#: First digit of the reply to a message -> its event in the log.
_CONCLUSIONS = {2: "message_accepted", 4: "message_deferred", 5: "message_refused"}
#: The same -> its name among the counters.
_RESULTS = {2: "accepted", 4: "deferred", 5: "refused"}


class Journal:
    """Of one session. refusals: what was refused by us, not by the protocol.  started_at: seconds since the epoch.
    record: told of messages and sessions in place of the log, which it tells; None where no history is kept."""

    __slots__ = ("_log", "_metrics", "_record", "_refused_at", "_session", "_started_at", "refusals")

    def __init__(
        self, session: Session, log: Log, metrics: Metrics, started_at: float, record: Remember | None = None
    ) -> None:
        self.refusals: list[dict[str, str]] = []
        self._session = session
        self._log = log
        self._metrics = metrics
        self._started_at = started_at
        self._record = record
        self._refused_at: list[tuple[float, str]] = []  # when, and of which message: beside `refusals`

    def refused(self, command: str, argument: str, reply: Reply, transaction: Transaction | None) -> None:
        """A command was refused; the log hears of it when the session is over."""
        session = self._session
        session.refused_recipients += command == "RCPT"
        self._metrics.refusals.count(command, _short(reply), session.decided_by)
        if len(self.refusals) >= _REFUSALS_LOGGED:
            return
        note = {"command": command, "argument": argument, "reply": str(reply), "rule": session.decided_by}
        if transaction is not None:
            note["reverse_path"] = transaction.envelope.reverse_path.text
        if session.forwarded:
            note["forwarded_for"] = session.forwarded.get("addr") or "unknown"
        self.refusals.append(note)
        if self._record is not None:
            queue_id = "" if transaction is None else transaction.envelope.queue_id
            # Never rounded up: it was before the session ended, and is told so.
            self._refused_at.append((int(time.time() * 1000) / 1000, queue_id))

    def concluded(
        self, transaction: Transaction, reply: Reply, content: Content, size: int, each: Sequence[str]
    ) -> None:
        """A message was answered. each: under LMTP the replies to its recipients."""
        metrics = self._metrics
        if reply.code < 400:
            metrics.messages_accepted += 1
            self._session.messages += 1
        elif reply.is_permanent:
            metrics.messages_refused += 1
        else:
            metrics.messages_deferred += 1
        envelope = transaction.envelope
        metrics.messages_by_listener.count(envelope.listener, _RESULTS[reply.code // 100])
        recipients = envelope.recipients
        facts: dict[str, Any] = {
            "session_id": envelope.session_id,
            "queue_id": envelope.queue_id,
            "listener": envelope.listener,
            "peer": str(envelope.peer),
            "helo": envelope.hello,
            "reverse_path": envelope.reverse_path.text,
            "recipients": [recipient.address.text for recipient in recipients],
            "rules": [*{recipient.route.rule.name: None for recipient in recipients}],
            "size": size,
            "reply": str(reply),
        }
        if each:
            facts["replies"] = each
        if envelope.priority:  # RFC 6710 §4.1: as received
            facts["priority"] = envelope.priority
        facts["decided_by"] = self._session.decided_by
        self._add_client(facts)
        self._add_trust(facts)
        facts["seconds"] = round(time.time() - envelope.received_at, 4)
        trace = None if self._record is None else _trace(recipients, content)
        self._tell(_CONCLUSIONS[reply.code // 100], facts, trace)

    def client_named(self) -> None:
        """A proxy said whom it speaks for."""
        facts = self._who()
        self._add_client(facts)
        self._add_trust(facts)
        self._log.info("client_named", **facts)

    def signed_in(self, step: Authenticated | Failed) -> None:
        """An exchange came to its end."""
        if isinstance(step, Authenticated):
            self._metrics.authentications_accepted += 1
            self._log.info("authenticated", **self._who(), user=step.user)
        else:
            self._metrics.authentications_refused += 1
            self._log.info(
                "authentication_failed", **self._who(), user=step.user, cause=step.cause, reply=str(step.reply)
            )

    def closed(self, reason: str, refused_commands: Sequence[tuple[str, Reply]]) -> None:
        """The session is over. refused_commands: by the protocol."""
        session, metrics = self._session, self._metrics
        seconds = time.time() - self._started_at
        metrics.sessions_by_listener.count(session.listener)
        metrics.session_seconds.observe(seconds)
        for line, reply in refused_commands:
            metrics.refusals.count(_verb_of(line), _short(reply), "")
        facts = self._who()
        self._add_client(facts)
        facts["helo"] = session.hello
        facts["messages"] = session.messages
        facts["refused_recipients"] = session.refused_recipients
        facts["refusals"] = self.refusals
        if refused_commands:
            facts["refused_commands"] = [f"{line}: {reply}" for line, reply in refused_commands]
        self._add_trust(facts)
        facts["reason"] = reason
        facts["seconds"] = round(seconds, 4)
        self._tell("session_closed", facts, (self._refused_at,) if self._refused_at else None)

    def _tell(self, event: str, facts: dict[str, Any], trace: object) -> None:
        if self._record is None:
            self._log.info(event, **facts)
        else:
            self._record(event, facts, trace)

    def _who(self) -> dict[str, Any]:
        session = self._session
        return {"session_id": session.session_id, "listener": session.listener, "peer": str(session.peer)}

    def _add_client(self, facts: dict[str, Any]) -> None:
        """What is known of the client besides its address; of most clients nothing.

        client_name: from the DNS.  proxy: who told us the address, and under `proxied` what else it told.  forwarded:
        what XFORWARD said of the client before this one; `peer` stays who sent it.
        """
        session = self._session
        if session.client_name:
            facts["client_name"] = session.client_name
        if session.proxy is not None:
            facts["proxy"] = str(session.proxy)
        if session.proxy_facts:
            facts["proxied"] = dict(session.proxy_facts)
        if session.forwarded:
            facts["forwarded"] = dict(session.forwarded)

    def _add_trust(self, facts: dict[str, Any]) -> None:
        """How we know the client; nothing of it for most."""
        session = self._session
        if session.tls is not None:
            facts["tls"] = f"{session.tls.version} {session.tls.cipher}"
            if session.tls.client is not None:
                facts["client_certificate"] = session.tls.client.subject
        if session.user:
            facts["user"] = session.user


def _short(reply: Reply) -> str:
    """Without its text: one of few."""
    return f"{reply.code} {reply.enhanced}" if reply.enhanced else str(reply.code)


def _verb_of(line: str) -> str:
    """As the metrics have it: what a client makes up is none."""
    verb, _ = split_command(line)
    return verb if verb in VERBS else OTHER


def _trace(recipients: Sequence[Recipient], content: Content) -> tuple[object, ...]:
    """What history/events.py unpacks: where each recipient's mail goes and by which rule, Message-ID and Subject.

    With the Recorder behind it a third of the journal's own cost again (bench/history.py).
    """
    to = [
        (
            one.address.text,
            one.route.rule.name,
            one.route.rule.where,
            [(place.sink, place.mailbox, place.domain, place.route) for place in one.route.destinations],
        )
        for one in recipients
    ]
    return (to, *content.message_id_and_subject())
