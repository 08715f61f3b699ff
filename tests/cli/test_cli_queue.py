"""`smtpmaild queue`: what it prints and what it does, on files that nobody serves."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from queueing import LATER, entry
from receiving import RecordingLog
from running import Ran, Runner

from smtpmaild.control.queue_files import QueueFiles
from smtpmaild.history.reading import Reading
from smtpmaild.queue import Query, Settlement, State
from smtpmaild.queue.shards import Who
from smtpmaild.queue.sqlite import SqliteQueue

CONFIG = """\
listeners: [{name: mx, listen: ["127.0.0.1:2525"]}]
relay_rules: [{name: on, to_domains: [y.example], relay: "127.0.0.1:2526"}]
queue: {path: queue}
"""
OLD = "000000000000000AAA"
NEW = "000000000000000BBB"


class House:
    def __init__(self, root: Path, run: Runner) -> None:
        self.root = root
        self.path = root / "smtp.yaml"
        self.path.write_text(CONFIG)
        self.run = run
        self.queue = SqliteQueue(str(root / "queue"), RecordingLog())
        self.queue.open()
        now = time.time()
        large = b"Subject: big\r\n\r\n" + b"x" * 100_000
        self.queue.put(
            [
                entry(
                    "b@y.example",
                    "c@z.example",
                    at=now - 7200,
                    queue_id=OLD,
                    sender="",
                    body=b"Subject: a\x07b\r\n\r\nHi",
                ),
                entry("d@y.example", at=now - 60, queue_id=NEW, sender="eve@x.example", body=large),
            ]
        )
        self.queue.change(Query(recipient="c@z.example"), Settlement(0, State.DEFERRED, LATER, "mx", now, now + 300))

    def __call__(self, verb: str, *arguments: str) -> Ran:
        return self.run("queue", verb, "-c", str(self.path), *arguments)

    def states(self) -> dict[str, str]:
        return {one.address.text: one.state.value for _, found in self.queue.find(Query()) for one in found}


@pytest.fixture
def house(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    house = House(tmp_path, Runner(capfd, monkeypatch))
    yield house
    house.queue.close()


def test_list_is_a_line_for_each_recipient(house: House) -> None:
    ran = house("list")
    assert ran.status == 0
    title, *lines = ran.out.splitlines()
    assert title.split() == ["ID", "STATE", "AGE", "NEXT", "TRIES", "SIZE", "SENDER", ">", "RECIPIENT"]
    assert [line.split()[:3] for line in lines] == [
        [OLD, "queued", "2h"],
        [OLD, "deferred", "2h"],
        [NEW, "queued", "1m"],
    ]
    assert lines[1].endswith("<> > c@z.example  (451 4.3.0 Later)")
    assert "100.0k" in lines[2]
    assert "2 messages" in ran.err


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([NEW], 1),
        (["--sender", ""], 2),
        (["--sender", "EVE@x.example"], 1),
        (["--recipient", "c@z.example"], 1),
        (["--domain", "y.example"], 2),
        (["--state", "held", "--state", "deferred"], 1),
        (["--older-than", "1h"], 2),
        (["--limit", "1"], 2),
        ([NEW, "--state", "held"], 0),
        (["--sender", "nobody@x.example"], 0),
    ],
)
def test_filters(house: House, arguments: list[str], found: int) -> None:
    ran = house("list", "--json", *arguments)
    assert (ran.status, ran.err) == (0, "")
    assert sum(len(json.loads(line)["recipients"]) for line in ran.out.splitlines()) == found


def test_age_that_is_none(house: House) -> None:
    ran = house("list", "--older-than", "long")
    assert ran.status == 64
    assert "'long' is not a duration" in ran.err


def test_show(house: House) -> None:
    ran = house("show", OLD)
    assert f"queue_id:     {OLD}" in ran.out
    assert "reply:        451 4.3.0 Later" in ran.out
    assert ran.out.endswith("Subject: a\\x07b\n")
    assert json.loads(house("show", NEW, "--json").out)["header"] == "Subject: big"
    ran = house("show", "none")
    assert (ran.status, ran.err) == (66, "Error: there is no message none in the queue\n")


def test_stats(house: House) -> None:
    lines = house("stats").out.splitlines()
    assert lines[0].startswith("mx:y.example: 2 messages, 100.0kB, oldest 2h; 2 queued")
    assert lines[1].endswith("1 deferred; 451 4.3.0 Later")
    first = json.loads(house("stats", "--json").out.splitlines()[0])
    assert (first["destination"], first["messages"], first["states"]) == ("mx:y.example", 2, {"queued": 2})


def test_changes(house: House) -> None:
    ran = house("hold", "--domain", "y.example", "--why", "look at it")
    assert ran.out.splitlines()[1] == f"hold: {NEW} eve@x.example > d@y.example"
    assert "2 recipients" in ran.err
    assert house.states() == {"b@y.example": "held", "c@z.example": "deferred", "d@y.example": "held"}
    assert house("release", NEW).err == "1 recipient\n"
    assert house("retry", "--all").status == 0
    assert house.states() == {"b@y.example": "held", "c@z.example": "deferred", "d@y.example": "deferred"}
    assert "look at it" in (house.root / "queue" / "changes.log").read_text()


def remembered(house: House) -> list[dict[str, object]]:
    with Reading(str(house.root / "history.sqlite")) as reading:
        return [{"event": event.name, **event.facts} for event in reading.since(1)[0]]


VERBS = ["retry", "hold", "release", "drop", "bounce"]


def test_changes_are_remembered(house: House) -> None:
    house.path.write_text(CONFIG + "history: {path: history.sqlite}\n")
    for verb in VERBS[:3]:
        assert house(verb, NEW, "--reason", f"to {verb}").status == 0
    house("bounce", NEW, "--yes", "--reason", "to bounce")
    house("drop", "--all", "--yes", "--reason", "to drop")
    told = remembered(house)
    assert [(one["verb"], one["recipient"]) for one in told] == [
        ("retry", "d@y.example"), ("hold", "d@y.example"), ("release", "d@y.example"), ("bounce", "d@y.example"),
        ("drop", "b@y.example"), ("drop", "c@z.example"), ("drop", "d@y.example"),
    ]  # fmt: skip
    assert {(one["event"], one["why"]) for one in told} == {("queue_changed", f"to {verb}") for verb in VERBS}
    story = house.run("trace", "-c", str(house.path), NEW).out
    user = told[0]["user"]
    assert user == Who.of_this_process().name
    for verb in VERBS:
        assert f"queue {verb} of d@y.example by {user}\n" in story
        assert f"why: to {verb}\n" in story


def test_the_daemon_would_have_told_the_same(house: House) -> None:
    house.path.write_text(CONFIG + "history: {path: history.sqlite}\n")
    house("hold", NEW, "--reason", "because")
    house("release", NEW)
    log = RecordingLog()
    QueueFiles(str(house.root / "queue"), log).change("hold", {"ids": [NEW]}, Who.of_this_process(), "because")
    by_command = remembered(house)[0]
    assert by_command.pop("event") == "queue_changed"
    assert {**log.only("queue_changed"), "was": "queued"} == by_command


def test_imports_are_remembered(house: House, tmp_path: Path) -> None:
    house.path.write_text(CONFIG + "history: {path: history.sqlite}\n")
    (tmp_path / "a.eml").write_text("Subject: x\r\n\r\n")
    (tmp_path / "a.json").write_text('{"recipients": [{"address": "new@far.example"}]}')
    assert house("import", str(tmp_path / "a.eml")).status == 0
    assert [(one["verb"], one["recipient"]) for one in remembered(house)] == [("import", "new@far.example")]


def test_a_history_of_pseudonyms_names_nobody(house: House) -> None:
    private = "history: {path: history.sqlite}\nlogging: {privacy: true, privacy_file: privacy.key}\n"
    house.path.write_text(CONFIG + private)
    house("hold", NEW, "--reason", "eve@x.example asked for it")
    (told,) = remembered(house)
    assert str(told["recipient"]).endswith("@y.example")
    assert not {"d@y.example", "eve@x.example"} & {*map(str, told.values()), *str(told["why"]).split()}


def test_what_cannot_be_remembered_is_changed_all_the_same(house: House) -> None:
    house.path.write_text(CONFIG + "history: {path: smtp.yaml/history.sqlite}\n")
    ran = house("hold", NEW)
    assert (ran.status, house.states()["d@y.example"]) == (0, "held")
    assert ran.err.splitlines()[0].startswith("Warning: history failed: [Errno ")
    house.path.write_text(CONFIG + "history: {path: history.sqlite}\nlistners: []\n")
    ran = house("release", NEW)
    assert (ran.status, house.states()["d@y.example"]) == (0, "deferred")
    assert ran.err.splitlines()[0].startswith("Warning: not in the history: ")
    assert not (house.root / "history.sqlite").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_change_of_nothing_in_particular(house: House, verb: str) -> None:
    before = house.states()
    ran = house(verb, "--limit", "1")
    assert ran.status == 64
    assert "say which" in ran.err
    assert house.states() == before


@pytest.mark.parametrize("verb", VERBS)
def test_message_that_is_not_there_is_told(house: House, verb: str) -> None:
    before = house.states()
    ran = house(verb, "--reason", "x", "nothing", "nothing", "nobody")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        "0 recipients",
        "Error: there is no message nothing in the queue",
        "Error: there is no message nobody in the queue",
    ]
    assert house.states() == before


def test_the_messages_that_are_there_are_changed(house: House) -> None:
    ran = house("drop", "--yes", NEW, "nothing")
    assert (ran.status, ran.out) == (1, f"drop: {NEW} eve@x.example > d@y.example\n")
    assert ran.err == "1 recipient\nError: there is no message nothing in the queue\n"
    ran = house("release", OLD)  # it is there, but nobody held it
    assert (ran.status, ran.err) == (0, "0 recipients\n")
    assert house("hold", "--domain", "elsewhere.example").status == 0


def test_export_of_a_message_that_is_not_there_is_told(house: House, tmp_path: Path) -> None:
    ran = house("export", "--to", str(tmp_path / "out"), "nothing", NEW)
    assert (ran.status, ran.out) == (1, f"{tmp_path}/out/{NEW}.eml\n")
    assert ran.err == "Error: there is no message nothing in the queue\n"


def test_list_of_a_message_that_is_not_there_is_told(house: House) -> None:
    ran = house("list", "nothing", NEW, "nothing")
    assert (ran.status, len(ran.out.splitlines())) == (1, 2)
    assert ran.err == "1 message, 100.0kB\nError: there is no message nothing in the queue\n"
    ran = house("list", "--json", OLD, "nothing")
    assert (ran.status, [json.loads(line)["queue_id"] for line in ran.out.splitlines()]) == (1, [OLD])
    assert ran.err == "Error: there is no message nothing in the queue\n"
    ran = house("list", OLD, "nothing", "--state", "held")  # the first is there, but nobody held it
    assert (ran.status, ran.err) == (1, "no messages\nError: there is no message nothing in the queue\n")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_count_of_a_message_that_is_not_there_is_told(house: House, form: Sequence[str]) -> None:
    ran = house("stats", *form, NEW, "nothing")
    assert (ran.status, len(ran.out.splitlines())) == (1, 1)
    assert ran.err == "Error: there is no message nothing in the queue\n"
    assert house("stats", *form, NEW, "--state", "held").status == 0


def test_count_of_a_message_that_is_delivered_meanwhile(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    class Moving:
        has_it = True

        def stats(self, which: object) -> Iterator[dict[str, Any]]:
            yield {"destination": "mx:y.example", "messages": 1, "size": 9, "oldest": 0.0, "next_attempt": 0.0}
            self.has_it = False

        def find(self, which: object) -> Iterator[dict[str, Any]]:
            return iter([{"queue_id": NEW}] if self.has_it else [])

    monkeypatch.setattr(import_module("smtpmaild.cli.queue"), "open_queue", lambda *_: Moving())
    ran = house("stats", "--json", NEW)
    assert (ran.status, ran.err) == (0, "")


def test_drop_asks(house: House) -> None:
    before = house.states()
    ran = house("drop", "--domain", "y.example", "--state", "queued")
    assert ran.status == 130
    assert "Drop 2 recipients for good?" in ran.err
    assert house.states() == before
    ran = house("drop", "--domain", "elsewhere.example")
    assert (ran.status, ran.err) == (0, "0 recipients\n")  # nothing to ask about
    assert house("drop", "--sender", "", "--yes").status == 0
    assert house.states() == {"d@y.example": "queued"}


def test_export_and_import(house: House, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = house("export", "--to", str(out))
    assert ran.out.splitlines() == [f"{out}/{OLD}.eml", f"{out}/{NEW}.eml"]
    assert (out / f"{NEW}.eml").stat().st_size > 100_000
    house("drop", "--all", "--yes")
    assert house.states() == {}

    ran = house("import", f"{out}/{OLD}.eml", f"{out}/{NEW}.eml", "--why", "back")
    assert ran.status == 0, ran.err
    assert set(house.states()) == {"b@y.example", "c@z.example", "d@y.example"}
    (found,) = house.queue.find(Query(queue_ids=[NEW]))
    with found[0].body.open() as source:
        assert source.read() == (out / f"{NEW}.eml").read_bytes()


def test_export_to_standard_output(house: House) -> None:
    assert house("export", OLD).out == "Subject: a\x07b\r\n\r\nHi"
    assert house("export").status == 64


@pytest.mark.parametrize(
    ("record", "status", "problem"), [(None, 66, "No such file"), ("{}", 65, "there are no recipients")]
)
def test_import_that_cannot_be(house: House, tmp_path: Path, record: str | None, status: int, problem: str) -> None:
    (tmp_path / "a.eml").write_text("x")
    if record is not None:
        (tmp_path / "a.json").write_text(record)
    ran = house("import", str(tmp_path / "a.eml"))
    assert ran.status == status
    assert problem in ran.err


def test_import_finds_a_route(house: House, tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_text("Subject: x\r\n\r\n")
    (tmp_path / "a.json").write_text('{"recipients": [{"address": "new@far.example"}]}')
    assert house("import", str(tmp_path / "a.eml")).status == 0
    (found,) = house.queue.find(Query(recipient="new@far.example"))
    assert found[1][0].route == "relay:mx"


def test_trouble_with_the_files(house: House) -> None:
    house.queue.close()
    (house.root / "queue" / "queue-0.sqlite").write_bytes(b"this is no database, whatever its name says" * 100)
    ran = house("list")
    assert ran.status == 74
    assert "not a database" in ran.err
    assert sys.exc_info() == (None, None, None)
