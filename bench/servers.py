"""The servers that `make bench` compares, and how each is started: in the foreground, on loopback, in its own folder.

What they promise before the 250 differs, and the table says it: smtpmaild has synced the message and its name,
Postfix its queue file (delivery into the Maildir comes after), aiosmtpd's Mailbox handler the message but not its
name, smtp-sink throws it away.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from accounting import family
from load import HOST

SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
SECONDS_TO_START = 30
SECONDS_TO_STOP = 15
SMTPMAILD_YAML = """\
hostname: mx.example.com
listeners:
  - {{name: bench, listen: ["{host}:{port}"]}}
local_domains:
  example.com: {{deliver: mail}}
deliver_to:
  mail: {store}
limits: {{message_size: 1 GB, connections: 30000, connections_per_ip: 30000}}
logging: {{format: json}}
workers: {workers}
allow_root: true
"""
POSTFIX_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
myhostname = mx.example.com
inet_interfaces = {host}
inet_protocols = ipv4
mydestination =
mynetworks =
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = example.com
virtual_mailbox_base = {folder}
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:{user}
virtual_gid_maps = static:{group}
virtual_mailbox_limit = 0
message_size_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_peername_lookup = no
in_flow_delay = 0
"""
POSTFIX_MASTER = """\
{host}:{port} inet n - n - 100 smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
virtual unix - n n - 20 virtual
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
"""


class StartError(Exception):
    """A server cannot take part; the text says why."""


@dataclass(frozen=True)
class Server:
    """promise: what the 250 stands for.  why_not: the reason why it cannot run here, "" if it can.

    prepare: writes what the server needs into an empty folder and gives its command.  mail: where messages appear
    below that folder, None where none do.
    """

    name: str
    promise: str
    why_not: Callable[[], str]
    prepare: Callable[[Path, int], list[str]]
    mail: str | None


@dataclass(frozen=True)
class Running:
    """A started server."""

    server: Server
    folder: Path
    port: int
    pid: int

    def stored(self) -> int:
        """Messages in its Maildir."""
        if self.server.mail is None:
            return 0
        try:
            with os.scandir(self.folder / self.server.mail) as entries:
                return sum(1 for _ in entries)
        except FileNotFoundError:
            return 0


def program(name: str) -> str:
    return shutil.which(name, path=SEARCH_PATH) or ""


def needs(name: str) -> Callable[[], str]:
    return lambda: "" if program(name) else f"{name} is not installed"


def always() -> str:
    return ""


def smtpmaild(store: str, workers: str) -> Callable[[Path, int], list[str]]:
    def prepare(folder: Path, port: int) -> list[str]:
        config = folder / "smtp.yaml"
        config.write_text(SMTPMAILD_YAML.format(host=HOST, port=port, store=store, workers=workers))
        return [str(Path(sys.executable).with_name("smtpmaild")), "--config", str(config)]

    return prepare


def why_not_postfix() -> str:
    return "" if os.geteuid() == 0 else "it starts as root only"


def prepare_postfix(folder: Path, port: int) -> list[str]:
    owner = pwd.getpwnam("nobody")
    for name in ("etc", "queue", "data", "mail"):
        (folder / name).mkdir()
    os.chown(folder / "data", pwd.getpwnam("postfix").pw_uid, -1)
    os.chown(folder / "mail", owner.pw_uid, owner.pw_gid)
    values = {"folder": folder, "host": HOST, "port": port, "user": owner.pw_uid, "group": owner.pw_gid}
    (folder / "etc/main.cf").write_text(POSTFIX_MAIN.format(**values))
    (folder / "etc/master.cf").write_text(POSTFIX_MASTER.format(**values))
    return [program("postfix"), "-c", str(folder / "etc"), "start-fg"]


def prepare_smtp_sink(_folder: Path, port: int) -> list[str]:
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    return [program("smtp-sink"), *user, f"inet:{HOST}:{port}", "1024"]


def why_not_aiosmtpd() -> str:
    return "" if importlib.util.find_spec("aiosmtpd") else "pip install aiosmtpd"


def prepare_aiosmtpd(folder: Path, port: int) -> list[str]:
    handler = ["-c", "aiosmtpd.handlers.Mailbox", str(folder / "mail")]
    return [
        sys.executable,
        "-m",
        "aiosmtpd",
        "--nosetuid",
        "--size",
        str(1 << 30),
        "--listen",
        f"{HOST}:{port}",
        *handler,
    ]


MAILDIR = '{type: maildir, path: "mail/{mailbox}"}'
#: The same for servers in folders beside each other: where a directory lies on the disk makes 90 us CPU a file.
SHARED_MAILDIR = '{type: maildir, path: "../mail/{mailbox}"}'
SMTPMAILD = Server("smtpmaild", "message and name synced", always, smtpmaild(MAILDIR, "auto"), "mail/user/new")
SERVERS = (
    SMTPMAILD,
    Server("smtpmaild, one worker", "message and name synced", always, smtpmaild(MAILDIR, "1"), "mail/user/new"),
    Server("smtpmaild, discard", "nothing is stored", always, smtpmaild("{type: discard}", "auto"), None),
    Server(
        "Postfix", "queue file synced", lambda: needs("postfix")() or why_not_postfix(), prepare_postfix, "mail/new"
    ),
    Server("aiosmtpd Mailbox", "message synced", why_not_aiosmtpd, prepare_aiosmtpd, "mail/new"),
    Server("smtp-sink", "nothing is stored", needs("smtp-sink"), prepare_smtp_sink, None),
)


def raise_descriptor_limit() -> int:
    """As many descriptors as we may have, for us and the servers we start; the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """Below those that the system gives to whoever asks for any, so that nobody gets it before our server has it."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            return port


def greets(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=5) as probe:
            return probe.recv(512).startswith(b"220")
    except OSError:
        return False


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-300:]


@contextlib.contextmanager
def started(server: Server, folder: Path) -> Iterator[Running]:
    """The server in a folder of its own, from its first greeting on; it and all it started are gone afterwards."""
    folder.mkdir(parents=True)
    port = free_port()
    command = server.prepare(folder, port)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        until = time.monotonic() + SECONDS_TO_START
        while not greets(port):
            if process.poll() is not None or time.monotonic() > until:
                raise StartError(f"it does not greet; the end of its log is {tail(folder / 'log')!r}")
            time.sleep(0.05)
        yield Running(server, folder, port, process.pid)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    members = list(family(process.pid))
    process.terminate()
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in members[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
