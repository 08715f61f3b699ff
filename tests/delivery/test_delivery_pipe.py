"""A command as a target: what it is given, what its exit code means, and its end when it takes too long."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from delivering import BOUNCE, MESSAGE, Bytes, Facts, Unreadable, closing, recipients, run, shared, shown

from smtpmaild.delivery import Outcome, Passed
from smtpmaild.delivery.builtin import build
from smtpmaild.delivery.pipe import EXIT_CODES, PipeOptions
from smtpmaild.queue import QueuedMessage

PYTHON = sys.executable


def deliver(
    command: Sequence[str],
    *addresses: str,
    message: QueuedMessage = MESSAGE,
    log: Facts | None = None,
    loop: str = "uvloop",
    **options: Any,
) -> Sequence[Outcome]:
    found: list[Sequence[Outcome]] = []

    async def work() -> None:
        agent = build(PipeOptions(type="pipe", command=tuple(command), **options), shared(log))
        async with closing(agent):
            found.append(await agent.deliver(message, recipients(*(addresses or ("a@x.example",)))))

    run(work(), loop)
    return found[0]


def python(program: str) -> list[str]:
    return [PYTHON, "-c", program]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_command_is_given_message_and_envelope(loop: str, tmp_path: Path) -> None:
    program = (
        "import os, sys, json\n"
        "number = len(os.listdir(sys.argv[1]))\n"
        "facts = {'env': dict(os.environ), 'in': sys.stdin.buffer.read().decode(), 'cwd': os.getcwd()}\n"
        "open(f'{sys.argv[1]}/{number}', 'w').write(json.dumps(facts))\n"
    )
    found = deliver([*python(program), str(tmp_path)], "a@x.example", '"$(id)"@y.example', loop=loop, directory="/tmp")
    assert shown(found) == ["250 2.0.0 Delivered to the command"] * 2
    assert [outcome.passed for outcome in found] == [Passed.IN] * 2
    first, second = (json.loads((tmp_path / name).read_text()) for name in "01")
    assert first["in"].encode() == MESSAGE.body.open().read()
    assert first["cwd"] == "/tmp"
    assert first["env"].pop("LC_CTYPE", "C.UTF-8") == "C.UTF-8"
    assert first["env"] == {
        "PATH": os.defpath, "LANG": "C.UTF-8", "SENDER": "sender@client.example", "RECIPIENT": "a@x.example",
        "LOCAL_PART": "a", "DOMAIN": "x.example", "QUEUE_ID": "Q1",
    }  # fmt: skip
    assert second["env"]["RECIPIENT"] == '"$(id)"@y.example'
    assert second["env"]["LOCAL_PART"] == "$(id)"


def test_null_sender_is_empty(tmp_path: Path) -> None:
    program = "import os, sys; open(sys.argv[1], 'w').write(os.environ['SENDER'])"
    deliver([*python(program), str(tmp_path / "sender")], message=BOUNCE)
    assert (tmp_path / "sender").read_text() == ""


@pytest.mark.parametrize("status", [*EXIT_CODES, 1, 2, 63, 79, 126, 127, 255])
def test_exit_code_decides(status: int) -> None:
    (found,) = deliver(["/bin/sh", "-c", f"exit {status}"])
    enhanced, meaning = EXIT_CODES.get(status, ("4.3.0", f"exit status {status}"))
    # RFC 3463: what is not known to be final is not.
    assert (found.reply.enhanced, found.reply.text) == (enhanced, f"The delivery command failed: {meaning}")
    assert found.reply.is_permanent == (64 <= status <= 78 and status not in (os.EX_OSERR, os.EX_TEMPFAIL))


def test_signal_is_temporary() -> None:
    (found,) = shown(deliver(["/bin/sh", "-c", "kill -9 $$"]))
    assert found == "451 4.3.0 The delivery command was ended by signal 9"


def test_output_is_kept_to_a_bound_and_harmless() -> None:
    program = (
        "import sys; print('no such\\x1b[31m user', flush=True); print('x' * 100_000, file=sys.stderr); sys.exit(67)"
    )
    (found,) = deliver(python(program))
    assert found.reply.text.startswith("The delivery command failed: user unknown\nno such")
    assert len(found.reply.text) < 4200
    assert b"\x1b" not in found.reply.wire


def test_each_recipient_has_its_own_run() -> None:
    found = deliver(["/bin/sh", "-c", 'test "$LOCAL_PART" = a || exit 67'], "a@x.example", "b@x.example")
    assert [outcome.reply.enhanced for outcome in found] == ["2.0.0", "5.1.1"]


def is_running(pid: int) -> bool:
    """Not gone, and no zombie that somebody else has yet to bury."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_command_that_takes_too_long_is_killed_with_its_children(loop: str, tmp_path: Path) -> None:
    script = f"echo begun; sleep 60 & echo $! > {tmp_path}/child; cat > /dev/null; wait"
    begun = time.monotonic()
    (found,) = shown(deliver(["/bin/sh", "-c", script], timeout=0.5, loop=loop))
    assert found == "451 4.3.0 The delivery command took too long / begun"
    assert time.monotonic() - begun < 10
    end = time.monotonic() + 5
    while is_running(int((tmp_path / "child").read_text())):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_cancelled_delivery_kills_the_command(tmp_path: Path) -> None:
    async def work() -> None:
        script = f"echo $$ > {tmp_path}/pid; exec sleep 60"
        agent = build(PipeOptions(type="pipe", command=("/bin/sh", "-c", script)), shared())
        task = asyncio.create_task(agent.deliver(MESSAGE, recipients("a@x.example")))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await agent.close()
        assert not is_running(int((tmp_path / "pid").read_text()))

    run(work())


def test_what_a_command_leaves_behind_is_not_waited_for() -> None:
    begun = time.monotonic()
    (found,) = shown(deliver(["/bin/sh", "-c", "cat > /dev/null; sleep 5 & exit 0"]))
    assert found.startswith("250")
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_command_that_does_not_read(loop: str) -> None:
    message = replace(MESSAGE, body=Bytes(b"x\r\n" * 1_000_000))
    assert shown(deliver(["/bin/true"], message=message, loop=loop)) == ["250 2.0.0 Delivered to the command"]


def test_large_message_arrives_whole(tmp_path: Path) -> None:
    body = b"0123456789\r\n" * 200_000
    message = replace(MESSAGE, body=Bytes(body))
    deliver(["/bin/sh", "-c", f"cat > {tmp_path}/out"], message=message)
    assert (tmp_path / "out").read_bytes() == body


@pytest.mark.parametrize("command", [["/nowhere/to/be/found"], ["/etc/passwd"], ["x\0y"]])
def test_command_that_cannot_be_run_is_the_operators_mistake(command: list[str]) -> None:
    log = Facts()
    assert shown(deliver(command, log=log)) == ["451 4.3.5 The delivery command cannot be run"]
    assert log.events == ["command_not_started"]


def test_message_that_cannot_be_read() -> None:
    (found,) = shown(deliver(["/bin/cat"], message=replace(MESSAGE, body=Unreadable())))
    assert found == "451 4.3.0 Cannot read the message: No such file or directory"
