"""`smtpmaild reload --plan --apply` beside a daemon: what the plan says, the daemon says after it, and not before."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running import Ran, Runner
from whole_daemon import WholeDaemon, until

from smtpmaild.control import client
from smtpmaild.history.reading import Reading

CONFIG = """\
hostname: mx.example.com
listeners: [{name: mx, listen: ["127.0.0.1:0"]}]
local_domains:
  local.example: {deliver: mail, mailboxes: [bob]}
deliver_to: {mail: {type: spool, path: mail}}
history: {path: history.sqlite}
control: {socket: control.sock}
logging: {format: json}
"""
ALICE, BOB = "alice@local.example", "bob@local.example"
#: What becomes of them when alice has the mailbox that bob had.
LET_IN = "1 x reject 550 5.1.1 No such mailbox here  ->  accept to mail\n"
LEFT_OUT = "1 x accept to mail  ->  reject 550 5.1.1 No such mailbox here\n"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[WholeDaemon]:
    with WholeDaemon(tmp_path, CONFIG) as daemon:
        yield daemon


def test_what_was_planned_comes_true(
    daemon: WholeDaemon, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner(capfd, monkeypatch)

    def reload(*options: str) -> Ran:
        return run("reload", "-c", str(daemon.path), *options)

    assert daemon.rcpt(ALICE) == [550]
    daemon.send(BOB)

    def is_recorded() -> bool:
        try:
            with Reading(str(tmp_path / "history.sqlite")) as reading:
                return len(reading.latest(9, ["session_closed"])) == 2
        except OSError:  # it is just being made
            return False

    until(is_recorded, "both sessions are on record")
    same = reload("--plan")
    assert (same.status, same.out.splitlines()[1:]) == (0, ["no verdict would change"])

    daemon.path.write_text(CONFIG.replace("[bob]", "[alice]"))
    planned = reload("--plan")
    assert planned.status == 1
    assert "\n2 verdicts would change:\n" in planned.out
    assert LET_IN in planned.out and LEFT_OUT in planned.out
    assert f"such as 127.0.0.1 at mx, <a@sender.example> to {ALICE}, " in planned.out
    assert daemon.rcpt(ALICE, BOB) == [550, 250], "a plan changes nothing"
    assert not daemon.logged("reloaded")

    applied = reload("--plan", "--apply")
    assert (applied.status, applied.out.splitlines()[-1]) == (0, "local_domains: local.example changed"), applied.err
    assert "accept to mail" in applied.out
    assert daemon.rcpt(ALICE, BOB) == [250, 550], "the next session gets what the plan said"
    assert len(daemon.logged("reloaded")) == 1

    daemon.path.write_text(CONFIG.replace("[bob]", "[carol]").replace("hostname", "hostnam"))
    refused = reload("--plan", "--apply")
    assert (refused.status, refused.out) == (78, "")
    assert daemon.rcpt(ALICE, BOB) == [250, 550], "what has mistakes is not asked for"


def workers(control: str) -> dict[str, int]:
    return {one["state"]: one["pid"] for one in client.answer(control, "status")["workers"]}


def test_it_is_not_done_while_a_worker_of_before_accepts(daemon: WholeDaemon, tmp_path: Path) -> None:
    control = str(tmp_path / "control.sock")
    assert daemon.rcpt(ALICE) == [550]
    old = workers(control)["serving"]
    daemon.path.write_text(CONFIG.replace("[bob]", "[alice]"))
    os.kill(old, signal.SIGSTOP)  # busy with something else, for a moment
    try:
        with ThreadPoolExecutor() as pool:
            done = pool.submit(client.answer, control, "reload")
            until(lambda: {"serving", "retiring"} <= {*workers(control)}, "the new one serves, the old one is told")
            told = client.answer(control, "status")["reload"]  # nothing of it yet, on a busy machine
            assert told is None or not told["is_done"]
            os.kill(old, signal.SIGCONT)
            assert done.result()["changed"] == ["local_domains: local.example changed"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(old, signal.SIGCONT)
    assert daemon.rcpt(ALICE, BOB) == [250, 550]
