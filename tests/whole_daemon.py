"""A daemon as people start it, by a configuration of the test, and a client of it."""

from __future__ import annotations

import json
import os
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

ROOT = Path(__file__).resolve().parents[1]
#: Seconds; longer than anything takes that works.
PATIENCE = 30.0
_T = TypeVar("_T")


def until(find: Callable[[], _T], what: str) -> _T:
    """What is found, as soon as it is something."""
    end = time.monotonic() + PATIENCE
    while not (found := find()):
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.02)
    return found


class WholeDaemon:
    """Runs within the block. text: of its configuration, which logs JSON; its first listener has port 0."""

    def __init__(self, folder: Path, text: str) -> None:
        self.path = folder / "smtp.yaml"
        self.port = 0
        self._log = folder / "log"
        self.path.write_text(text)
        command = [sys.executable, "-W", "error", "-m", "smtpmaild", "--config", str(self.path)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, *["--allow-root"] * (os.geteuid() == 0)], stderr=log, cwd=ROOT)

    def __enter__(self) -> Self:
        def address() -> str:
            assert self.process.poll() is None, self._log.read_text()
            return next((str(one["address"]) for one in self.logged("listening")), "")

        try:
            self.port = int(until(address, "it listens").rpartition(":")[2])
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
        if error is not None:
            print(self._log.read_text()[-4000:])

    @property
    def said(self) -> str:
        """All of its standard error."""
        return self._log.read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The facts of this name; a line that is still being written is none."""
        facts = (json.loads(line) for line in self.said.split("\n")[:-1] if line.startswith("{"))
        return [fact for fact in facts if fact["event"] == event]

    def rcpt(self, *recipients: str) -> list[int]:
        """The codes that recipients get from this machine, in a session of their own."""
        with smtplib.SMTP("127.0.0.1", self.port, "client.example", timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("a@sender.example")
            return [client.rcpt(one)[0] for one in recipients]

    def send(self, recipient: str) -> str:
        """Hand a message in; its queue id."""
        with smtplib.SMTP("127.0.0.1", self.port, "client.example", timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("a@sender.example")
            client.rcpt(recipient)
            code, reply = client.data(b"Subject: hello\r\n\r\nIt works.\r\n")
            assert code == 250, reply
            return reply.decode().split()[-1]
