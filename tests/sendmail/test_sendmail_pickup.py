"""The daemon takes what was dropped: all of it, once, and nothing it should not."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from queueing import address
from receiving import RecordingLog
from scripted import Scripted, serving

from smtpmaild.idn import to_ascii
from smtpmaild.queue.dsn import Reports
from smtpmaild.sendmail import Letter, drop
from smtpmaild.sendmail.pickup import LEFT_OVER, PickUp
from smtpmaild.smtp.address import NULL_REVERSE_PATH

LETTER = Letter(address("a@x.example"), (address("b@y.example"), address("c@y.example")))
MESSAGE = b"Subject: x\r\n\r\nHello\r\n"


class House:
    def __init__(self, folder: Path, replies: Mapping[str, bytes] | None = None) -> None:
        self.folder = folder
        self.drop = str(folder / "drop")
        self.log = RecordingLog()
        self.server = Scripted(replies or {})
        self.now = 1e10
        self.reports = Reports("h.example", lambda _: "drop", self.log, 1.0, clock=lambda: self.now)
        self.pick_up = PickUp(
            self.drop, str(folder / "s.sock"), "h.example", to_ascii, self.log, self.reports, lambda: self.now
        )
        drop.make(self.drop)

    def look(self) -> None:
        with serving(self.folder, self.server):
            self.pick_up.look()
        os.unlink(self.folder / "s.sock")

    def files(self) -> list[str]:
        found = (str(path.relative_to(self.drop)) for path in Path(self.drop).rglob("*") if path.is_file())
        return sorted(name for name in found if name != "bad/lock")


def test_what_waits_is_handed_in(tmp_path: Path) -> None:
    house = House(tmp_path)
    names = [drop.put(house.drop, LETTER, MESSAGE) for _ in range(3)]
    house.look()
    assert house.files() == []
    assert house.server.message == MESSAGE * 3
    told = house.log.named("dropped_mail_handed_in")
    assert [one["name"] for one in told] == names
    assert told[0]["uid"] == os.getuid()
    assert told[0]["replies"] == {"b@y.example": "250 2.0.0 Ok", "c@y.example": "250 2.0.0 Ok"}


def test_directory_is_made(tmp_path: Path) -> None:
    house = House(tmp_path)
    for folder in ("tmp", ""):
        os.rmdir(f"{house.drop}/{folder}")
    house.look()
    assert sorted(os.listdir(house.drop)) == ["bad", "tmp"]


def test_nobody_there_leaves_it(tmp_path: Path) -> None:
    house = House(tmp_path)
    drop.put(house.drop, LETTER, MESSAGE)
    house.pick_up.look()
    house.pick_up.look()
    assert len(house.files()) == 2
    assert "cannot reach" in house.log.named("drop_failed")[0]["cause"]


@pytest.mark.parametrize("step", ["greeting", "MAIL", "end of data"])
def test_refused_for_now_waits_and_so_does_what_is_behind(tmp_path: Path, step: str) -> None:
    house = House(tmp_path, {step: b"452 4.3.1 Full\r\n"})
    for _ in range(2):
        drop.put(house.drop, LETTER, MESSAGE)
    before = house.files()
    house.look()
    assert house.files() == before
    assert len(house.log.named("dropped_mail_handed_in")) == 1
    house.server = Scripted()
    house.look()
    assert house.files() == []


def test_refused_for_good_is_kept_aside_and_its_sender_is_told(tmp_path: Path) -> None:
    house = House(tmp_path, {"RCPT TO:<b": b"550 5.1.1 Who\r\n"})
    name = drop.put(house.drop, LETTER, MESSAGE)
    house.look()
    (report,) = drop.names(house.drop)
    assert house.files() == [f"{report}.eml", f"{report}.json", f"bad/{name}.eml"]
    assert Path(house.drop, "bad", f"{name}.eml").read_bytes() == MESSAGE
    told = house.log.only("dropped_mail_refused")
    assert (told["recipients"], told["reply"]) == (["b@y.example"], "550 5.1.1 Who")
    with drop.take(house.drop, report, to_ascii).message as message:
        text = message.read()
    assert b"<b@y.example>\r\n    We could not go on:\r\n    550 5.1.1 Who\r\n" in text
    assert b"Action: failed\r\nStatus: 5.1.1\r\n" in text
    assert b"c@y.example" not in text
    house.server = Scripted()
    house.look()
    assert [line.partition(" SIZE")[0] for line in house.server.said[1:3]] == ["MAIL FROM:<>", "RCPT TO:<a@x.example>"]


@pytest.mark.parametrize(
    "letter",
    [
        replace(LETTER, reverse_path=NULL_REVERSE_PATH),  # a report itself
        replace(LETTER, rcpt={"NOTIFY": "NEVER"}),
    ],
)
def test_who_is_not_to_be_told_is_not(tmp_path: Path, letter: Letter) -> None:
    house = House(tmp_path, {"MAIL": b"550 5.7.1 No\r\n"})
    name = drop.put(house.drop, letter, MESSAGE)
    house.look()
    assert house.files() == [f"bad/{name}.eml"]


def test_report_that_cannot_be_dropped_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path, {"MAIL": b"550 5.7.1 No\r\n"})
    name = drop.put(house.drop, LETTER, MESSAGE)

    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(drop, "put", full)
    house.look()
    assert house.files() == [f"bad/{name}.eml"]
    assert house.log.only("report_failed")["name"] == name


def test_rest_waits_as_a_message_of_its_own(tmp_path: Path) -> None:
    house = House(tmp_path, {"RCPT TO:<c": b"450 4.2.1 Later\r\n"})
    old = drop.put(house.drop, LETTER, MESSAGE)
    house.look()
    (name,) = drop.names(house.drop)
    assert name != old and len(house.files()) == 2
    taken = drop.take(house.drop, name, to_ascii)
    with taken.message:
        assert taken.message.read() == MESSAGE
    assert [one.text for one in taken.letter.recipients] == ["c@y.example"]


@pytest.mark.parametrize("has_message", [True, False])
def test_what_is_no_message_is_set_aside(tmp_path: Path, has_message: bool) -> None:
    house = House(tmp_path)
    Path(house.drop, "n.json").write_text("{}")
    if has_message:
        Path(house.drop, "n.eml").write_bytes(MESSAGE)
    name = drop.put(house.drop, LETTER, MESSAGE)
    house.look()
    assert house.files() == (["bad/n.eml"] if has_message else []) + ["bad/n.json"]
    assert house.log.only("dropped_mail_refused")["name"] == "n"
    assert house.log.only("dropped_mail_handed_in")["name"] == name


def test_another_worker_is_at_it(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.look()
    drop.put(house.drop, LETTER, MESSAGE)
    with open(f"{house.drop}/bad/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        house.look()
    assert len(house.files()) == 2
    house.look()
    assert house.files() == []


def test_leftovers_are_swept(tmp_path: Path) -> None:
    house = House(tmp_path, {"greeting": b"421 4.3.2 Later\r\n"})
    name = drop.put(house.drop, LETTER, MESSAGE)
    for left in ("tmp/x.eml", "tmp/y.json", "x.eml"):
        Path(house.drop, left).write_bytes(b"x")
        os.utime(f"{house.drop}/{left}", (0, house.now - LEFT_OVER - 1))
    Path(house.drop, "tmp/new.eml").write_bytes(b"x")
    for young in ("tmp/new.eml", f"{name}.eml", f"{name}.json"):
        os.utime(f"{house.drop}/{young}", (0, house.now if "new" in young else 0))
    house.look()
    assert house.files() == [f"{name}.eml", f"{name}.json", "tmp/new.eml"]
    os.utime(f"{house.drop}/tmp/new.eml", (0, 0))
    house.look()
    assert "tmp/new.eml" in house.files(), "not every time"


def test_trouble_is_told_once(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.look()
    os.rmdir(f"{house.drop}/tmp")
    Path(house.drop, "tmp").write_text("")
    house.now += 7200
    house.look()
    house.now += 7200
    house.look()
    assert len(house.log.named("drop_failed")) == 1


def test_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = RecordingLog()
    PickUp(str(tmp_path / "file" / "drop"), "none", "h", to_ascii, log, lambda *_: ()).look()
    assert "Not a directory" in log.only("drop_failed")["cause"]
