"""The command as programs call it, the daemon, and programs of Debian between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """\
hostname: mx.example.com
listeners:
  - {{name: local, listen: ["{root}/s"], role: internal}}
local_domains:
  mx.example.com: {{deliver: mail, mailboxes: [bob]}}
deliver_to:
  mail: {{type: maildir, path: "{root}/mail/{{mailbox}}"}}
relay_rules:
  - {{name: programs, listeners: [local], to_domains: [far.example], relay: "127.0.0.1:9"}}
queue: {{path: "{root}/queue"}}
sendmail: {{listener: local, drop: "{root}/drop"}}
workers: {workers}
"""


class House:
    def __init__(self, root: Path, *, workers: int = 1) -> None:
        self.root = root
        self.log = root / "log"
        (root / "smtp.yaml").write_text(CONFIG.format(root=root, workers=workers))
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("sendmail", "mailq"):
            script = root / name
            script.write_text(f"#!{sys.executable}\nfrom smtpmaild.cli import main\nmain()\n")
            script.chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SMTPMAILD_")},
            "SMTPMAILD_CONFIG": str(root / "smtp.yaml"),
            "PYTHONPATH": str(ROOT),
        }

    def start(self) -> None:
        before = self.log.read_text().count('"listening"') if self.log.exists() else 0
        command = [sys.executable, "-m", "smtpmaild", "--config", str(self.root / "smtp.yaml")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *["--allow-root"] * (os.geteuid() == 0)], stderr=log, cwd=ROOT)
        until(lambda: self.log.read_text().count('"listening"') > before)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def call(self, name: str, *arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [str(self.root / name), *arguments]
        return subprocess.run(command, input=text, env=self.environment, capture_output=True, timeout=60)

    def mail(self) -> Sequence[bytes]:
        return [path.read_bytes() for path in (self.root / "mail").glob("bob/new/*")]


def until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.end()


def test_mail_by_the_name_of_sendmail(house: House) -> None:
    house.start()
    done = house.call("sendmail", "-t", "-oem", "-i", text=b"To: bob\nBcc: bob\nSubject: x\n\n.\nHello\n")
    assert (done.returncode, done.stderr) == (0, b"")
    (message,) = house.mail()
    assert message.endswith(b"To: bob\nSubject: x\n\n.\nHello\n")
    assert b"Bcc" not in message
    unknown = house.call("sendmail", "carol", text=b"\nHello\n")
    assert (unknown.returncode, unknown.stderr) == (
        67,
        b"sendmail: <carol@mx.example.com>: 550 5.1.1 No such mailbox here\n",
    )


def test_mail_waits_for_the_daemon_and_survives_kills(house: House) -> None:
    house.start()
    until(lambda: (house.root / "drop" / "tmp").is_dir())
    house.end(signal.SIGKILL)
    for number in range(5):
        assert house.call("sendmail", "bob", text=f"Subject: {number}\n\n".encode()).returncode == 0
    assert house.mail() == []
    for _ in range(2):
        house.start()
        time.sleep(1.8)
        house.end(signal.SIGKILL)
    house.start()
    until(lambda: not [*(house.root / "drop").glob("*.json")])
    arrived = {line for message in house.mail() for line in message.splitlines() if line.startswith(b"Subject")}
    assert arrived == {b"Subject: %d" % number for number in range(5)}


def test_smtp_and_the_queue(house: House) -> None:
    house.start()
    lines = b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<x@far.example>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n"
    done = house.call("sendmail", "-bs", text=lines)
    assert done.returncode == 0
    replies = [line[:4] for line in done.stdout.splitlines() if line[3:4] == b" "]
    assert replies == [b"220 ", b"250 ", b"250 ", b"250 ", b"354 ", b"250 ", b"221 "]
    listed = house.call("mailq")
    assert listed.returncode == 0
    assert b"x@far.example" in listed.stdout
    assert house.call("sendmail", "-q").returncode == 0


def test_what_needs_no_daemon(house: House) -> None:
    assert house.call("sendmail", "-bi").returncode == 0
    assert b"-f SENDER" in house.call("sendmail", "--help").stdout
    wrong = house.call("sendmail", "-Z")
    assert (wrong.returncode, wrong.stderr) == (64, b"sendmail: unknown flag -Z\n")
    del house.environment["SMTPMAILD_CONFIG"]
    listed = house.call("mailq")
    assert (listed.returncode, listed.stderr) == (69, b"sendmail: `smtpmaild --config FILE queue list` does this\n")
    house.environment |= {"SMTPMAILD_SOCKET": str(house.root / "none"), "SMTPMAILD_DROP": str(house.root / "none")}
    assert house.call("sendmail", "bob", text=b"\n").returncode == 75


@pytest.mark.debian
def test_mailx_sends(house: House, needs_program: Callable[[str], str]) -> None:
    mailx = needs_program("bsd-mailx")
    house.start()
    (house.root / "mailrc").write_text(f"set sendmail={house.root}/sendmail\n")
    house.environment["MAILRC"] = str(house.root / "mailrc")
    done = subprocess.run(
        [mailx, "-s", "from mailx", "bob"], input=b"Hello\n", env=house.environment, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    until(house.mail)
    (message,) = house.mail()
    assert b"\nSubject: from mailx\n" in message
