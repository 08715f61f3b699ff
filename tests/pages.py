"""The pages of the manual as tests read them: their blocks, and a shell for the commands in them.

What the first line of a ```yaml block says:

    # smtp.yaml                          a whole configuration (any name in .yaml); what follows a colon is for readers
    # part of smtp.yaml                  sections of one; the test adds what they refer to
    # part of a listener in smtp.yaml    keys of a listener
    # wrong: smtp.yaml                   a whole configuration with mistakes
    # compose.yaml of Docker             a file of another program: YAML, and no more

```console blocks are sessions in a shell: what stands behind "$ " is typed, what follows is printed, also on standard
error. `...` stands for any text on a line, and alone on a line for any lines. The blocks of a page are one session, in
a folder that has the whole configurations of the page as files. `smtpmaild` runs in this process, unless a line needs a
shell. Ports that those configurations name on 127.0.0.1 are replaced by free ones, and back in what is printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from smtpmaild.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Longer than any command takes.
PATIENCE = 20.0

_BLOCK = re.compile(r"^(?P<indent> *)```(?P<kind>[a-z]*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
_WHOLE = re.compile(r"# (?P<wrong>wrong: )?(?P<name>[\w-]+\.yaml)(?: of (?P<program>[^:\n]+))?(?::.*)?\n")
#: A command of ours that needs no shell, maybe behind one that does.
_OURS = re.compile(
    r"(?:(?P<before>.*?)(?P<joint>; | \| ))?"
    r"(?P<ours>smtpmaild (?:[^|<>&;$`\"']|\"[^\"$`]*\"|'[^']*')*(?:< \S+)?)"
)


@dataclass(frozen=True)
class Block:
    """kind: what stands behind the backticks.  line: that of its first line."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file(self) -> re.Match[str] | None:
        """Of a whole file: its `name`, the `program` whose file it is, if not ours, and whether it is `wrong`."""
        return _WHOLE.match(self.text) if self.kind == "yaml" else None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, match.start()) + 2, match["kind"], match["text"])
        for match in _BLOCK.finditer(text)
    ]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", page.read_text())


#: Every block of every page.
BLOCKS = [block for page in PAGES for block in blocks(page)]


@dataclass
class Shell:
    """A session: a folder, an environment, the ports of the page, and the daemons it has started."""

    folder: Path
    environment: dict[str, str]
    ports: dict[str, str] = field(default_factory=dict)
    status: int = 0
    _daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def in_folder(cls, folder: Path) -> Shell:
        """A fresh one; `smtpmaild` in its PATH is ours."""
        tools = folder / ".bin"
        tools.mkdir()
        (tools / "smtpmaild").write_text(f'#!/bin/sh\nexec {sys.executable} -m smtpmaild "$@"\n')
        (tools / "smtpmaild").chmod(0o755)
        own = {name: value for name, value in os.environ.items() if not name.startswith("SMTPMAILD_")}
        path = f"{tools}{os.pathsep}{own.get('PATH', os.defpath)}"
        changes = {"PATH": path, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": "100"}
        return cls(folder, {**own, **changes})

    def write(self, name: str, text: str) -> None:
        """A file of the page, with free ports for those that it names."""
        for port in re.findall(r"127\.0\.0\.1:([1-9]\d+)", text):
            if port not in self.ports:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", 0))
                    self.ports[port] = str(probe.getsockname()[1])
        (self.folder / name).write_text(_replaced(text, self.ports))

    def run(self, line: str) -> str:
        """What a line prints."""
        printed = self._run(_replaced(line, self.ports))
        return _replaced(printed, {ours: shown for shown, ours in self.ports.items()})

    def _run(self, line: str) -> str:
        if line == "echo $?":
            status, self.status = self.status, 0
            return f"{status}\n"
        if match := re.fullmatch(r"export (\w+)=(\S*)", line):
            self.environment[match[1]] = match[2]
            return ""
        if line == "kill %1":
            return self.end()
        if line.endswith(" &"):
            return self._start(line.removesuffix(" &"))
        if match := _OURS.fullmatch(line):
            before = self._shell(match["before"]) if match["before"] else ""
            is_piped = match["joint"] == " | "
            printed = self._ours(match["ours"], before if is_piped else "")
            if match["ours"].startswith("smtpmaild drain "):
                self.end(by_itself=True)
            return printed if is_piped else before + printed
        return self._shell(line)

    def _shell(self, line: str) -> str:
        ran = subprocess.run(
            ["sh", "-c", line], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False,
        )  # fmt: skip
        self.status = ran.returncode
        return ran.stdout.decode()

    def _ours(self, line: str, given: str) -> str:
        """A command of ours, in this process: a new one would take half a second."""
        command, _, path = line.partition(" < ")
        data = (self.folder / path).read_bytes() if path else given.encode()
        printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.environment, clear=True),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            try:
                main(shlex.split(command)[1:])
            except SystemExit as ended:
                self.status = ended.code if isinstance(ended.code, int) else 1
        printed.seek(0)
        return printed.read()

    def _start(self, line: str) -> str:
        """A daemon in the background; what it has said by the time that it listens."""
        words = shlex.split(line)
        if os.geteuid() == 0:
            words.insert(1, "--allow-root")
        log = self.folder / ".log"
        with log.open("wb") as written, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(f"{self.folder}/.notify")
            told.settimeout(PATIENCE)
            environment = {**self.environment, "NOTIFY_SOCKET": f"{self.folder}/.notify"}
            daemon = subprocess.Popen(words, cwd=self.folder, env=environment, stdout=written, stderr=written)
            self._daemons.append(daemon)
            while b"READY=1" not in told.recv(65536):
                pass
        os.unlink(f"{self.folder}/.notify")
        return log.read_text()

    def end(self, *, by_itself: bool = False) -> str:
        """Stop the daemons, but for those that were told to end; what they have said since their start."""
        said = ""
        for daemon in self._daemons:
            if not by_itself:
                daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(PATIENCE) == 0
            said = (self.folder / ".log").read_text()
        self._daemons.clear()
        return said


@contextlib.contextmanager
def shell_in(folder: Path) -> Iterator[Shell]:
    shell = Shell.in_folder(folder)
    try:
        yield shell
    finally:
        shell.end()


def commands(text: str) -> list[tuple[str, str]]:
    """Each line of a session with what it is said to print. A backslash at its end, or `<< END`, makes it go on."""
    found: list[tuple[str, str]] = []
    ends_with = ""
    for line in re.sub(r" *\\\n *", " ", text).splitlines():
        if ends_with:
            found[-1] = (f"{found[-1][0]}\n{line}", "")
            ends_with = ends_with if line != ends_with else ""
        elif line.startswith("$ "):
            found.append((line[2:], ""))
            ends_with = line.partition("<< ")[2]
        else:
            command, printed = found.pop()
            found.append((command, f"{printed}{line}\n"))
    return found


def is_like(printed: str, shown: str) -> bool:
    """What was printed is what the page shows, with its wildcards."""
    lines = [
        r"(?:.*\n)*?" if line == "..." else ".*?".join(map(re.escape, line.split("..."))) + r"\n"
        for line in shown.splitlines()
    ]
    return re.fullmatch("".join(lines), printed) is not None


def _replaced(text: str, ports: Mapping[str, str]) -> str:
    for port, other in ports.items():
        text = re.sub(rf"(?<!\d){port}(?!\d)", other, text)
    return text
