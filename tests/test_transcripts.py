"""Every dialogue of tests/transcripts, whole, byte by byte and over sockets: the server always says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from transcripts import FOLDER, WAYS, compare, play_whole, read_transcript, without_queue_ids

FILES = sorted(FOLDER.glob("*.smtp"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_transcript(path: Path) -> None:
    transcript = read_transcript(path)
    outputs = set()
    for play in WAYS.values():
        played = play(transcript)
        compare(transcript, played)
        outputs.add(without_queue_ids(played.output))
    assert len(outputs) == 1


GOOD = """
S: 220 *
C: EHLO client.example
S... 250 *
C: MAIL FROM:<a@b>
C: RCPT TO:<user@local.example>
C: DATA
S: 250 2.1.0 *
S: 250 2.1.5 *
S: 354 *
C~ b"x" * 3 + b"\\r\\n.\\r\\n"
S: 250 2.0.0 *
C: QUIT
S: 221 *
S.
@sink message b"xxx\\r\\n"
@envelope <a@b> user@local.example
"""


def test_good_transcript_passes(tmp_path: Path) -> None:
    path = tmp_path / "good.smtp"
    path.write_text(GOOD)
    for play in WAYS.values():
        compare(read_transcript(path), play(read_transcript(path)))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("S: 250 2.1.5 *", "S: 250 2.1.6 *"),  # another reply
        ("S: 354 *\n", ""),  # one reply more than expected
        ("S: 354 *", "S: 354 *\nS: 250 *"),  # one less
        ("S: 221 *", "S... 222 *"),  # nothing like it to the end
        ('b"xxx\\r\\n"', 'b"xxx"'),  # another message
        ('@sink message b"xxx\\r\\n"', "@sink empty"),
        ('@sink message b"xxx\\r\\n"', "@sink 2 messages"),
        ("<a@b> user", "<a@b> other"),  # another envelope
        ("S.\n", ""),  # closed, and nobody expected it
    ],
)
def test_bad_transcript_fails(tmp_path: Path, right: str, wrong: str) -> None:
    path = tmp_path / "bad.smtp"
    assert right in GOOD
    path.write_text(GOOD.replace(right, wrong))
    transcript = read_transcript(path)
    with pytest.raises(AssertionError):
        compare(transcript, play_whole(transcript))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("D: NOOP", "x.smtp:1: not a line of a transcript: D: NOOP"),
        ("# x\n@config colour=red", "x.smtp:2: no such option: colour"),
        ("C~ 'text'", "x.smtp:1: not a bytes literal: 'text'"),
        ("@sink full", "x.smtp:1: @sink empty, @sink N messages"),
        ("S.\nC: NOOP", "x.smtp:2: the connection is closed already"),
        ("S: 220 *", "x.smtp: no @sink line says what is stored"),
    ],
)
def test_mistakes_in_a_transcript_are_found(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.smtp"
    path.write_text(text)
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
        read_transcript(path)
