"""`make bench`: smtpmaild beside the servers that are installed here, on the same disk, in one run.

    python bench/run.py [--scenarios connections,kept,large,idle,one] [--servers 'smtpmaild;Postfix'] [--rounds 3]

Servers take turns within each round, so that a machine that grows slower does so for all of them. A server is started
for each run in a folder that was never used: ext4 does not reuse inodes freed in the last minutes and walks over all of
them at each create, so nothing small is deleted before the end. Every acknowledged message must be found in the
Maildir afterwards, or the table says LOST. Nothing leaves 127.0.0.0/8, and every run is bounded.

CPU is that of the server with all its processes, until everything is stored; the load generator shares the machine and
is not counted. Numbers are medians of the rounds; differences below a quarter are none on most machines.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import load
from accounting import cpu_seconds, forget_highest_memory, memory
from load import IdleSessions, Shape
from servers import SERVERS, SMTPMAILD, Running, Server, StartError, raise_descriptor_limit, started

ROOT = Path(__file__).resolve().parent.parent
#: No run writes more than this.
MOST_BYTES = 1 << 30
#: A server that stores nothing more for so long has lost what is missing.
SECONDS_TO_SETTLE = 10
LARGE_MESSAGE = 200_000_000
MIB = 1 << 20
#: Whoever has a process for each session is not asked to hold thousands.
MANY_SESSIONS = ("smtpmaild, one worker", "aiosmtpd Mailbox")
ONE_MESSAGE = ("smtpmaild, one worker", "Postfix", "aiosmtpd Mailbox", "smtp-sink")

LOADS = {
    "connections": ("a connection for each message: 4 KiB, 20 sessions", Shape(20, 4096, is_kept=False)),
    "kept": ("kept connections: 4 KiB, 20 sessions", Shape(20, 4096, is_kept=True)),
    "large": ("large messages: 1 MiB, a connection each, 10 sessions", Shape(10, MIB, is_kept=False)),
}


@dataclass(frozen=True)
class Throughput:
    """One run: messages a second as acknowledged, CPU seconds for a thousand, messages acknowledged but not found."""

    rate: float
    cpu: float
    lost: int


def settle(running: Running, expected: int) -> int:
    """Wait until so many messages are in the Maildir; the number that is missing for good."""
    if running.server.mail is None:
        return 0
    stored, changed_at = running.stored(), time.monotonic()
    while stored < expected and time.monotonic() - changed_at < SECONDS_TO_SETTLE:
        time.sleep(0.1)
        before, stored = stored, running.stored()
        if stored != before:
            changed_at = time.monotonic()
    return expected - stored


def throughput(running: Running, shape: Shape, seconds: float) -> Throughput:
    """Two short runs find how many messages last about so many seconds; the third one counts."""
    sent, count = 0, 4 * shape.sessions
    for part in (0.1, 1.0):
        took = load.send(running.port, shape, count)
        sent += count
        settle(running, sent)
        count = max(4 * shape.sessions, min(int(count / took * seconds * part), MOST_BYTES // shape.size))
    os.sync()
    before = cpu_seconds(running.pid)
    took = load.send(running.port, shape, count)
    lost = settle(running, sent + count)
    return Throughput(count / took, (cpu_seconds(running.pid) - before) / count * 1000, lost)


def chosen(names: Sequence[str], folder: Path) -> list[Server]:
    """The servers that were asked for (none named: all), can run here, and greet when they are started in a folder."""
    servers: list[Server] = []
    for server in SERVERS:
        if names and server.name not in names:
            continue
        try:
            if reason := server.why_not():
                raise StartError(reason)
            with started(server, folder / f"first-{len(servers)}"):
                servers.append(server)
        except StartError as error:
            print(f"{server.name} is left out: {error}")
            shutil.rmtree(folder / f"first-{len(servers)}", ignore_errors=True)
    return servers


def among(servers: Sequence[Server], names: Sequence[str]) -> Iterator[Server]:
    return (server for server in servers if server.name in names)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be, the first one to the left; nothing where there is only the heading."""
    if len(rows) == 1:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  " + "  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    print(flush=True)


