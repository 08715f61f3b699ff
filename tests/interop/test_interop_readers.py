"""Readers that are not ours read the Maildir: Python's mailbox module, mutt and Dovecot."""

from __future__ import annotations

import mailbox
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemons import PATIENCE, Daemon, fields_and_message, in_the_maildir, on_the_wire, running, send_all, user_of_tests

NeedsProgram = Callable[[str], str]
MESSAGES = [
    on_the_wire(text)
    for text in (
        b"Subject: plain\n\nhello\n",
        b"Subject: empty\n\n",
        b"Subject: from\n\nFrom here on mbox readers stumble\n",
        b"Subject: dots\n\n.\n..\n",
        b"Subject: long\n\n" + b"x" * 998 + b"\n",
        b"Subject: large\n\n" + b"0123456789abcdef\n" * 20_000,  # more than a store keeps in memory
        "Subject: grüße\nContent-Type: text/plain; charset=utf-8\n\nSchöne Grüße\n".encode(),
        b"Subject: latin\nContent-Type: text/plain; charset=iso-8859-1\n\nSch\xf6n\n",
    )
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("readers")) as daemon:
        send_all(daemon, [("reader@example.com", wire) for wire in MESSAGES])
        yield daemon


def test_pythons_mailbox(daemon: Daemon) -> None:
    box = mailbox.Maildir(daemon.maildir("reader"), create=False)
    found = {fields_and_message(box.get_bytes(key))[1] for key in box.keys()}  # noqa: SIM118 - iterating gives messages
    assert found == {in_the_maildir(wire) for wire in MESSAGES}
    for one in box:
        assert one.get_subdir() == "new"
        assert one.get_flags() == ""
        assert one["Return-Path"] == "<sender@client.example>"
        assert one["Delivered-To"] == "reader@example.com"
        assert re.search(r"with ESMTP id [0-9A-F]{18}\s+for <reader@example\.com>;", one["Received"])
    assert {str(one["Subject"]) for one in box} >= {"plain", "empty", "dots"}


def run_on_a_terminal(arguments: list[str], environment: dict[str, str]) -> int:
    """Programs that draw on their screen want one."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    end = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < end and process.poll() is None:
            if select.select([ours], [], [], 0.05)[0]:
                os.read(ours, 65536)
    except OSError:  # how Linux tells that the other side is gone
        pass
    finally:
        os.close(ours)
    return process.wait(PATIENCE)


@pytest.mark.debian
def test_mutt(daemon: Daemon, needs_program: NeedsProgram, tmp_path: Path) -> None:
    maildir = tmp_path / "maildir"
    shutil.copytree(daemon.maildir("reader"), maildir)
    out = tmp_path / "out"
    settings = tmp_path / "muttrc"
    # Tag all, pipe all as they are to one command, leave.
    options = ("pipe_decode=no", 'pipe_sep="%%%%\\n"', "wait_key=no", "quit=yes", f"folder={tmp_path}")
    push = f"push '<tag-pattern>~A<enter><tag-prefix><pipe-message>cat > {out}<enter><exit>'\n"
    settings.write_text("".join(f"set {option}\n" for option in options) + push)
    environment = {**os.environ, "TERM": "vt100", "HOME": str(tmp_path)}
    program = [needs_program("mutt"), "-n", "-F", str(settings), "-R", "-f", str(maildir)]
    assert run_on_a_terminal(program, environment) == 0
    found = {fields_and_message(one)[1] for one in out.read_bytes().split(b"%%%%\n") if one}
    assert found == {in_the_maildir(wire) for wire in MESSAGES}


@pytest.fixture
def for_everybody() -> Iterator[Path]:
    """A folder that another user may enter: pytest's own are for their owner only."""
    folder = Path(tempfile.mkdtemp(prefix="smtpmaild-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.debian
def test_dovecot(daemon: Daemon, needs_program: NeedsProgram, for_everybody: Path) -> None:
    program = needs_program("doveadm")
    maildir = for_everybody / "maildir"
    shutil.copytree(daemon.maildir("reader"), maildir)
    user = user_of_tests()
    if user:  # Dovecot reads no mail as root
        for path in (for_everybody, *for_everybody.rglob("*")):
            os.chown(path, user["user"], user["group"])
    settings = for_everybody / "dovecot.conf"
    settings.write_text(
        f"base_dir = {for_everybody}/run\nlog_path = /dev/stderr\nmail_location = maildir:{maildir}\n"
        "ssl = no\nprotocols =\ndefault_internal_user = nobody\ndefault_internal_group = nogroup\n"
    )

    def doveadm(*arguments: str) -> bytes:
        ran = subprocess.run(
            [program, "-c", str(settings), *arguments],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "USER": "nobody", "HOME": str(for_everybody)},
            extra_groups=[] if user else None,
            **user,  # type: ignore[call-overload]
        )
        # It would tell here of a ",S=" or ",W=" in a file name that is not the size.
        assert (ran.returncode, ran.stderr) == (0, b"")
        return bytes(ran.stdout)

    sizes = doveadm("-f", "flow", "fetch", "size.physical size.virtual", "all").decode().splitlines()
    raw = daemon.raw("reader")
    assert set(sizes) == {f"size.physical={len(one)} size.virtual={len(on_the_wire(one))}" for one in raw}
    found = set()
    for number in range(1, len(MESSAGES) + 1):
        text = doveadm("fetch", "text", "uid", str(number))
        assert text.startswith(b"text:\n")
        found.add(fields_and_message(text[6:])[1].removesuffix(b"\n"))
    assert found == {in_the_maildir(wire).removesuffix(b"\n") for wire in MESSAGES}
