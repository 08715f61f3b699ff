"""status, reload, drain, and queue through the control socket: against a desk that the test serves in a thread."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from running import Ran, Runner

from smtpmaild.cli import shown
from smtpmaild.control.desk import Desk, Door, Premises
from smtpmaild.control.queue_files import QueueFiles
from smtpmaild.control.serving import ControlSocket
from smtpmaild.server.house import House, Post, Reload, State, reload_news, state_news
from smtpmaild.server.pulse import Pulse
from smtpmaild.server.sums import Ledger, Sums

OLD = "000000000000000AAA"
#: Beyond what Linux gives.
NO_PROCESS = 99_999_999


class Silent:
    def info(self, event: str, /, **facts: object) -> None:
        pass

    warning = error = exception = info


@dataclass
class Daemon:
    """obey: what comes of an order."""

    house: House
    config: Path
    run: Runner
    obey: Callable[[Mapping[str, Any]], None] = lambda _: None

    def __call__(self, *arguments: str) -> Ran:
        return self.run(*arguments, "--config", str(self.config))

    def state(self, *posts: Post, **changed: Any) -> None:
        known = State(pid=NO_PROCESS, started_at=time.time() - 7200, wanted=1, posts=posts, **changed)
        self.house.hear_news(state_news(known))


@pytest.fixture
def daemon(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    path = tmp_path / "control.sock"
    config = tmp_path / "smtp.yaml"
    config.write_text("control: {socket: control.sock}\nqueue: {path: queue}\n")
    monkeypatch.delenv("SMTPMAILD_CONTROL", raising=False)
    house = House(lambda order: daemon.obey(order), Sums(Ledger(10_000)))
    daemon = Daemon(house, config, Runner(capfd, monkeypatch))
    daemon.state(Post(1, 101, 0, is_ready=True, is_retiring=False, started_at=time.time() - 60))
    premises = Premises("mx.example", [Door("mx", ["0.0.0.0:25"], "smtp", "none", "none")], ())
    from test_cli_queue import House as Mail

    Mail(tmp_path, daemon.run).queue.close()
    config.write_text("control: {socket: control.sock}\nqueue: {path: queue}\n")
    desk = Desk(house, premises, QueueFiles(str(tmp_path / "queue"), Silent(), lambda _: None), Silent())
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            control = ControlSocket(desk, [listening], Silent())
            control.start(loop)
            ready.set()
            await ending.wait()
            await control.stop()

    ending = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(5)
    yield daemon
    loop.call_soon_threadsafe(ending.set)
    thread.join(5)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_status(daemon: Daemon) -> None:
    counters = {"messages_accepted": 12345, "authentications_refused": 2}
    daemon.house.hear_pulse(Pulse(1, 101, 0.0, time.time(), 0.012, {"mx": 3}, {}, 2_000_000, {}, counters).to_bytes())
    daemon.house.save()
    daemon.state(
        *daemon.house.state.posts,
        Post(2, 102, 0, is_ready=True, is_retiring=True, started_at=time.time()),
        deaths=1,
        reload=Reload(0, 0.0, is_good=False, cause="smtp.yaml:1:1: no\n  more"),
    )
    ran = daemon("status")
    lines = ran.out.splitlines()
    assert lines[0].startswith("smtpmaild ") and lines[0].endswith("on mx.example, process 99999999, up 2h")
    assert lines[1] == "1 of 1 worker serving; 1 worker died and came back"
    assert lines[3:6] == [
        "WORKER  STATE      UP  SESSIONS  IN FLIGHT   LATE",
        "101     serving    1m         3       2.0M  12 ms",
        "102     retiring  now         0          0   0 ms",
    ]
    assert lines[7:9] == ["LISTENER  SESSIONS  LISTENS ON", "mx               3  0.0.0.0:25"]
    assert "messages    12,345 accepted   0 refused   0 deferred" in lines
    assert "logins      0 accepted   2 refused" in lines
    assert any(line.startswith("queue       2 messages to 2 destinations, 100.0kB, oldest 2h") for line in lines)
    assert lines[-1].endswith("refused: smtp.yaml:1:1: no")
    assert json.loads(daemon("status", "--json").out)["pid"] == NO_PROCESS
    daemon.state()
    assert "not ready: no worker accepts connections" in daemon("status").out


def test_status_by_the_socket_alone(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(daemon.config.parent / "control.sock")
    assert daemon.run("status", "--socket", path).status == 0
    monkeypatch.setenv("SMTPMAILD_CONTROL", path)
    assert daemon.run("status").status == 0
    assert daemon.run("queue", "list").out.count("\n") == 4


@pytest.mark.parametrize("command", ["status", "reload", "drain"])
def test_nobody_to_talk_to(tmp_path: Path, run: Runner, command: str) -> None:
    config = tmp_path / "smtp.yaml"
    config.write_text("control: {}\n")
    ran = run(command, "-c", str(config))
    assert (ran.status, ran.out) == (69, "")
    assert ran.err == f"Error: no smtpmaild is running here: nobody listens on {tmp_path}/var/run/control.sock\n"
    config.write_text("hostname: mx.example\n")
    ran = run(command, "-c", str(config))
    assert ran.status == 78
    assert "has no section control" in ran.err
    assert run(command, "-c", str(tmp_path / "absent.yaml")).status == 78
    assert run(command).status == 64


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.delenv("SMTPMAILD_CONTROL", raising=False)
    return Runner(capfd, monkeypatch)


def test_reload(daemon: Daemon) -> None:
    def obey(order: Mapping[str, Any]) -> None:
        daemon.house.hear_news(reload_news(Reload(order["number"], 0.0, True, "", changed, ["user"], is_done=True)))

    daemon.obey, changed = obey, ["listeners: mx changed", "workers: changed"]
    ran = daemon("reload")
    assert (ran.status, ran.out) == (0, "listeners: mx changed\nworkers: changed\n")
    assert ran.err == "only a restart changes: user\n"
    changed.clear()
    assert daemon("reload").out == "nothing in the file has changed\n"


def test_reload_that_is_refused(daemon: Daemon) -> None:
    mistake = "smtp.yaml:1:1: unknown key 'bad'\n    1 | bad: 1\n      | ^~~"
    daemon.obey = lambda order: daemon.house.hear_news(reload_news(Reload(order["number"], 0.0, False, mistake)))
    ran = daemon("reload")
    assert (ran.status, ran.out) == (78, "")
    assert ran.err == f"{mistake}\nrefused; the daemon goes on as it was\n"


def test_drain(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []

    def obey(order: Mapping[str, Any]) -> None:
        orders.append(order["now"])
        daemon.state(is_stopping=True)

    daemon.obey = obey
    ran = daemon("drain")
    assert (ran.status, ran.out, ran.err) == (0, "the daemon has ended\n", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert daemon("drain", "--now").status == 0
    assert orders == [False, True]


def test_queue_goes_through_the_daemon(daemon: Daemon, tmp_path: Path) -> None:
    os.chmod(tmp_path / "queue", 0o700)
    assert daemon("queue", "list", "--domain", "z.example", "--json").out.startswith('{"version": 1')
    assert daemon("queue", "show", OLD).out.endswith("Subject: a\\x07b\n")
    assert daemon("queue", "stats").out.splitlines()[0].startswith("mx:y.example: 2 messages")
    ran = daemon("queue", "drop", "--recipient", "b@y.example")
    assert (ran.status, ran.err.count("Drop 1 recipient for good?")) == (130, 1)
    ran = daemon("queue", "hold", OLD, "--reason", "a virus")
    assert (ran.status, ran.err) == (0, "2 recipients\n")
    assert '"why": "a virus"' in (tmp_path / "queue" / "changes.log").read_text()
    assert daemon("queue", "export", OLD).out.startswith("Subject: a\x07b\r\n")
    ran = daemon("queue", "show", "NONE")
    assert (ran.status, ran.err) == (66, "Error: there is no message NONE in the queue\n")
    out = tmp_path / "out"
    assert daemon("queue", "export", OLD, "--to", str(out)).status == 0
    (out / f"{OLD}.json").write_text("{}")
    ran = daemon("queue", "import", f"{out}/{OLD}.eml")
    assert (ran.status, ran.err) == (65, f"Error: {out}/{OLD}.json: there are no recipients\n")


def test_text_from_elsewhere_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown.plain("a\x1b[2Jb\u202ec") == "a\\x1b[2Jb\\u202ec"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown.coloured("x", fg="red") == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown.coloured("x", fg="red") == "x"
