"""A session as it is written down: every secret is gone, and the rest can be read and played again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.transcripts import Instead, Say
from smtpmaild.transcripts.reading import read
from smtpmaild.transcripts.scrubbing import LONGEST, Scrubber

Talk = list[tuple[str, bytes]]


def scrubbed(*talk: tuple[str, bytes], user: str = "alice", with_bodies: bool = False, size: int = 0) -> list[str]:
    """C and S in turns. size: the client's octets in pieces of this size."""
    scrubber = Scrubber(lambda: user, with_bodies=with_bodies)
    for who, data in talk:
        if who == "S":
            scrubber.said(data)
            continue
        for start in range(0, len(data), size or len(data)):
            scrubber.heard(data[start : start + (size or len(data))])
    return scrubber.lines


START: Talk = [("S", b"220 mx ready\r\n"), ("C", b"EHLO a\r\n"), ("S", b"250-mx\r\n250 AUTH PLAIN\r\n")]
SAID = ["S: 220 mx ready", "C: EHLO a", "S: 250-mx", "S: 250 AUTH PLAIN"]
MAIL: Talk = [
    ("C", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"),
    ("S", b"250 ok\r\n250 ok\r\n354 go\r\n"),
    ("C", b"Subject: secret\r\n\r\n..dots\r\nDATA\r\n.\r\nQUIT\r\n"),
    ("S", b"250 Ok: queued as 01ABCDEF\r\n221 bye\r\n"),
]
TALKED = [
    "C: MAIL FROM:<a@b>", "C: RCPT TO:<c@d>", "C: DATA", "S: 250 ok", "S: 250 ok", "S: 354 go", "C! body 33",
    "C: QUIT", "S: 250 Ok: queued as *", "S: 221 bye",
]  # fmt: skip
CASES: list[tuple[Talk, list[str]]] = [
    (MAIL, TALKED),
    # AUTH, with its secret at once or when it is asked for
    ([("C", b"AUTH PLAIN AGFsaWNlAHB3\r\n"), ("S", b"235 ok\r\n")], ["C! AUTH PLAIN alice", "S: 235 ok"]),
    (
        [("C", b"auth login\r\n"), ("S", b"334 VXNlcg==\r\n"), ("C", b"YWxpY2U=\r\n"), ("S", b"334 UGFzcw==\r\n")]
        + [("C", b"cHc=\r\n"), ("S", b"235 ok\r\n"), ("C", b"NOOP\r\n"), ("S", b"250 ok\r\n")],
        ["C! AUTH LOGIN alice", "S: 235 ok", "C: NOOP", "S: 250 ok"],
    ),
    (
        [("C", b"AUTH PLAIN AGFsaWNlAHB3\r\n"), ("S", b"535 5.7.8 no\r\n"), ("C", b"cHc=\r\n"), ("S", b"500 what\r\n")],
        ["# AUTH PLAIN failed and is left out: 535 5.7.8 no"]
        + ["# (a line that is not shown, behind AUTH)", "S: 500 what"],
    ),
    ([("C", b"AUTH X-MINE AGFs\r\n"), ("S", b"504 5.5.4 no\r\n")], ["C! AUTH X-MINE", "S: 504 5.5.4 no"]),
    (
        [("C", b"STARTTLS\r\n"), ("S", b"220 go\r\n"), ("C", b"EHLO b\r\n")],
        ["C: STARTTLS", "S: 220 go", "C! STARTTLS", "C: EHLO b"],
    ),
    ([("C", b"STARTTLS\r\n"), ("S", b"454 no\r\n"), ("C", b"QUIT\r\n")], ["C: STARTTLS", "S: 454 no", "C: QUIT"]),
    ([("C", b"DATA\r\n"), ("S", b"503 no\r\n"), ("C", b"x\r\n.\r\n")], ["C: DATA", "S: 503 no", "C: x", "C: ."]),
    (
        [("C", b"DATA\r\n"), ("S", b"354 go\r\n"), ("C", b".\r\nRSET\r\n")],
        ["C: DATA", "S: 354 go", "C! body 0", "C: RSET"],
    ),
    (
        [("C", b"BDAT 5\r\nabcdeBDAT 0 LAST\r\nBDAT x\r\n"), ("S", b"250 ok\r\n250 ok\r\n501 no\r\n")],
        ["C: BDAT 5", "C! octets 5", "C: BDAT 0 LAST", "C: BDAT x", "S: 250 ok", "S: 250 ok", "S: 501 no"],
    ),
    # AUTH that the server takes, or that somebody has mistyped
    ([("C", b"  AUTH PLAIN AGFsaWNlAHB3\r\n"), ("S", b"235 ok\r\n")], ["C! AUTH PLAIN alice", "S: 235 ok"]),
    ([("C", b"AUTHPLAIN AGFsaWNlAHB3\r\n"), ("S", b"500 no\r\n")], ["C! AUTH", "S: 500 no"]),
    ([("C", b"AUTH AGFsaWNlAHB3\r\n"), ("S", b"501 no\r\n")], ["C! AUTH", "S: 501 no"]),
    (
        [("C", b"AUTH PLAIN\r\n"), ("S", b"504 no\r\n"), ("C", b"MAIL/cGFz\r\n"), ("S", b"500 no\r\n")],
        ["C! AUTH PLAIN", "S: 504 no", "# (a line that is not shown, behind AUTH)", "S: 500 no"],
    ),
    (
        [("C", b" DATA\r\n"), ("S", b"354 go\r\n"), ("C", b"AUTH\r\n.\r\n"), ("S", b"250 ok\r\n")],
        ["C:  DATA", "S: 354 go", "C! body 6", "S: 250 ok"],
    ),
    # what is no text
    ([("C", b"\xff\x1b[2J\r\nNOOP\nB\xc3\xbc\r\n")], [r"C~ b'\xff\x1b[2J\r\n'", r"C~ b'NOOP\n'", "C: B\u00fc"]),
    ([("S", b"250 \x1b\r\n")], [r"S: 250 \x1b"]),
]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize(("talk", "lines"), CASES)
def test_what_is_written(talk: Talk, lines: list[str], size: int) -> None:
    said = scrubbed(*START, *talk, size=size)
    if size:  # pipelined commands may come behind the replies to others
        assert sorted(said) == sorted([*SAID, *lines])
    else:
        assert said == [*SAID, *lines]
    assert "secret" not in "".join(said)
    read("\n".join(said), "x")


def test_bodies_are_kept_where_they_are_wanted() -> None:
    lines = scrubbed(*START, *MAIL, with_bodies=True, size=2)
    assert lines[lines.index("S: 354 go") + 1 :][:6] == [
        "C: Subject: secret", r"C~ b'\r\n'", "C: ..dots", "C: DATA", "C: .", "C: QUIT",
    ]  # fmt: skip
    lines = scrubbed(("C", b"BDAT 4\r\na\r\nb"), with_bodies=True)
    assert lines == ["C: BDAT 4", "C: a", "C~ b'b'"]
    said = b"".join(step.data for step in read("\n".join(lines), "x").steps if isinstance(step, Say))
    assert said == b"BDAT 4\r\na\r\nb"


def test_nothing_is_kept_that_will_not_be_written() -> None:
    scrubber = Scrubber(str)
    for _ in range(40):
        scrubber.heard(b"x" * (LONGEST // 8))  # a line without an end
    assert len(scrubber._input) <= LONGEST
    scrubber.heard(b"\r\nNOOP\r\n")
    assert scrubber.lines[-1] == "# (the rest is cut off)"


@pytest.mark.parametrize("character", ["x", "\U0001f4e7"])
def test_of_long_bodies_no_more_is_kept_than_is_written(character: str) -> None:
    scrubber = Scrubber(str, with_bodies=True)
    scrubber.heard(b"DATA\r\n")
    scrubber.said(b"354 go\r\n")
    line = character.encode() * 100 + b"\r\n"
    for _ in range(40):
        scrubber.heard(line * (LONGEST // 8 // len(line)))
    assert sum(map(len, scrubber._kept)) <= LONGEST
    scrubber.heard(b".\r\n")
    assert scrubber.lines[-1] == "# (the rest is cut off)"


def test_lmtp_answers_for_each_recipient() -> None:
    lines = scrubbed(
        ("C", b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@b>\r\nRCPT TO:<d@b>\r\nDATA\r\n"),
        ("S", b"250 hi\r\n250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n"),
        ("C", b"x\r\n.\r\nAUTH PLAIN c2VjcmV0\r\n"),
        ("S", b"250 one\r\n250 two\r\n235 in\r\n"),
    )
    assert lines[-4:] == ["S: 250 one", "S: 250 two", "C! AUTH PLAIN alice", "S: 235 in"]


def test_long_sessions_are_cut() -> None:
    lines = scrubbed(("C", b"NOOP xxxxxxxxxxxxxxxxxxx\r\n" * (LONGEST // 10)))
    assert lines[-1] == "# (the rest is cut off)"
    assert sum(map(len, lines)) < LONGEST + 100


@given(
    st.lists(
        st.tuples(
            st.sampled_from("CS"),
            st.sampled_from(
                [b"DATA\r\n", b"354 go\r\n", b"AUTH PLAIN c2VjcmV0\r\n", b"334 \r\n", b"c2VjcmV0\r\n", b"235 ok\r\n"]
                + [
                    b"\r\n.\r\n",
                    b"BDAT 3 LAST\r\n",
                    b"250 ok\r\n",
                    b"STARTTLS\r\n",
                    b"220 go\r\n",
                    b"QUIT\r\n",
                    b"\xff\r\n",
                ]
                + [b"535 no\r\n", b"250-a\r\n", b"LHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b>\r\n", b"\r", b"\n"]
            ),
        ),
        max_size=12,
    )
)
@settings(deadline=None, max_examples=200)
def test_whatever_is_said_the_lines_can_be_read(talk: list[tuple[str, bytes]]) -> None:
    found = read("\n".join(scrubbed(*talk)), "x")
    assert all(step.source for step in found.steps if isinstance(step, Say | Instead))