def compare(title: str, shape: Shape, servers: Sequence[Server], rounds: int, seconds: float, folder: Path) -> None:
    print(title, flush=True)
    runs: dict[str, list[Throughput]] = {server.name: [] for server in servers}
    for turn in range(rounds):
        for server in servers:
            own = folder / f"{turn}-{servers.index(server)}"
            with started(server, own) as running:
                runs[server.name].append(throughput(running, shape, seconds))
            if shape.size >= MIB:
                shutil.rmtree(own)  # few inodes, much space
    medians = {name: statistics.median(run.rate for run in of) for name, of in runs.items()}
    ours = medians.get(SMTPMAILD.name)
    rows = [["", "before the 250", "messages/s", "lowest", "highest", "CPU s/1000", "smtpmaild is", ""]]
    for server in servers:
        of, median = runs[server.name], medians[server.name]
        lost = sum(run.lost for run in of)
        cpu = statistics.median(run.cpu for run in of)
        rows.append(
            [server.name, server.promise, f"{median:,.0f}", f"{min(run.rate for run in of):,.0f}"]
            + [f"{max(run.rate for run in of):,.0f}", f"{cpu:.3f}", f"x {ours / median:.2f}" if ours else ""]
            + [f"LOST {lost}" if lost else ""]
        )
    table(rows)


def idle(servers: Sequence[Server], count: int, folder: Path) -> None:
    """What a session costs that said EHLO and waits, and whether others are still served."""
    count = min(count, raise_descriptor_limit() - 256)
    print(f"{count:,} idle sessions")
    rows = [["", "KiB each", "MiB in all", "greeted/s", "a new message takes"]]
    for server in among(servers, MANY_SESSIONS):
        with started(server, folder / server.name.replace(" ", "-")) as running:
            load.send_one(running.port, 4096)
            before, sessions, began = memory(running.pid, "VmRSS"), IdleSessions(running.port), time.monotonic()
            with contextlib.closing(sessions):
                sessions.open(count)
                took = time.monotonic() - began
                after = memory(running.pid, "VmRSS")
                began = time.monotonic()
                load.send_one(running.port, 4096)
                beside = time.monotonic() - began
        rows.append([server.name, f"{(after - before) / 1024 / count:.1f}", f"{after / MIB:.0f}"])
        rows[-1] += [f"{count / took:,.0f}", f"{beside * 1000:.0f} ms"]
    table(rows)


def one_message(servers: Sequence[Server], folder: Path) -> None:
    """How much memory one large message takes while it passes."""
    print(f"one message of {LARGE_MESSAGE // 1_000_000} MB")
    rows = [["", "memory grows by", "seconds"]]
    for server in among(servers, ONE_MESSAGE):
        own = folder / server.name.replace(" ", "-")
        with started(server, own) as running:
            load.send_one(running.port, MIB)
            before, began = memory(running.pid, "VmRSS"), time.monotonic()
            forget_highest_memory(running.pid)
            load.send_one(running.port, LARGE_MESSAGE)
            took = time.monotonic() - began
            grown = memory(running.pid, "VmHWM") - before
        shutil.rmtree(own)
        rows.append([server.name, f"{grown / MIB:.1f} MiB", f"{took:.2f}"])
    table(rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default=",".join([*LOADS, "idle", "one"]), help="separated by commas")
    parser.add_argument(
        "--servers", default="", help="only these, separated by semicolons; smtpmaild is what all compare to"
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each server under each load")
    parser.add_argument("--seconds", type=float, default=4, help="about how long a run lasts, at most 30")
    parser.add_argument("--idle", type=int, default=15_000, help="idle sessions")
    parser.add_argument("--work", type=Path, default=ROOT / "var/bench", help="where servers store: a real disk")
    return parser.parse_args()


def main() -> int:
    wanted = arguments()
    raise_descriptor_limit()
    folder: Path = wanted.work.resolve() / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    # ext4 then spreads the folders in it over the disk, away from what others have deleted.
    subprocess.run(["chattr", "+T", str(folder)], capture_output=True, check=False)
    if load.SMTP_SOURCE is None:
        print("smtp-source is missing (Debian's postfix has it): the load comes from Python and may be the limit")
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}, mail below {folder}\n")
    servers = chosen([name.strip() for name in wanted.servers.split(";") if name.strip()], folder)
    scenarios: dict[str, Callable[[Path], None]] = {
        "idle": lambda own: idle(servers, wanted.idle, own),
        "one": lambda own: one_message(servers, own),
    }
    for name in wanted.scenarios.split(","):
        if name in LOADS:
            compare(*LOADS[name], servers, wanted.rounds, min(wanted.seconds, 30), folder / name)
        else:
            scenarios[name](folder / name)
    print(f"Remove {folder} when you are done with measuring: after a large deletion ext4 is slow for minutes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
