"""What the soak tests share: the daemon as people start it, clients that keep books, and a look into its stores.

`RealDaemon` is `python -m smtpmaild` with a Maildir for mail.example and a spool directory for spool.example. `Load`
sends numbered messages from a few threads and notes what became of each; everything in a message follows from its
number, so `Shelves` can tell whether what lies in the stores is whole, and there once.

Each test is short here; with SMTPMAILD_SOAK=1, as `make soak` sets it, it runs as long as it was meant to.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

IS_WHOLE = os.environ.get("SMTPMAILD_SOAK") == "1"
#: Seconds; longer than anything takes that works.
PATIENCE = 20.0
MAIL, SPOOL = "mail.example", "spool.example"
#: Events that only a mistake of ours brings about.
MISTAKES = frozenset(
    ("session_failed", "policy_failed", "writer_failed", "answer_failed", "loop_failure", "sweep_failed",
     "worker_failed", "log_lines_dropped")
)  # fmt: skip

_CONFIG = """\
hostname: mx.example.com
listeners:
  - {{name: mx, listen: ["127.0.0.1:0"]}}
local_domains:
  mail.example: {{deliver: mail}}
  spool.example: {{deliver: spool}}
deliver_to:
  mail: {{type: maildir, path: "{root}/mail/{{mailbox}}", tmp_max_age: 1h}}
  spool: {{type: spool, path: "{root}/spool", tmp_max_age: 1h}}
limits: {{connections: 12000, connections_per_ip: 0, message_size: {size}, memory: {memory}}}
timeouts: {{drain: 5s}}
logging: {{level: info, format: json}}
workers: {workers}
"""
_LINE = re.compile(rb"([2-5][0-9]{2})([ -])([\x20-\x7e]*)")
_ROOT = Path(__file__).parents[2]


def scaled(short: int, whole: int) -> int:
    """A number for the suite, and one for `make soak`."""
    return whole if IS_WHOLE else short


def until(is_so: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """The process runs; one that is dead and waits for its parent to notice does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def _fact(line: bytes) -> dict[str, Any]:
    if not line.startswith(b"{"):
        return {"event": "noise", "line": line}
    try:
        fact: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"event": "cut", "line": line}
    return fact


class RealDaemon:
    """The daemon as a process, with its stores below `root` and its log in a file beside them."""

    def __init__(
        self,
        root: Path,
        *,
        workers: int = 1,
        size: str = "50 MB",
        memory: str = "256 MB",
        stores: Path | None = None,
    ) -> None:
        self.stores = stores or root
        self.workers = workers
        self.process: subprocess.Popen[bytes] | None = None
        self.address = ("", 0)
        self._config = root / "smtp.yaml"
        self._log = root / "daemon.log"
        self._started_at = 0
        self._config.write_text(_CONFIG.format(root=self.stores, workers=workers, size=size, memory=memory))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.kill()
        if error is not None:
            print(self._log.read_text()[-4000:])

    def start(self) -> None:
        """Returns once every worker accepts."""
        # A daemon that is killed has nothing to tell about coverage, and measuring would change what is measured.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
        environment["PYTHONPATH"] = str(_ROOT)
        arguments = ["--config", str(self._config), *(["--allow-root"] * (os.geteuid() == 0))]
        with self._log.open("ab") as log:
            self._started_at = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "smtpmaild", *arguments], stderr=log, env=environment
            )
        listening = self.wait_for("listening")
        host, _, port = listening["address"].rpartition(":")
        self.address = (host, int(port))
        until(lambda: len(self.pids()) == (1 if self.workers == 1 else 1 + self.workers), "workers")

    def kill(self) -> None:
        """kill -9 to every process of it."""
        if self.process is None:
            return
        pids = self.pids()
        for pid in pids:
            self.signal(signal.SIGKILL, pid)
        self.process.wait()
        self.process = None
        until(lambda: not any(map(is_alive, pids)), "the end of what was killed")

    def signal(self, number: signal.Signals, pid: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it was faster

    @property
    def pid(self) -> int:
        """The process that was started: the only one, or the supervisor."""
        assert self.process is not None
        return self.process.pid

    def pids(self) -> list[int]:
        """The supervisor, then its workers."""
        return [self.pid, *self.worker_pids()]

    def worker_pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def facts(self) -> list[dict[str, Any]]:
        """The log since the last start; lines that are no JSON would be a traceback or a warning of Python.

        Who is killed in the middle of a line leaves half of one, and another worker writes on behind it.
        """
        with self._log.open("rb") as log:
            log.seek(self._started_at)
            lines = log.read().split(b"\n")[:-1]
        return [_fact(line) for line in lines]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fact for fact in self.facts() if fact["event"] == event]

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """The last fact of that name, once there are so many."""
        until(lambda: len(self.named(event)) >= count or not is_alive(self.pid), event)
        found = self.named(event)
        assert len(found) >= count, f"{event}: the daemon ended: {self.facts()[-3:]}"
        return found[-1]

    def assert_no_mistakes(self) -> None:
        """Nothing in the log is a bug of ours."""
        mistakes = [fact for fact in self.facts() if fact["event"] in {*MISTAKES, "noise"} or "exception" in fact]
        assert not mistakes, mistakes[:3]

    # Memory, in KiB

    def resident(self) -> int:
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most since forget_peak()."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # proc(5): "reset the peak resident set size"

    def _status(self, name: str) -> int:
        match = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert match
        return int(match[1])


