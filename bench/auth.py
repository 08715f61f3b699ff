"""How long a running session waits for its replies while others try passwords.

    python bench/auth.py [--attackers 100] [--seconds 10] [--workers 1]

So many sessions sign in by PLAIN with wrong passwords, each again as soon as it was refused, so that as many attempts
are always in flight. Beside them one session that has nothing to do with it goes on: NOOP, and messages of 4 KiB into a
store that discards them. The table has its replies without attackers and with them, for two ways to store passwords.
The attackers are a process of their own on the same machine; nothing leaves 127.0.0.0/8.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from argon2 import PasswordHasher
from load import HOST, Client

from smtpmaild.auth.schemes import hash_password

ROOT = Path(__file__).resolve().parent.parent
PAUSE = 0.005  # between two turns of the session that is measured
CONFIG = """\
hostname: mx.example.com
listeners: [{{name: bench, listen: ["{host}:0"], auth: optional, auth_without_tls: true}}]
accounts: {{users_file: users}}
local_domains: {{example.com: {{deliver: nowhere}}}}
deliver_to: {{nowhere: {{type: discard}}}}
limits: {{connections: 1000, connections_per_ip: 1000, bad_commands: 1000000}}
logging: {{format: json}}
workers: {workers}
event_loop: {loop}
allow_root: true
"""
HASHES: Mapping[str, Callable[[], str]] = {
    "argon2id as ours: 19 MiB, 2 passes, 1 lane": lambda: hash_password("right"),
    "argon2id as argon2-cffi's: 64 MiB, 3 passes, 4 lanes": lambda: f"{{ARGON2ID}}{PasswordHasher().hash('right')}",
}


@contextmanager
def daemon(folder: Path, hashed: str, workers: int, loop: str) -> Iterator[int]:
    """A running smtpmaild; its port."""
    users = folder / "users"
    users.write_text(f"alice:{hashed}\n")
    users.chmod(0o600)
    (folder / "smtp.yaml").write_text(CONFIG.format(host=HOST, workers=workers, loop=loop))
    log = folder / "log"
    command = [sys.executable, "-m", "smtpmaild", "--config", str(folder / "smtp.yaml")]
    with log.open("wb") as written:
        process = subprocess.Popen(command, cwd=ROOT, stderr=written)
    try:
        end = time.monotonic() + 30
        while '"listening"' not in log.read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        facts = [json.loads(line) for line in log.read_text().splitlines()]
        yield next(int(fact["address"].rpartition(":")[2]) for fact in facts if fact["event"] == "listening")
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(30)


async def greeted(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(HOST, port)
    await reader.readline()
    writer.write(b"EHLO attacker.example\r\n")
    while (await reader.readline())[3:4] == b"-":
        pass
    return reader, writer


async def attack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, refused: list[int]) -> None:
    """Try passwords for ever; each session another account that there is not, so that none of them is made to wait."""
    attempt = 0
    while True:
        guess = base64.b64encode(f"\0user{number}-{attempt}\0wrong".encode()).decode()
        writer.write(f"AUTH PLAIN {guess}\r\n".encode())
        reply = await reader.readline()
        if not reply.startswith(b"535"):
            raise RuntimeError(reply)
        refused[0] += 1
        attempt += 1


def attackers(port: int, count: int, seconds: float, pipe: multiprocessing.connection.Connection) -> None:
    """In a process of their own; says when it begins, and how many attempts were refused."""
    refused = [0]

    async def run() -> None:
        sessions = [await greeted(port) for _ in range(count)]
        tasks = [asyncio.ensure_future(attack(*one, number, refused)) for number, one in enumerate(sessions)]
        pipe.send("begun")
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        for task in tasks:
            task.cancel()

    asyncio.run(run())
    pipe.send(refused[0])


def measure(port: int, seconds: float) -> Mapping[str, Sequence[float]]:
    """Milliseconds of each reply."""
    taken: dict[str, list[float]] = {"NOOP": [], "message": []}
    client = Client(port)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.perf_counter()
        client.say("NOOP", b"250")
        taken["NOOP"].append(1000 * (time.perf_counter() - begun))
        begun = time.perf_counter()
        client.send(4096)
        taken["message"].append(1000 * (time.perf_counter() - begun))
        time.sleep(PAUSE)
    client.quit()
    return taken


def show(title: str, taken: Mapping[str, Sequence[float]], more: str = "") -> None:
    cells = []
    for what, times in taken.items():
        if len(times) < 2:  # a short run on a busy machine
            cells.append(f"{what}: too few")
            continue
        percentiles = statistics.quantiles(times, n=100)
        cells.append(f"{what}: median {statistics.median(times):.1f}, 99th {percentiles[98]:.1f}, max {max(times):.1f}")
    print(f"  {title:18} {' ms;  '.join(cells)} ms  {more}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--attackers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    options = parser.parse_args()
    os.environ.pop("SMTPMAILD_CONFIG", None)
    for name, make in HASHES.items():
        print(name)
        with (
            tempfile.TemporaryDirectory() as folder,
            daemon(Path(folder), make(), options.workers, options.loop) as port,
        ):
            show("alone", measure(port, options.seconds))
            ours, theirs = multiprocessing.Pipe()
            arguments = (port, options.attackers, options.seconds + 1.0, theirs)
            process = multiprocessing.get_context("spawn").Process(target=attackers, args=arguments)
            process.start()
            theirs.close()  # else nobody would notice that they have ended
            ours.recv()
            time.sleep(0.1)
            taken = measure(port, options.seconds)
            rate = ours.recv() / (options.seconds + 1.0)
            process.join()
            show(f"beside {options.attackers}", taken, f"({rate:.0f} passwords refused a second)")


if __name__ == "__main__":
    main()
