"""A daemon as users run it, for clients and readers that are not ours; and messages to send through it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

ROOT = Path(__file__).parents[2]
#: Longer than anything takes that works.
PATIENCE = 20.0

#: What our daemon puts in front of a message for one recipient, in a Maildir (RFC 5321 §4.4).
FIELDS = re.compile(
    rb"Return-Path: <[^\n]*>\nDelivered-To: (?P<recipient>[^\n]*)\n"
    rb"Received: from [^\n]*\n\tby mx\.example\.com with [^\n]*\n(?:\t\(version=[^\n]*\)\n)?(?:\tfor <[^\n]*>;\n)?"
    rb"\t\w{3}, \d+ \w{3} \d{4} \d\d:\d\d:\d\d \+0000\n"
)

#: `strict` is how a listener is by default; `lenient` takes whatever any corpus holds.
CONFIG = """\
hostname: mx.example.com
listeners:
  - {{name: strict, listen: ["127.0.0.1:0"]}}
  - {{name: lenient, listen: ["127.0.0.2:0"], long_lines: accept, body_line_length: 1000000, bare_newlines: keep}}
{listeners}
local_domains:
  example.com:
    deliver: mail
    subaddress: "+"
  bücher.example:
    deliver: mail
deliver_to:
  mail: {{type: maildir, path: "{mail}/{{domain}}/{{mailbox}}"}}
limits: {{connections_per_ip: 0}}
logging: {{format: json}}
"""


def write_config(folder: Path, more: str = "", listeners: str = "") -> Path:
    path = folder / "smtp.yaml"
    path.write_text(CONFIG.format(mail=folder / "mail", listeners=listeners) + more)
    return path


class Daemon:
    """`python -m smtpmaild --config smtp.yaml` in a folder of its own.

    listeners: more of them, as lines of the file.  inherited: a socket that it is given as systemd does, by its name.
    more: further sections of the file.
    """

    def __init__(
        self,
        folder: Path,
        listeners: str = "",
        inherited: Mapping[str, socket.socket] | None = None,
        more: str = "",
    ) -> None:
        self.folder = folder
        self._log = folder / "log"
        config = write_config(folder, more, listeners)
        command = [sys.executable, "-W", "error", "-m", "smtpmaild", "--allow-root", "--config", str(config)]
        with self._log.open("wb") as log:
            self._process = _start(command, inherited or {}, log)
        self._ports: dict[str, int] = {}

    def facts(self, event: str) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines()
        return [fact for line in lines if (fact := json.loads(line))["event"] == event]

    def port(self, listener: str = "strict") -> int:
        end = time.monotonic() + PATIENCE
        while listener not in self._ports:
            assert self._process.poll() is None and time.monotonic() < end, self._log.read_text()
            for fact in self.facts("listening"):
                if not fact["address"].startswith("/"):
                    self._ports[fact["listener"]] = int(fact["address"].rpartition(":")[2])
            time.sleep(0.02)
        return self._ports[listener]

    def maildir(self, mailbox: str, domain: str = "example.com") -> Path:
        return self.folder / "mail" / domain / mailbox

    def stored(self, mailbox: str, domain: str = "example.com") -> list[bytes]:
        """The messages of a mailbox without the fields we added, in order of arrival."""
        return [fields_and_message(raw)[1] for raw in self.raw(mailbox, domain)]

    def raw(self, mailbox: str, domain: str = "example.com") -> list[bytes]:
        new = self.maildir(mailbox, domain) / "new"
        return [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)


def _start(command: list[str], inherited: Mapping[str, socket.socket], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """sd_listen_fds(3): the sockets are descriptors from 3 on, and LISTEN_PID is the process that they are for."""
    if not inherited:
        return subprocess.Popen(command, cwd=ROOT, stderr=log)
    (sock,) = inherited.values()
    environment = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": ":".join(inherited)}
    number = sock.fileno()
    program = (
        "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid());"
        f"os.dup2({number}, 3); os.execv(sys.argv[1], sys.argv[1:])"
    )
    launcher = [sys.executable, "-c", program, *command]
    return subprocess.Popen(launcher, cwd=ROOT, stderr=log, env=environment, pass_fds=(number,))


@contextmanager
def running(folder: Path, listeners: str = "", more: str = "") -> Iterator[Daemon]:
    daemon = Daemon(folder, listeners, more=more)
    try:
        daemon.port()
        yield daemon
    finally:
        status = daemon.stop()
    assert status == 0
    assert daemon.facts("session_failed") == []


def fields_and_message(raw: bytes) -> tuple[re.Match[bytes], bytes]:
    """What we put in front, and the message as it was sent."""
    fields = FIELDS.match(raw)
    assert fields is not None, raw[:500]
    return fields, raw[fields.end() :]


def on_the_wire(text: bytes) -> bytes:
    """A message with CRLF line ends, the last line included, as clients send it."""
    wire = text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return wire if wire.endswith(b"\r\n") or not wire else wire + b"\r\n"


def in_the_maildir(wire: bytes) -> bytes:
    return wire.replace(b"\r\n", b"\n")


class Lines:
    """A raw client: sends what it is told, reads replies."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), PATIENCE)
        self._replies = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._replies.close()
        self.socket.close()

    def codes(self, count: int) -> list[str]:
        """The codes of so many replies."""
        codes: list[str] = []
        while len(codes) < count:
            line = self._replies.readline().decode()
            assert line, f"closed after {codes}"
            if line[3:4] != "-":
                codes.append(line[:3])
        return codes

    def send_message(self, wire: bytes, recipient: str) -> list[str]:
        """One transaction in one piece; the codes of its four replies."""
        stuffed = (b"\r\n" + wire).replace(b"\r\n.", b"\r\n..")[2:]
        commands = f"MAIL FROM:<sender@client.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
        self.socket.sendall(commands.encode() + stuffed + b".\r\n")
        return self.codes(4)


def send_all(daemon: Daemon, messages: Iterable[tuple[str, bytes]]) -> None:
    """(recipient, message as it goes over the wire), all in one session of the lenient listener, each acknowledged."""
    with Lines(daemon.port("lenient"), "127.0.0.2") as client:
        client.socket.sendall(b"EHLO client.example\r\n")
        assert client.codes(2) == ["220", "250"]
        for recipient, wire in messages:
            assert client.send_message(wire, recipient) == ["250", "250", "354", "250"], (recipient, wire[:200])


def user_of_tests() -> dict[str, int]:
    """As whom a program runs that refuses root: arguments for subprocess."""
    return {} if os.getuid() else {"user": 65534, "group": 65534}
