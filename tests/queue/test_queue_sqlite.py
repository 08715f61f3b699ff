"""The queue in SQLite: claims, against the reference, across processes, through crashes and on disks in trouble."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queueing import LATER, NOW, MemoryQueue, all_of, entry
from receiving import RecordingLog
from sqlite_queues import LEASE, PLENTY, make, read, shown, with_parameters

from smtpmaild.queue import Entry, Query, Room, Settlement, State, Usage
from smtpmaild.queue.body import SMALL, FileBody, file_body
from smtpmaild.queue.sqlite import ORPHAN_AGE, SqliteQueue, prepare

# What is killed cannot write down what it covered.
_WITHOUT_COVERAGE = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    queue = make(tmp_path)
    yield queue
    queue.close()


def test_claim_is_a_lease_on_all_due_recipients_of_one_destination(queue: SqliteQueue) -> None:
    queue.put([entry("b@y.example", "c@z.example", "d@y.example")])

    claims = {claim.destination: claim for claim in queue.claim(NOW, LEASE, 10, PLENTY)}

    assert set(claims) == {"mx:y.example", "mx:z.example"}
    assert [one.number for one in claims["mx:y.example"].recipients] == [0, 2]
    assert all(one.state is State.IN_DELIVERY for one in claims["mx:y.example"].recipients)
    assert queue.claim(LEASE - 1, LEASE + 600, 10, PLENTY) == []
    assert len(queue.claim(LEASE, LEASE + 600, 10, PLENTY)) == 2, "the lease is over"


def test_deferred_mail_comes_again_and_knows_why(queue: SqliteQueue) -> None:
    queue.put([entry()])
    (claim,) = queue.claim(NOW, LEASE, 10, PLENTY)
    queue.settle([all_of(claim, State.DEFERRED, LATER)])

    assert queue.claim(NOW + 299, LEASE, 10, PLENTY) == []
    (again,) = queue.claim(NOW + 300, LEASE + 300, 10, PLENTY)
    (recipient,) = again.recipients
    assert (recipient.attempts, recipient.last, recipient.remote) == (1, LATER, "mx.y.example")
    assert recipient.attempted_at == NOW


def test_old_mail_is_claimed_though_there_is_no_room(queue: SqliteQueue) -> None:
    queue.put([entry(at=NOW - 10), entry(at=NOW - 1000)])
    claims = queue.claim(NOW, LEASE, 10, Room({"mx:y.example": 0}, received_before=NOW - 500))
    assert [claim.message.received_at for claim in claims] == [NOW - 1000]


def test_large_bodies_are_files(queue: SqliteQueue, tmp_path: Path) -> None:
    large = b"x" * (SMALL + 1)
    queue.put([entry(body=large, queue_id="A"), entry(body=large[1:], queue_id="B")])

    (path,) = [one for one in (tmp_path / "bodies").iterdir() if one.is_file()]
    assert path.name == "A"
    assert path.read_bytes() == large
    claims = {claim.message.queue_id: claim for claim in queue.claim(NOW, LEASE, 10, PLENTY)}
    assert isinstance(claims["A"].message.body, FileBody)
    assert read(claims["A"].message.body) == large
    assert read(claims["B"].message.body) == large[1:]
    queue.settle([all_of(claim, State.DELIVERED) for claim in claims.values()])
    assert not path.exists()


def test_body_that_lies_in_its_place_is_not_copied_and_a_small_one_goes_into_the_row(
    queue: SqliteQueue, tmp_path: Path
) -> None:
    (tmp_path / "bodies" / "A").write_bytes(b"y" * 100_000)
    (tmp_path / "small").write_bytes(b"z")
    inode = (tmp_path / "bodies" / "A").stat().st_ino
    in_place, small = entry(queue_id="A"), entry(queue_id="B")
    queue.put(
        [
            (replace(in_place[0], body=file_body(str(tmp_path / "bodies" / "A"))), in_place[1]),
            (replace(small[0], body=file_body(str(tmp_path / "small"))), small[1]),
        ]
    )
    assert (tmp_path / "bodies" / "A").stat().st_ino == inode
    assert [read(message.body) for message, _ in queue.find(Query())] == [b"y" * 100_000, b"z"]


# Properties: whatever is done, the file and the reference agree.

RECIPIENTS = st.lists(
    st.sampled_from(["b@y.example", "c@y.example", "d@z.example", "é@w.example"]), min_size=1, max_size=3
)
PUT = st.tuples(st.just("put"), RECIPIENTS, st.integers(0, 50))
CLAIM = st.tuples(st.just("claim"), st.integers(0, 100), st.integers(1, 40))
LIMITED = st.tuples(st.just("limited"), st.integers(1, 3), st.integers(0, 2))
SETTLE = st.tuples(
    st.just("settle"),
    st.integers(0, 5),
    st.sampled_from([State.DELIVERED, State.DEFERRED, State.BOUNCED, State.IN_DELIVERY]),
)
CHANGE = st.tuples(
    st.just("change"), st.sampled_from(["", "y.example"]), st.sampled_from([State.HELD, State.DEFERRED, State.EXPIRED])
)
STEPS = st.lists(st.one_of(PUT, CLAIM, LIMITED, SETTLE, CHANGE, st.tuples(st.just("reopen"))), max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_as_the_reference(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]) -> None:
    path = tmp_path_factory.mktemp("queue")
    queue, model = make(path), MemoryQueue()
    claims: list[Any] = []
    now = NOW
    try:
        for number, (verb, *arguments) in enumerate(steps):
            now += 1
            if verb == "put":
                one = entry(
                    *arguments[0], at=now + arguments[1], queue_id=f"{number:018X}", sender=f"a@x{number % 3}.example"
                )
                queue.put([one])
                model.put([one])
            elif verb == "claim":
                now += arguments[0]
                found = queue.claim(now, now + arguments[1], 1000, PLENTY)
                assert _claimed(found) == _claimed(model.claim(now, now + arguments[1], 1000, PLENTY))
                claims += found
            elif verb == "limited":
                limit, room = arguments
                found = queue.claim(now, now + 30, limit, Room(other=room))
                best = len(
                    MemoryQueue({k: (m, list(r)) for k, (m, r) in model.held.items()}).claim(
                        now, now + 30, limit, Room(other=room)
                    )
                )
                assert len(found) == best
                assert all(sum(c.destination == d for c in found) <= room for d in {c.destination for c in found})
                queue.settle(
                    [
                        (claim, [Settlement(r.number, State.DEFERRED, next_attempt=now) for r in claim.recipients])
                        for claim in found
                    ]
                )
                for claim in found:
                    for r in claim.recipients:
                        before = model.held[claim.message.queue_id][1][r.number]
                        assert before.next_attempt <= now
                        model.held[claim.message.queue_id][1][r.number] = replace(
                            before, state=State.DEFERRED, next_attempt=now
                        )
            elif verb == "settle" and claims:
                claim = claims[arguments[0] % len(claims)]
                settled = [all_of(claim, arguments[1], LATER, now)]
                queue.settle(settled)
                model.settle(settled)
            elif verb == "change":
                query, to = Query(domain=arguments[0]), Settlement(0, arguments[1], next_attempt=now)
                assert _named(queue.change(query, to)) == _named(model.change(query, to))
            elif verb == "reopen":
                queue.close()
                queue = make(path)
                # Who gets the lock knows that nobody is at work.
                queue.claim(now, now, 0, PLENTY)
                for _, held in model.held.values():
                    for r in held:
                        if r.state is State.IN_DELIVERY:
                            held[r.number] = replace(r, state=State.DEFERRED, next_attempt=1.0)
                claims = []
            assert shown(queue.find(Query())) == shown(model.find(Query()))
            assert queue.usage() == model.usage()
    finally:
        queue.close()


def _named(entries: Sequence[Entry]) -> list[tuple[str, object]]:
    return [(message.queue_id, recipients) for message, recipients in entries]


def _claimed(claims: Any) -> set[tuple[object, ...]]:
    return {
        (c.message.queue_id, c.destination, c.lease_until, tuple(one.number for one in c.recipients)) for c in claims
    }


# Several processes

WORKER = """
import sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + "/queue"]
from queueing import NOW
from sqlite_queues import LEASE, PLENTY, make
queue = make(Path(sys.argv[1]), *map(int, sys.argv[2:]))
claims = queue.claim(NOW, LEASE, 10, PLENTY)
print(len(claims), flush=True)
time.sleep(60)
"""


def other_process(path: Path, *numbers: int) -> subprocess.Popen[bytes]:
    code = WORKER.format(tests=str(Path(__file__).resolve().parents[1]))
    command = [sys.executable, "-c", code, str(path), *map(str, numbers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=_WITHOUT_COVERAGE)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_one_process_claims_and_its_death_ends_the_leases(queue: SqliteQueue, tmp_path: Path) -> None:
    queue.put([entry()])
    process = other_process(tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"

    queue.put([entry(queue_id="B")])
    assert queue.claim(NOW, LEASE, 10, PLENTY) == (), "the other one claims"
    assert [one.state for _, found in queue.change(Query(), Settlement(0, State.HELD)) for one in found] == [
        State.QUEUED
    ]
    end(process)

    claims = queue.claim(NOW, LEASE, 10, PLENTY)
    assert [claim.message.queue_id for claim in claims] != ["B"]
    assert len(claims) == 1


def test_what_another_process_puts_and_changes_is_seen(queue: SqliteQueue, tmp_path: Path) -> None:
    assert queue.claim(NOW, LEASE, 10, PLENTY) == []
    other = make(tmp_path)
    other.put([entry()])
    (claim,) = queue.claim(NOW, LEASE, 10, PLENTY)
    assert queue.usage().messages == 1
    assert other.claim(NOW, LEASE, 10, PLENTY) == ()
    queue.settle([all_of(claim, State.DEFERRED, LATER)])
    other.change(Query(), Settlement(0, State.DEFERRED, next_attempt=NOW))
    assert len(queue.claim(NOW, LEASE, 10, PLENTY)) == 1
    queue.stop_claiming()
    assert len(other.claim(NOW, LEASE, 10, PLENTY)) == 1
    other.close()


def test_what_is_to_be_delivered_by_now_is_claimed_whatever_room_there_is(tmp_path: Path) -> None:
    queue = make(tmp_path)
    queue.put([with_parameters(entry("b@y.example"), BY="60;N"), entry("c@y.example")])
    room = Room(other=0)
    assert queue.claim(NOW + 59, NOW + 600, 10, room) == []
    (claim,) = queue.claim(NOW + 60, NOW + 600, 10, room)
    assert [one.address.text for one in claim.recipients] == ["b@y.example"]
    queue.settle([all_of(claim, State.DEFERRED, LATER, at=NOW + 61)])
    assert queue.claim(NOW + 900, NOW + 1600, 10, room) == []  # it was tried since
    queue.close()


def test_urgent_mail_is_claimed_first(tmp_path: Path) -> None:
    queue = make(tmp_path)
    queue.put([entry("plain@y.example"), with_parameters(entry("urgent@y.example"), MT_PRIORITY="4")])
    queue.put([with_parameters(entry("idle@y.example"), MT_PRIORITY="-3")])
    claims = [queue.claim(NOW, NOW + 600, 1, Room(other=3))[0] for _ in range(3)]
    assert [one.recipients[0].address.local_part for one in claims] == ["urgent", "plain", "idle"]
    queue.close()


# Starting


def test_prepare_sweeps_bodies_without_a_row(tmp_path: Path) -> None:
    queue = make(tmp_path)
    queue.put([entry(body=b"x" * 100_000, queue_id="KEPT")])
    queue.close()
    bodies = tmp_path / "bodies"
    for name in ("OLD", "YOUNG", "tmp/OLD", "KEPT"):
        (bodies / name).touch()
        if "YOUNG" not in name:
            os.utime(bodies / name, (NOW, NOW))
    log = RecordingLog()

    prepare(str(tmp_path), log)

    assert sorted(one.name for one in bodies.iterdir()) == ["KEPT", "YOUNG", "tmp"]
    assert len(log.named("queue_orphan_removed")) == 2


def test_prepare_makes_the_directory_and_says_where_it_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(str(tmp_path / "a" / "b"), RecordingLog())
    assert (tmp_path / "a" / "b" / "bodies" / "tmp").is_dir()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(PermissionError, match="Permission denied"):
        prepare(str(tmp_path / "a" / "b"), RecordingLog())


# Trouble


def test_failed_body_leaves_nothing(queue: SqliteQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk"):
        queue.put([entry(body=b"x" * 100_000)])
    assert [one for one in (tmp_path / "bodies").rglob("*") if one.is_file()] == []


def test_failed_claim_forgets_nobody(queue: SqliteQueue) -> None:
    queue.put([entry(), entry("c@z.example")])
    connection = queue._file.connected()
    assert queue.claim(NOW - 10, LEASE, 1, PLENTY) == []
    connection.execute("PRAGMA query_only = 1")
    with pytest.raises(OSError, match="readonly"):
        queue.claim(NOW, LEASE, 10, PLENTY)
    connection.execute("PRAGMA query_only = 0")
    assert len(queue.claim(NOW, LEASE, 10, PLENTY)) == 2


def test_full_disk(tmp_path: Path) -> None:
    """A real one: a small tmpfs, where this user may mount it."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], check=False).returncode:
        pytest.skip("may not mount a file system")
    try:
        queue = make(place)
        done: list[Entry] = []
        with pytest.raises(OSError) as caught:
            for _ in range(100):
                one = entry(body=b"x" * 30_000)
                queue.put([one])
                done.append(one)
        assert caught.value.errno == errno.ENOSPC
        assert done
        with pytest.raises(OSError) as caught:
            queue.put([entry(body=b"x" * 2_000_000)])
        assert caught.value.errno == errno.ENOSPC
        queue.close()
        queue = make(place)
        assert shown(queue.find(Query())) == shown(done)
        queue.close()
    finally:
        subprocess.run(["umount", place], check=True)


