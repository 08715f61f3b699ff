"""A Postfix of our own: Debian's programs, with a configuration, a queue and a log below one directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from daemons import PATIENCE

#: No network service: mail comes in by sendmail(1). What is for elsewhere, bounces above all, is dropped.
MASTER = """\
postlog    unix-dgram n - n - 1 postlogd
pickup     unix n - n 1 1 pickup
cleanup    unix n - n - 0 cleanup
qmgr       unix n - n 1 1 qmgr
rewrite    unix - - n - - trivial-rewrite
bounce     unix - - n - 0 bounce
defer      unix - - n - 0 bounce
trace      unix - - n - 0 bounce
error      unix - - n - - error
retry      unix - - n - - error
discard    unix - - n - - discard
showq      unix n - n - - showq
smtp       unix - - n - - smtp
lmtp       unix - - n - - lmtp
"""
MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = {sbin}
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = relay.example.net
inet_interfaces = loopback-only
mydestination =
alias_maps =
alias_database =
default_transport = discard
"""


class Postfix:
    """folder: readable by everybody, as its processes are those of the user postfix.  services: more of master.cf."""

    def __init__(self, folder: Path, program: str, settings: Mapping[str, str], services: str = "") -> None:
        self._program = program
        self._sbin = Path(program).parent
        self._configuration = folder / "etc"
        self._log = folder / "log"
        for name in ("etc", "queue", "data"):
            (folder / name).mkdir()
        shutil.chown(folder / "data", "postfix")
        (folder / "etc" / "master.cf").write_text(MASTER + services)
        more = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (folder / "etc" / "main.cf").write_text(MAIN.format(folder=folder, sbin=self._sbin) + more)

    def _run(self, *command: str, stdin: bytes = b"") -> str:
        ran = subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE, check=False)
        output = ran.stdout.decode() + ran.stderr.decode()
        assert ran.returncode == 0, output + self.log
        return output

    def _own(self, name: str, *arguments: str, stdin: bytes = b"") -> str:
        return self._run(str(self._sbin / name), "-c", str(self._configuration), *arguments, stdin=stdin)

    def start(self) -> None:
        self._own("postfix", "start")

    def stop(self) -> None:
        self._own("postfix", "stop")

    def send(self, sender: str, recipients: Sequence[str], message: bytes) -> None:
        """Put a message into the queue, as programs of its machine do."""
        sendmail = str(self._sbin / "sendmail")
        self._run(sendmail, "-C", str(self._configuration), "-f", sender, "-i", *recipients, stdin=message)

    def flush(self) -> None:
        """Try everything that was deferred again."""
        self._own("postqueue", "-f")

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def statuses(self, service: str) -> list[tuple[str, str, str]]:
        """(recipient, status, what the other side said) of each delivery by this service, as far as it is known."""
        pattern = rf"postfix/{service}\[\d+\]: \w+: to=<([^>]*)>, .*status=(\w+) \((.*)\)$"
        return re.findall(pattern, self.log, re.MULTILINE)

    def wait_for(self, service: str, count: int) -> list[tuple[str, str, str]]:
        """The same, when there are so many."""
        end = time.monotonic() + PATIENCE
        while len(found := self.statuses(service)) < count:
            assert time.monotonic() < end, self.log
            time.sleep(0.05)
        return found


@contextmanager
def open_folder() -> Iterator[Path]:
    """A directory that every user may look into, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="smtpmaild-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def postfix(folder: Path, program: str, settings: Mapping[str, str], services: str = "") -> Iterator[Postfix]:
    """It runs, with these lines of main.cf and master.cf beside those above."""
    it = Postfix(folder, program, settings, services)
    it.start()
    try:
        yield it
    finally:
        it.stop()
