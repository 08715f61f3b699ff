"""What the tests of the status page share: a daemon that was never started, with mail in its queue and a history."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from attending import Staged, desk_for, queue_in
from queueing import NOW
from receiving import RecordingLog
from remembering import Told, path_in, write

from smtpmaild.control.desk import Store
from smtpmaild.history.reading import Reading
from smtpmaild.metrics import Metrics
from smtpmaild.queue import Entry
from smtpmaild.server.house import Reload
from smtpmaild.server.sums import Ledger
from smtpmaild.status.feed import Feed
from smtpmaild.status.messages import Messages
from smtpmaild.status.minutes import Minutes
from smtpmaild.status.observed import Observer
from smtpmaild.status.site import Access, Site
from smtpmaild.web.events import Broadcast

#: The clock of the desk in attending.py stands here.
AT = NOW + 1
DAY = 86400.0


def counted() -> Metrics:
    """What a busy worker has counted: something of everything."""
    metrics = Metrics(messages_accepted=120, messages_refused=3, messages_deferred=2, recipients_accepted=130)
    metrics.recipients_refused, metrics.recipients_deferred, metrics.bytes_received = 41, 5, 480_000
    metrics.sessions_opened, metrics.sessions_refused, metrics.reports_made = 90, 4, 1
    for _ in range(120):
        metrics.messages_by_listener.count("mx", "accepted")
        metrics.commit_seconds.observe(0.004)
    metrics.sessions_by_listener.count("mx")
    metrics.session_seconds.observe(0.3)
    metrics.delivery_seconds.observe(2.0)
    for times, name in (
        (30, ("RCPT", "550 5.1.1", "local_domains.example.com (smtp.yaml:9)")),
        (2, ("RCPT", "550 5.1.1", "local_domains.example.com (smtp.yaml:12)")),
        (11, ("RCPT", "550 5.7.1", "no relay rule matched")),
        (5, ("other", "500 5.5.2", "")),
    ):
        for _ in range(times):
            metrics.refusals.count(*name)
    metrics.monitored.count("helo_syntax", "5yz")
    metrics.deliveries.count("relay:smarthost", "delivered")
    metrics.deliveries.count("relay:smarthost", "bounced")
    return metrics


class Remembered:
    """A history on disk, which is there or not."""

    def __init__(self, directory: Path, *, is_there: bool = True) -> None:
        self.is_there = is_there
        self._directory = directory
        self._moments = count(NOW)
        self.add("reloaded")

    def add(self, name: str, **facts: Any) -> None:
        self.tell((next(self._moments), name, facts, None))

    def tell(self, *told: Told) -> None:
        write(self._directory, [*told])

    def read(self) -> Reading:
        if not self.is_there:
            raise OSError(2, "No such file or directory")
        return Reading(path_in(self._directory))


def accepted(memory: Remembered, queue_id: str, **changed: Any) -> None:
    """A message that was taken."""
    facts: dict[str, Any] = {
        "queue_id": queue_id,
        "session_id": f"S{queue_id}",
        "listener": "mx",
        "peer": "192.0.2.7:4711",
        "helo": "client.example",
        "reverse_path": "carol@sender.example",
        "recipients": ["alice@example.com"],
        "subject": "Minutes of the meeting",
        "message_id": "<1@sender.example>",
        "size": 2048,
        "reply": f"250 2.0.0 Ok: queued as {queue_id}",
        "decided_by": "",
        "seconds": 0.01,
    }
    memory.add("message_accepted", **{**facts, **changed})


class Looked:
    """Everything between the desk and the pages."""

    def __init__(
        self,
        tmp_path: Path,
        *mail: Entry,
        access: Access | None = None,
        memory: Remembered | None = None,
        limits: tuple[int, int] = (0, 0),
        has_page: bool = True,
        **premises: Any,
    ) -> None:
        self.staged = Staged()
        self.staged.pulse(1, lag=0.002, sessions={"mx": 2}, networks={"192.0.2.0/24": 2}, counters=counted().counters())
        self.staged.pulse(2, sessions={"mx": 1}, networks={"192.0.2.0/24": 1}, memory=4096)
        premises.setdefault("stores", [Store("mail", "maildir", str(tmp_path), lambda: None)])
        premises.setdefault("certificates", lambda: [(["mx.example", "mail.example"], NOW + 60 * DAY, "/etc/mx.pem")])
        self.desk = desk_for(self.staged, queue_in(tmp_path / "queue", *mail), **premises)
        self.log = RecordingLog()
        self.ledger = Ledger(page_size=200_000)
        self.observer = Observer(self.desk, limits, lambda: AT)
        self.minutes = Minutes(self.ledger)
        self.broadcast = Broadcast(heartbeat=0.1)
        self.memory = memory
        self.messages = Messages(memory.read) if memory is not None else None
        self.feed = Feed(self.observer, self.minutes, self.broadcast, self.messages, self.log)
        self.site = Site(
            self.observer, self.minutes, self.broadcast, self.messages, access or Access(), has_page=has_page
        )

    def reload_was(self, reload: Reload) -> None:
        posts = self.staged.house.state.posts
        self.staged.state(*posts, reload=reload)
