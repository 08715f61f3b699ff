"""Every dialogue of tests/transcripts, whole, byte by byte and over sockets: the server always says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transcripts import (
    FOLDER,
    WAYS,
    Transcript,
    compare,
    play_byte_by_byte,
    play_whole,
    read_transcript,
    to_ascii,
    without_queue_ids,
)

from smtpmaild.smtp.extension import EXTENSIONS, XCLIENT, XFORWARD, ServerOptions
from smtpmaild.smtp.reply import Reply
from smtpmaild.transcripts import Say

FILES = sorted(FOLDER.glob("*.smtp"))
VERDICTS = [
    {stage: Reply(code, f"{code // 100}.7.1", "No")}
    for stage in ("helo", "mail", "rcpt", "data", "part", "message")
    for code in (550, 421)
]


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_transcript(path: Path) -> None:
    transcript = read_transcript(path)
    outputs = set()
    for play in WAYS.values():
        played = play(transcript)
        compare(transcript, played)
        outputs.add(without_queue_ids(played.output))
    assert len(outputs) == 1


#: Everything short that a client says in any of the dialogues.
SAID = sorted({step.data for path in FILES for step in read_transcript(path).steps if isinstance(step, Say)}, key=len)
SAID = [data for data in SAID if len(data) < 700]
BEGINNINGS = [
    b"".join(step.data for step in steps if isinstance(step, Say))
    for path in FILES
    for steps in [read_transcript(path).steps[:9]]
    if "DATA" in path.read_text() or "BDAT" in path.read_text()
]


@given(
    st.sampled_from(BEGINNINGS),
    st.lists(st.sampled_from(SAID), max_size=25),
    st.sampled_from([{}, *VERDICTS]),
    st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_any_other_dialogue_breaks_nothing(
    beginning: bytes, rest: list[bytes], verdicts: dict[str, Reply], is_lmtp: bool
) -> None:
    """What was said in one dialogue is said in another: no bug, nothing left open, however it is cut."""
    options = ServerOptions(
        "mx.local.example", message_size=3000, bad_commands=1000, to_ascii=to_ascii, is_lmtp=is_lmtp
    )
    transcript = Transcript("mixed", options, (*EXTENSIONS, XFORWARD, XCLIENT), verdicts)
    greeting = b"LHLO " if is_lmtp else b"EHLO "
    transcript.steps = [Say(re.sub(rb"\b(EHLO|LHLO) ", greeting, said)) for said in (beginning, *rest)]
    whole, cut = play_whole(transcript), play_byte_by_byte(transcript)
    for played in (whole, cut):
        assert not played.bugs, played.bugs[0]
        assert played.open_deliveries == 0
    assert without_queue_ids(cut.output) == without_queue_ids(whole.output)
    assert [message for _, message in cut.stored] == [message for _, message in whole.stored]
    assert cut.is_closed == whole.is_closed
    told = [len(envelope.recipients) if is_lmtp else 1 for envelope, _ in whole.stored]
    assert sum(told) == whole.output.count(b" Ok: queued as ")


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
