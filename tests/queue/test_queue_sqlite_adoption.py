"""Adoption: who takes in the mail of workers that are no more, when, and what of it."""

from __future__ import annotations

from pathlib import Path

from queueing import NOW, entry
from sqlite_queues import LEASE, PLENTY, make, read

from smtpmaild.queue import Query, State, files
from smtpmaild.queue.body import SMALL


def test_worker_0_adopts_the_mail_of_a_worker_that_is_no_more(tmp_path: Path) -> None:
    gone = make(tmp_path, 3, 4)
    large = b"x" * (SMALL + 1)
    gone.put([entry(queue_id="A"), entry(queue_id="B", body=large), entry(queue_id="C", state=State.HELD)])
    assert len(gone.claim(NOW, LEASE, 1, PLENTY)) == 1
    queue = make(tmp_path, 0, 2)
    queue.put([entry(queue_id="D"), entry(queue_id="C", state=State.HELD)])
    assert len(queue.claim(NOW, LEASE, 10, PLENTY)) == 1, "worker 3 serves still"
    gone.stop_claiming()
    assert queue.claim(NOW + 40, LEASE, 10, PLENTY) == [], "it claims no more, and its sessions may still put"
    gone.put([entry(queue_id="E", state=State.HELD)])
    gone.close()

    claims = queue.claim(NOW + 80, LEASE, 10, PLENTY)

    assert sorted(claim.message.queue_id for claim in claims) == ["A", "B"]
    assert {read(claim.message.body) for claim in claims} == {large, read(entry()[0].body)}
    assert sorted(message.queue_id for message, _ in queue.find(Query())) == ["A", "B", "C", "D", "E"]
    assert queue.usage().messages == 5
    assert [number for number, _ in files.shards(str(tmp_path))] == [0]
    queue.close()


def test_worker_1_adopts_nothing(tmp_path: Path) -> None:
    make(tmp_path, 3, 4).close()
    queue = make(tmp_path, 1, 2)
    queue.claim(NOW, LEASE, 10, PLENTY)
    assert [number for number, _ in files.shards(str(tmp_path))] == [1, 3]
    queue.close()