# Crashes: a process dies by SIGKILL before and after each call that changes something, one process for each place.

CRASH = """
import os, signal, sqlite3, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + "/queue"]
from queueing import NO, NOW, all_of, entry
from smtpmaild.queue import State, files
from sqlite_queues import LEASE, PLENTY, make
left = 0

def step():
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1

def stepping(function):
    def call(*arguments, **more):
        step()
        result = function(*arguments, **more)
        step()
        return result
    return call

for module, names in ((os, ("fsync", "rename", "unlink")), (files, ("store_body",))):
    for name in names:
        setattr(module, name, stepping(getattr(module, name)))

class Connection(sqlite3.Connection):
    def execute(self, statement, *arguments):
        if statement.split()[0] in ("BEGIN", "COMMIT", "INSERT", "UPDATE", "DELETE"):
            return stepping(super().execute)(statement, *arguments)
        return super().execute(statement, *arguments)

connect = sqlite3.connect
sqlite3.connect = lambda *a, **k: connect(*a, factory=Connection, **k)

def life(place):
    said = open(place + ".said", "a", buffering=1)
    queue = make(Path(place))
    for number, size in ((1, 20), (2, 100_000)):
        queue.put([entry(queue_id=f"{{number}}", body=b"x" * size)])
        print("put", number, file=said)
    for claim in queue.claim(NOW, LEASE, 10, PLENTY):
        report = entry("a@x.example", sender="", queue_id=f"R{{claim.message.queue_id}}")
        queue.settle([all_of(claim, State.BOUNCED, NO)], [report])
        print("bounced", claim.message.queue_id, file=said)

for number in range(1000):
    left = number
    child = os.fork()
    if not child:
        life(f"{{sys.argv[1]}}/{{number}}")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.wait()[1]) != -signal.SIGKILL:
        break
print(number)
"""


