"""ETRN: what waits for a host is tried at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from queueing import NOW, entry
from receiving import RecordingLog

from smtpmaild.delivery.etrn import Etrn
from smtpmaild.envelope import Peer, Session
from smtpmaild.queue import Query, State
from smtpmaild.queue.shards import Shards
from smtpmaild.queue.sqlite import SqliteQueue
from smtpmaild.smtp.reply import Reply

SESSION = Session("S1", "mx", "mx.example", Peer("192.0.2.1", 4711))


class Station:
    """A queue in which mail waits that was tried before."""

    def __init__(self, path: Path) -> None:
        self.revived: list[str] = []
        self.log = RecordingLog()
        self.shards = Shards(str(path), self.log)
        self.etrn = Etrn(self.shards, self.log, "ours.example".__eq__, lambda found: self.revived.extend(sorted(found)))
        queue = SqliteQueue(str(path), self.log)
        queue.open()
        far = NOW * 2
        queue.put([entry("b@y.example", "c@sub.y.example", at=far, state=State.DEFERRED)])
        queue.put([entry("d@z.example", at=far, state=State.DEFERRED, route="relay:Smart")])
        queue.put([entry("e@y.example", at=far, state=State.HELD)])
        queue.close()

    def ask(self, argument: str) -> Reply:
        return asyncio.run(self.etrn.answer(SESSION, argument))

    def due(self) -> list[str]:
        entries = self.shards.find(Query())
        return [one.address.local_part for _, each in entries for one in each if one.next_attempt < NOW * 2]


@pytest.mark.parametrize(
    ("argument", "reply", "due", "revived"),
    [
        ("Y.example", "253 2.0.0 Ok, 1 pending messages for node y.example started", ["b"], ["mx:y.example"]),
        ("@y.example", "253 2.0.0 Ok, 1 pending", ["b", "c"], ["mx:sub.y.example", "mx:y.example"]),
        ("#Smart", "253 2.0.0 Ok, 1 pending", ["d"], ["relay:Smart"]),
        ("x.example", "251 2.0.0 Ok, no messages waiting for node x.example", [], []),
        ("ours.example", "459 4.7.1 Node ours.example not allowed", [], []),
        ("@ours.example", "459 4.7.1", [], []),
        ("two words", "501 5.5.4", [], []),
        ("", "501 5.5.4", [], []),
        ("@", "501 5.5.4", [], []),
    ],
)
def test_what_is_asked_for_is_tried(
    argument: str, reply: str, due: list[str], revived: list[str], tmp_path: Path
) -> None:
    station = Station(tmp_path)
    assert str(station.ask(argument)).startswith(reply)
    assert station.due() == due
    assert station.revived == revived
    if due:
        line = (tmp_path / "changes.log").read_text().splitlines()[0]
        assert f"ETRN {argument} from 192.0.2.1:4711" in line


def test_a_queue_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    station = Station(tmp_path)
    (tmp_path / "queue-0.sqlite").write_bytes(b"no database at all" * 100)
    assert str(station.ask("y.example")).startswith("458 4.3.0 Unable to queue messages for node y.example")
    assert station.log.named("etrn_failed")
