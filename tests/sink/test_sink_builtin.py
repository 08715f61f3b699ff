"""The table of stores, their options, and the store that keeps nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from stores import RecordingLog, make_envelope, to

from smtpmaild.sink import Outcome, files
from smtpmaild.sink.builtin import BUILTIN, SinkOptions, build, writable
from smtpmaild.sink.maildir import MaildirSink
from smtpmaild.sink.options import DiscardOptions, MaildirOptions, SpoolOptions
from smtpmaild.sink.writer import Writer
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED

EXAMPLES: dict[str, dict[str, object]] = {
    "maildir": {"path": "/m/{domain}/{mailbox}"},
    "spool": {"path": "/s"},
    "discard": {},
}


@pytest.mark.parametrize("kind", BUILTIN)
def test_every_kind_can_be_described_and_built(kind: str) -> None:
    options: SinkOptions = TypeAdapter(SinkOptions).validate_python({"type": kind, **EXAMPLES[kind]})
    assert type(options) is BUILTIN[kind].options
    sink = build(options, Writer(RecordingLog()))
    assert sink.unhealthy() is None
    assert (
        sink.locate(to("alice")) == {"maildir": "/m/example.com/alice", "spool": "/s", "discard": "(discarded)"}[kind]
    )


@pytest.mark.parametrize("kind", BUILTIN)
def test_unknown_keys_are_refused(kind: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        BUILTIN[kind].options.model_validate({"type": kind, **EXAMPLES[kind], "colour": "blue"})


@pytest.mark.parametrize(
    ("key", "value", "result"),
    [
        ("file_mode", "0640", 0o640),
        ("file_mode", "00640", 0o640),
        ("directory_mode", "02770", 0o2770),
        ("owner", "root", 0),
        ("owner", 1000, 1000),
        ("owner", "1000", 1000),
        ("group", "root", 0),
        ("group", 1000, 1000),
        ("tmp_max_age", "36h", 129600.0),
        ("tmp_max_age", "1.5 d", 129600.0),
        ("tmp_max_age", 60, 60.0),
        ("delivered_to", False, False),
    ],
)
def test_options(key: str, value: object, result: object) -> None:
    options = MaildirOptions.model_validate({"type": "maildir", "path": "/m/{mailbox}", key: value})
    assert getattr(options, key) == result


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("file_mode", 640, "octal with a leading zero"),
        ("file_mode", "640", "octal with a leading zero"),
        ("file_mode", "0689", "octal with a leading zero"),
        ("owner", "no such user", "this machine has no user 'no such user'"),
        ("group", "no such group", "this machine has no group 'no such group'"),
        ("owner", -1, "greater than or equal to 0"),
        ("tmp_max_age", "soon", "a duration is a number with"),
        ("tmp_max_age", 0, "greater than 0"),
        ("path", "/m/{user}", "unknown placeholder"),
    ],
)
def test_options_that_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MaildirOptions.model_validate({"type": "maildir", "path": "/m/{mailbox}", key: value})


def test_a_spool_is_not_split_by_mailbox() -> None:
    with pytest.raises(ValidationError, match=r"unknown placeholder \{mailbox\}; use \{domain\}"):
        SpoolOptions.model_validate({"type": "spool", "path": "/s/{mailbox}"})


def test_writable_names_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert writable(MaildirOptions(type="maildir", path=f"{tmp_path}/m/{{mailbox}}")) is None
    assert writable(SpoolOptions(type="spool", path=f"{tmp_path}/file/s")) == f"{tmp_path}/file: Not a directory"
    assert writable(DiscardOptions(type="discard")) is None
    assert os.listdir(tmp_path) == ["file"]


def test_discard_takes_everything() -> None:
    sink = build(DiscardOptions(type="discard"), Writer(RecordingLog()))
    sink.prepare()
    sink.start(print)
    outcomes: list[Outcome] = []
    made = sink.begin(make_envelope(), [to("alice")], lambda: None)
    assert made.write(b"x" * 1_000_000)
    made.commit(outcomes.append)
    sink.begin(make_envelope(), [to("alice")], lambda: None).abort()
    sink.stop()
    assert outcomes == [MESSAGE_ACCEPTED]


def test_remembered_directories_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST_FOLDERS", 3)
    sink = MaildirSink(MaildirOptions(type="maildir", path=f"{tmp_path}/{{mailbox}}"), Writer(RecordingLog()))
    remembered = {id(sink.folder(to("alice"))) for _ in range(2)}
    assert len(remembered) == 1
    for number in range(10):
        sink.folder(to(f"user{number}"))
        assert len(sink._folders) <= 3
