"""docs/embedding.md: its programs run, and its table of events is that of the code."""

from __future__ import annotations

import asyncio
import json
import re
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from smtpmaild.embedding import Address, Esmtp
from smtpmaild.embedding.events import EVENTS
from smtpmaild.embedding.options import SessionOptions

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "embedding.md").read_text()
SYNOPSIS, WAITING, PARTS, OWN_LOOP, EXTENSION = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@contextmanager
def running(program: str, folder: Path) -> Iterator[int]:
    """The program as a process, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert program.count("2525") == 1
    process = subprocess.Popen([sys.executable, "-c", program.replace("2525", str(port))], cwd=folder)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield port
    finally:
        # Not terminate(): coverage then saves within a signal handler, and was once seen to wait for itself there.
        process.kill()
        process.wait(10)


def test_synopsis_is_about_as_long_as_the_original() -> None:
    lines = [line for line in SYNOPSIS.splitlines() if line.strip()]
    assert len(lines) <= 30


def test_synopsis(tmp_path: Path) -> None:
    with running(SYNOPSIS, tmp_path) as port, smtplib.SMTP("127.0.0.1", port, "client.example", timeout=10) as client:
        client.ehlo()
        message = "Subject: hi\r\n\r\n.dot\r\nlast line\r\n"
        refused = client.sendmail("ann@a.example", ["bob@example.com", "eve@elsewhere.example"], message)
        assert refused == {
            "eve@elsewhere.example": (
                554, b"5.7.1 eve@elsewhere.example: Recipient address rejected: Relay access denied"
            )
        }  # fmt: skip
        client.mail("ann@a.example")
        client.rcpt("carol@EXAMPLE.org")
        code, text = client.data("Subject: two\r\n\r\n")
        assert (code, text[:21]) == (250, b"2.0.0 message queued ")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("ann@a.example", ["eve@elsewhere.example"], message)

    queue_id = text.decode().split()[-1]
    queue = tmp_path / "queue"
    assert len(list(queue.iterdir())) == 4
    assert (queue / f"{queue_id}.eml").read_bytes() == b"Subject: two\r\n\r\n"
    assert json.loads((queue / f"{queue_id}.json").read_text()) == {
        "from": "ann@a.example",
        "to": ["carol@EXAMPLE.org"],
    }
    [first] = [path for path in queue.glob("*.eml") if path.stem != queue_id]
    assert first.read_bytes() == message.encode()
    assert json.loads(first.with_suffix(".json").read_text())["to"] == ["bob@example.com"]


def run(program: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(program, "docs/embedding.md", "exec", dont_inherit=True), names)
    return names


async def talk(session: Esmtp, lines: bytes) -> list[str]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(lines)
        ours.shutdown(socket.SHUT_WR)
        await session.process(theirs)
        theirs.shutdown(socket.SHUT_WR)
        return ours.recv(65536).decode().splitlines()


HEAD = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<alice@c.example>\r\n"


def test_waiting() -> None:
    session = run(WAITING)["session"]
    *_, alice, bob = asyncio.run(talk(session, HEAD + b"RCPT TO:<bob@c.example>\r\n"))
    assert alice == "250 2.1.5 recipient alice@c.example OK"
    assert bob == "550 5.1.1 bob@c.example: nobody of this name"


def test_parts() -> None:
    session = run(PARTS)["session"]
    *_, stored = asyncio.run(talk(session, HEAD + b"DATA\r\nhello\r\n.\r\n"))
    assert stored == "250 2.6.0 7 octets, cd2eca35"


@pytest.mark.parametrize("program", [OWN_LOOP, EXTENSION])
def test_programs_that_check_themselves(program: str) -> None:
    assert "assert " in program
    assert isinstance(run(program)["session"], Esmtp)


def table(heading: str) -> list[list[str]]:
    """The rows of the first table behind a heading, cells without their decoration."""
    lines = PAGE.split(f"{heading}\n", 1)[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[first + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def test_table_of_events_is_that_of_the_code() -> None:
    documented = [tuple(row[:4]) for row in table("### Events")]
    assert documented == [
        (event.value, row.arguments or "-", str(row.success), str(row.failure)) for event, row in EVENTS.items()
    ]


def test_every_option_is_documented() -> None:
    named = {name for row in table("## Options") for name in re.findall(r"[a-z_]+", row[0].replace("`", " "))}
    assert named == set(SessionOptions.__slots__)


def test_accessors_of_the_page_exist() -> None:
    for name in re.findall(r"`session\.(\w+)", PAGE):
        assert hasattr(Esmtp, name), name
    for name in re.findall(r"`(local_part|domain|text|is_null)`", PAGE):
        assert hasattr(Address, name)