def test_kill_between_any_two_steps_loses_nothing(tmp_path: Path) -> None:
    code = CRASH.format(tests=str(Path(__file__).resolve().parents[1]))
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_WITHOUT_COVERAGE)
    kills = int(done.stdout)
    assert kills > 20
    for number in range(kills + 1):
        said = (tmp_path / f"{number}.said").read_text().split("\n")
        assert ("bounced 1" in said and "bounced 2" in said) or number < kills
        _check_after_crash(tmp_path / str(number), said)


def _check_after_crash(place: Path, said: list[str]) -> None:
    prepare(str(place), RecordingLog(), now=lambda: time.time() + 2 * ORPHAN_AGE)
    queue = make(place)
    claims = {claim.message.queue_id: claim for claim in queue.claim(NOW, LEASE, 10, PLENTY)}
    for number, size in (("1", 20), ("2", 100_000)):
        bounced, waits = f"R{number}" in claims, number in claims
        assert not (bounced and waits), "a report of something that is still on its way"
        if f"put {number}" in said:
            assert bounced or waits, "lost"
        if f"bounced {number}" in said:
            assert bounced
        if waits:
            assert read(claims[number].message.body) == b"x" * size
    large = [one.name for one in (place / "bodies").rglob("*") if one.is_file()]
    assert large == (["2"] if "2" in claims else []) or (large == ["2"] and "R2" in claims)
    queue.settle([all_of(claim, State.DELIVERED) for claim in claims.values()])
    assert queue.usage() == Usage(0, 0)
    assert list(queue.find(Query())) == []
    queue.close()


def test_whole_queue_is_what_all_workers_have(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path, number=1, workers=2)
    first.put([entry(body=b"12345")])
    second.put([entry(body=b"123"), entry(body=b"12")])
    assert (first.usage(), second.usage()) == (Usage(1, 5), Usage(2, 5))
    assert first.whole_usage() == second.whole_usage() == Usage(3, 10)
    second.close()
    (tmp_path / "queue-1.sqlite").write_bytes(b"none" * 1000)
    with pytest.raises(OSError, match="queue-1"):
        first.whole_usage()
    first.close()