class Client:
    """A blocking client. An end of the connection where a reply is due is an OSError."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, PATIENCE)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def reply(self) -> str:
        """The last line of the next reply."""
        while True:
            line = self._file.readline().decode()
            if not line.endswith("\r\n"):
                raise ConnectionResetError("the server has closed the connection")
            if line[3] == " ":
                return line[:-2]

    def rest(self) -> list[int]:
        """The codes of all that is still said before the server closes the connection."""
        return replies(self._file.read())

    def ask(self, data: bytes | str) -> str:
        self.socket.sendall(data.encode() + b"\r\n" if isinstance(data, str) else data)
        return self.reply()

    def greet(self) -> None:
        for expected, reply in (("220 ", self.reply), ("250 ", lambda: self.ask("EHLO client.example"))):
            said = reply()
            if said.startswith("421 "):
                raise ConnectionAbortedError(said)  # the daemon is about to end, or has no room
            assert said.startswith(expected), said

    def send_message(self, message: bytes, recipients: Sequence[str], way: str = "DATA") -> str:
        """The reply to the message, or the first refusal. way: DATA, BDAT, or PIPELINED up to DATA."""
        commands = ["MAIL FROM:<a@client.example>", *(f"RCPT TO:<{each}>" for each in recipients)]
        commands += ["DATA"] * (way != "BDAT")
        if way == "PIPELINED":
            self.socket.sendall("".join(f"{command}\r\n" for command in commands).encode())
        replies = [self.reply() if way == "PIPELINED" else self.ask(command) for command in commands]
        for reply in replies:
            if reply[0] in "45":
                self.ask("RSET")
                return reply
        if way == "BDAT":
            half = len(message) // 2
            first = self.ask(b"BDAT %d\r\n" % half + message[:half])
            if first[0] in "45":
                self.ask("RSET")
                return first
            rest = message[half:]
            return self.ask(b"BDAT %d LAST\r\n" % len(rest) + rest)
        return self.ask(stuffed(message) + b".\r\n")


def send_one(address: tuple[str, int], message: bytes = b"S: x\r\n\r\nhello\r\n", to: str = f"x@{MAIL}") -> str:
    """A session with one message; the reply to it."""
    with Client(address) as client:
        client.greet()
        return client.send_message(message, [to])


def replies(output: bytes) -> list[int]:
    """The codes; fails on anything that is not well-formed (RFC 5321 §4.2)."""
    codes: list[int] = []
    is_open = False
    *lines, rest = output.split(b"\r\n")
    assert rest == b"", "every reply ends in CRLF"
    for line in lines:
        match = _LINE.fullmatch(line)
        assert match and len(line) <= 510, line
        code = int(match[1])
        if is_open:
            assert codes[-1] == code
        else:
            codes.append(code)
        is_open = match[2] == b"-"
    assert not is_open
    return codes


def stuffed(message: bytes) -> bytes:
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:]


# Numbered messages


def message_of(number: int) -> bytes:
    """Lines, some of them with a leading dot; every 16th message is so large that it is spilled to disk early."""
    dice = random.Random(number)
    size = dice.randrange(280_000, 600_000) if number % 16 == 7 else dice.randrange(100, 6_000)
    digits = dice.randbytes(size // 2).hex()
    lines = [("." * (start % 3 == 0)) + digits[start : start + 70] for start in range(0, len(digits), 70)]
    return "\r\n".join([f"X-Number: {number}", "Subject: soak", "", *lines, f"end of {number}", ""]).encode()


def recipients_of(number: int) -> list[str]:
    """Every third message goes to the Maildir alone, the spool alone, and both."""
    mailbox, both = number % 5, number % 3 == 2
    return [f"box{mailbox}@{MAIL}"] * (number % 3 == 0 or both) + [f"x@{SPOOL}"] * (number % 3 == 1 or both)


class Load:
    """Clients in threads that send numbered messages until the end of the `with` block, whatever happens to them.

    accepted: answered 250.  refused: answered otherwise, and how.  What is in neither was cut off.
    """

    def __init__(self, daemon: RealDaemon, numbers: Iterator[int], clients: int = 6) -> None:
        self.accepted: set[int] = set()
        self.refused: dict[int, str] = {}
        self._daemon = daemon
        self._numbers = numbers
        self._is_over = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        assert not self._errors, self._errors

    def _run(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self._is_over.is_set():
            try:
                self._one_session(dice)
            except OSError:
                time.sleep(0.02)  # the daemon was killed, or turned us away: the next session may be luckier
            except BaseException as error:
                self._errors.append(error)
                return

    def _one_session(self, dice: random.Random) -> None:
        with Client(self._daemon.address) as client:
            client.greet()
            for _ in range(dice.randrange(1, 12)):
                if self._is_over.is_set():
                    return
                number = next(self._numbers)
                way = dice.choice(("DATA", "BDAT", "PIPELINED"))
                reply = client.send_message(message_of(number), recipients_of(number), way)
                if reply.startswith("250 "):
                    self.accepted.add(number)
                else:
                    self.refused[number] = reply

    def wait_for_accepted(self, count: int) -> None:
        goal = len(self.accepted) + count
        until(lambda: len(self.accepted) >= goal or self._errors, f"{count} more messages accepted")


def numbers() -> Iterator[int]:
    """For several loads that share one count."""
    return itertools.count(1)


# What is in the stores


class Shelves:
    """The stores of a daemon as their readers see them."""

    def __init__(self, root: Path) -> None:
        self._mail, self._spool = root / "mail", root / "spool"
        self._numbers: dict[Path, int] = {}

    def check(self, accepted: Collection[int], refused: Collection[int] = ()) -> None:
        """Whatever is visible is whole and there once; all that was accepted is there, nothing that was refused.

        What was refused because one of its two stores failed may be in the other: its client sends it again.
        """
        visible = {*self._mail.glob("*/new/*"), *self._spool.glob("*.json")}
        gone = self._numbers.keys() - visible
        assert not gone, f"disappeared: {gone}"
        for path in visible - self._numbers.keys():
            self._numbers[path] = self._read_json(path) if path.suffix == ".json" else self._read_maildir(path)
        mail = Counter(number for path, number in self._numbers.items() if path.suffix != ".json")
        spool = Counter(number for path, number in self._numbers.items() if path.suffix == ".json")
        assert max([*mail.values(), *spool.values()], default=1) == 1, "something is there twice"
        for number in accepted:
            domains = {recipient.partition("@")[2] for recipient in recipients_of(number)}
            assert (number in mail) == (MAIL in domains), f"lost: {number} from the Maildirs"
            assert (number in spool) == (SPOOL in domains), f"lost: {number} from the spool"
        for number in refused:
            there = (number in mail) + (number in spool)
            assert there < len(recipients_of(number)), f"refused, and there all the same: {number}"

    def _read_maildir(self, path: Path) -> int:
        data = path.read_bytes()
        names = dict(part.split("=") for part in path.name.split(",")[1:])
        assert int(names["S"]) == len(data), path
        return _number(path, data, b"\n")

    def _read_json(self, path: Path) -> int:
        data = path.with_suffix(".eml").read_bytes()
        envelope = json.loads(path.read_bytes())
        assert envelope["size"] == len(data), path
        assert f"{envelope['queue_id']}.json" == path.name
        return _number(path, data, b"\r\n")

    def leftovers(self) -> list[Path]:
        """Files in tmp/."""
        return [*self._mail.glob("*/tmp/*"), *self._spool.glob("tmp/*")]


def _number(path: Path, data: bytes, line_end: bytes) -> int:
    """The number of a stored message, which is whole behind our own fields."""
    match = re.search(rb"^X-Number: (\d+)\r?\n", data, re.MULTILINE)
    assert match, f"not even its head is there: {path}"
    number = int(match[1])
    assert data[match.start() :] == message_of(number).replace(b"\r\n", line_end), f"not whole: {path}"
    fields = data[: match.start()]
    assert fields.startswith(b"Return-Path: <a@client.example>" + line_end), path
    assert b"Received: from " in fields, path
    return number
