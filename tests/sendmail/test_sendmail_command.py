"""What becomes of a message, and the exit status that says so."""

from __future__ import annotations

import io
import os
import pwd
from collections.abc import Mapping
from pathlib import Path

import pytest
from scripted import Scripted, serving

from smtpmaild.idn import to_ascii
from smtpmaild.sendmail import drop
from smtpmaild.sendmail.command import Surroundings, author, run
from smtpmaild.sendmail.flags import parse

MESSAGE = b"To: b@y.example\nCc: c\nSubject: x\n\nHello\n"


class House:
    """A server that says what a test wants, or none, and a drop directory, or none."""

    def __init__(self, folder: Path, replies: Mapping[str, bytes] | None = None, *, has_drop: bool = True) -> None:
        self.folder = folder
        self.drop = str(folder / "drop")
        self.server = Scripted(replies) if replies is not None else None
        self.errors = io.StringIO()
        if has_drop:
            drop.make(self.drop)

    def run(self, words: str, text: bytes = MESSAGE) -> int:
        def go(path: str) -> int:
            around = Surroundings(path, self.drop, "h.example", 5.0, self.errors)
            return run(parse(words.split()), around, io.BytesIO(text), {})

        if self.server is None:
            return go(str(self.folder / "nobody"))
        with serving(self.folder, self.server) as path:
            return go(path)

    def dropped(self) -> list[tuple[str, list[str], bytes]]:
        found = []
        for name in drop.names(self.drop):
            one = drop.take(self.drop, name, to_ascii)
            with one.message:
                text = one.message.read()
            found.append((one.letter.reverse_path.text, [to.text for to in one.letter.recipients], text))
        return found


def test_daemon_gets_it(tmp_path: Path) -> None:
    house = House(tmp_path, {})
    assert house.run("-t -f me -N success -R full -V a+b d@y.example") == 0
    assert house.server is not None
    assert house.server.said[1:5] == [
        "MAIL FROM:<me@h.example> RET=FULL ENVID=a+2Bb",
        "RCPT TO:<d@y.example> NOTIFY=SUCCESS",
        "RCPT TO:<b@y.example> NOTIFY=SUCCESS",
        "RCPT TO:<c@h.example> NOTIFY=SUCCESS",
    ]
    assert house.server.message.endswith(b"To: b@y.example\r\nCc: c\r\nSubject: x\r\n\r\nHello\r\n")
    assert house.dropped() == []
    assert house.errors.getvalue() == ""


def test_one_copy_for_who_is_named_twice(tmp_path: Path) -> None:
    house = House(tmp_path, {})
    assert house.run("b,c b@h.example") == 0
    assert house.server is not None
    assert [line for line in house.server.said if line.startswith("RCPT")] == [
        "RCPT TO:<b@h.example>",
        "RCPT TO:<c@h.example>",
    ]


def test_quoted_comma_parts_nothing(tmp_path: Path) -> None:
    house = House(tmp_path, {})
    assert house.run('"b,c"@y.example') == 0
    assert house.server is not None
    assert 'RCPT TO:<"b,c"@y.example>' in house.server.said


def test_without_a_daemon_it_waits(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert house.run("-f me b") == 0
    ((sender, to, text),) = house.dropped()
    assert (sender, to) == ("me@h.example", ["b@h.example"])
    assert text.endswith(b"\r\n\r\nHello\r\n")


@pytest.mark.parametrize("step", ["greeting", "MAIL", "DATA", "end of data"])
def test_what_is_refused_for_now_waits(tmp_path: Path, step: str) -> None:
    house = House(tmp_path, {step: b"451 4.3.0 Later\r\n"})
    assert house.run("b c") == 0
    assert [to for _, to, _ in house.dropped()] == [["b@h.example", "c@h.example"]]


def test_each_recipient_has_its_own_end(tmp_path: Path) -> None:
    house = House(tmp_path, {"RCPT TO:<b": b"450 4.2.1 Later\r\n", "RCPT TO:<c": b"550 5.1.1 Who\r\n"})
    assert house.run("a b c") == 67
    assert [to for _, to, _ in house.dropped()] == [["b@h.example"]]
    assert house.errors.getvalue() == "sendmail: <c@h.example>: 550 5.1.1 Who\n"


@pytest.mark.parametrize(
    ("reply", "status"),
    [(b"550 5.1.1 x", 67), (b"550 5.7.1 x", 77), (b"550 5.6.0 x", 65), (b"552 5.3.4 x", 69), (b"554 x", 69)],
)
def test_exit_status_tells_why(tmp_path: Path, reply: bytes, status: int) -> None:
    house = House(tmp_path, {"end of data": reply + b"\r\n"})
    assert house.run("b") == status
    assert house.dropped() == []


def test_nowhere_to_leave_it(tmp_path: Path) -> None:
    house = House(tmp_path, has_drop=False)
    assert house.run("b") == 75
    assert "the daemon does not answer, and nothing can be left in" in house.errors.getvalue()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("", 64, "nobody to send to"),
        ("-t", 0, ""),
        ("-f a@ b", 65, "'a@' is no address"),
        ("b@", 65, "'b@' is no address"),
        ("-bi", 0, ""),
    ],
)
def test_mistakes(tmp_path: Path, words: str, status: int, said: str) -> None:
    house = House(tmp_path)
    assert house.run(words) == status
    assert said in house.errors.getvalue()


def test_smtp_without_a_daemon(tmp_path: Path) -> None:
    around = Surroundings(str(tmp_path / "nobody"), errors=(errors := io.StringIO()))
    with open(os.devnull, "rb") as stdin:
        assert run(parse(["-bs"]), around, stdin, {}) == 75
    assert "cannot talk to the daemon" in errors.getvalue()


def test_who_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        pw_name, pw_gecos = "alice", "& Liddell,Room 1,,"

    monkeypatch.setattr(pwd, "getpwuid", lambda _: Entry)
    assert author({}, "", "h").full_name == "Alice Liddell"
    assert author({"NAME": "A. L."}, "", "h").full_name == "A. L."
    assert author({"NAME": "A. L."}, "Me", "h").full_name == "Me"

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert author({"LOGNAME": "bob"}, "", "h").login == "bob"
    assert author({}, "", "h").login == f"uid{os.getuid()}"


def test_name_of_this_host() -> None:
    assert Surroundings().hostname
