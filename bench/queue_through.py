"""Mail that travels on: how fast it is taken into the queue, how fast it passes through, and who slows whom.

    python bench/queue_through.py [--messages 5000] [--rounds 3] [--work var/bench]

Acceptance: smtp-source with 20 kept connections hands in messages of 4 KiB for a next hop that is not there, so nothing
but the queue is at work. Through-put: the same with smtp-sink as next hop, until that has all of them. Postfix stands
beside us in the same set-up, smtp-sink alone shows what the client and the kernel take. Neighbours: messages for 50
relays wait in the queue; 48 of them answer at once, and the other two answer too, or are dead and slow.

Rounds take turns, and the best of each counts; CPU is that of the server's processes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from accounting import cpu_seconds
from load import HOST
from queue_store import Log, message
from servers import (
    Running,
    Server,
    StartError,
    always,
    free_port,
    needs,
    prepare_postfix,
    prepare_smtp_sink,
    program,
    started,
    why_not_postfix,
)

from smtpmaild.queue import QueuedRecipient
from smtpmaild.queue.sqlite import SqliteQueue
from smtpmaild.smtp.address import Address

CONNECTIONS = 20
SIZE = 4096
RELAYS = 50
PATIENCE = 300.0
YAML = """\
hostname: mx.example.com
listeners: [{{name: bench, listen: ["{host}:{port}"]}}]
relay_rules: [{{name: on, to_domains: [example.com], relay: hop}}]
relays:
{relays}
queue: {{path: queue, min_free: 0, retry_first: 30s}}
limits: {{message_size: 1 GB, connections: 30000, connections_per_ip: 30000}}
logging: {{format: json, level: {level}}}
workers: {workers}
allow_root: true
"""
POSTFIX_RELAY = """\
smtp unix - - n - 100 smtp
relay unix - - n - 100 smtp
"""


def smtpmaild(relays: dict[str, int], workers: str = "1", level: str = "warning") -> Callable[[Path, int], list[str]]:
    """relays: name -> port."""

    def prepare(folder: Path, port: int) -> list[str]:
        lines = "\n".join(f"  {name}: {{host: {HOST}, port: {hop}}}" for name, hop in relays.items())
        (folder / "smtp.yaml").write_text(YAML.format(host=HOST, port=port, relays=lines, workers=workers, level=level))
        return [str(Path(sys.executable).with_name("smtpmaild")), "--config", str(folder / "smtp.yaml")]

    return prepare


def postfix(hop: int) -> Callable[[Path, int], list[str]]:
    def prepare(folder: Path, port: int) -> list[str]:
        command = prepare_postfix(folder, port)
        main, master = folder / "etc/main.cf", folder / "etc/master.cf"
        more = f"""\
virtual_mailbox_domains =
relay_domains = example.com
relay_transport = relay:[{HOST}]:{hop}
relay_destination_concurrency_limit = 100
mynetworks = 127.0.0.0/8
smtp_host_lookup = native
"""
        main.write_text(main.read_text() + more)
        master.write_text(master.read_text() + POSTFIX_RELAY)
        return command

    return prepare


@dataclass
class Result:
    """Of one round. cpu: seconds."""

    rate: float
    cpu: float


def feed(running: Running, count: int) -> None:
    subprocess.run(
        [program("smtp-source"), "-d", "-s", str(CONNECTIONS), "-l", str(SIZE), "-m", str(count)]
        + ["-f", "a@client.example", "-t", "user@example.com", f"inet:{HOST}:{running.port}"],
        check=True,
    )


@contextmanager
def sink(folder: Path, *options: str) -> Iterator[tuple[int, Callable[[], int]]]:
    """A next hop: its port, and how many messages it has."""
    port = free_port()
    user = ["-u", "nobody"] if program("smtp-sink") else []
    with (folder / f"sink-{port}").open("wb") as log:
        process = subprocess.Popen(
            ["stdbuf", "-o0", program("smtp-sink"), *user, "-c", *options, f"inet:{HOST}:{port}", "1024"], stdout=log
        )

        def taken() -> int:
            found = re.findall(rb"mesg=(\d+)", (folder / f"sink-{port}").read_bytes()[-400:])
            return int(found[-1]) if found else 0

        try:
            time.sleep(0.3)
            yield port, taken
        finally:
            process.terminate()
            process.wait()


def wait(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > until:
            raise SystemExit("LOST: not all of it came through in time")
        time.sleep(0.005)


def measured(running: Running, count: int, work: Callable[[], None]) -> Result:
    before, began = cpu_seconds(running.pid), time.monotonic()
    work()
    seconds = time.monotonic() - began
    return Result(count / seconds, (cpu_seconds(running.pid) - before) / count)


def acceptance(name: str, folder: Path, count: int) -> Result:
    dead = free_port()
    servers = {
        "smtpmaild": Server("smtpmaild", "", always, smtpmaild({"hop": dead}), None),
        "smtpmaild, 2 workers": Server("smtpmaild", "", always, smtpmaild({"hop": dead}, "2"), None),
        "Postfix": Server("Postfix", "", why_not_postfix, postfix(dead), None),
        "smtp-sink": Server("smtp-sink", "", needs("smtp-sink"), prepare_smtp_sink, None),
    }
    with started(servers[name], folder) as running:
        feed(running, CONNECTIONS)
        return measured(running, count, lambda: feed(running, count))


def through_put(name: str, folder: Path, count: int) -> Result:
    with ExitStack() as stack:
        hop, taken = stack.enter_context(sink(folder.parent))
        prepare = postfix(hop) if name == "Postfix" else smtpmaild({"hop": hop}, "2" if "2" in name else "1")
        running = stack.enter_context(started(Server(name, "", always, prepare, None), folder))

        def work() -> None:
            feed(running, count)
            wait(lambda: taken() >= count)

        return measured(running, count, work)


def neighbours(name: str, folder: Path, count: int) -> Result:
    """Until the 48 have everything."""
    with ExitStack() as stack:
        good, taken = stack.enter_context(sink(folder.parent))
        ports = dict.fromkeys([f"r{number}" for number in range(RELAYS)], good)
        expected = count // RELAYS * RELAYS
        if name == "one dead, one slow":
            slow, _ = stack.enter_context(sink(folder.parent, "-w", "1"))
            ports |= {"r0": free_port(), "r1": slow}
            expected = count // RELAYS * (RELAYS - 2)
        folder.mkdir()
        queue = SqliteQueue(str(folder / "queue"), Log())
        queue.open()
        entries = []
        for number in range(count // RELAYS * RELAYS):
            made, _ = message(number, SIZE, time.time())
            route = f"relay:r{number % RELAYS}"
            entries.append((made, [QueuedRecipient(0, Address("u", "d.test", "u@d.test"), route)]))
        for start in range(0, len(entries), 500):
            queue.put(entries[start : start + 500])
        queue.close()
        port = free_port()
        command = smtpmaild({**ports, "hop": good})(folder, port)
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
        try:
            wait(lambda: taken() > 0)
            began = time.monotonic()
            wait(lambda: taken() >= expected)
            return Result(expected / (time.monotonic() - began), cpu_seconds(process.pid) / expected)
        finally:
            process.kill()
            process.wait()


SCENARIOS: dict[str, tuple[Callable[[str, Path, int], Result], tuple[str, ...]]] = {
    "acceptance": (acceptance, ("smtpmaild", "smtpmaild, 2 workers", "Postfix", "smtp-sink")),
    "through-put": (through_put, ("smtpmaild", "smtpmaild, 2 workers", "Postfix")),
    "neighbours": (neighbours, ("all answer", "one dead, one slow")),
}


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("var/bench"))
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    for scenario in arguments.scenarios.split(","):
        play, names = SCENARIOS[scenario]
        results: dict[str, list[Result]] = {name: [] for name in names}
        for _ in range(arguments.rounds):
            for name in names:
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir(parents=True)
                try:
                    results[name].append(play(name, work / "server", arguments.messages))
                except StartError as error:
                    print(f"{scenario:12} {name:22} left out: {error}", flush=True)
        first = max((one.rate for one in results[names[0]]), default=0.0)
        for name, found in results.items():
            if not found:
                continue
            best, cpu = max(one.rate for one in found), min(one.cpu for one in found)
            ratio = f"x {first / best:5.2f}"
            print(f"{scenario:12} {name:22} {best:9,.0f}/s  {ratio}  {cpu * 1e6:7,.0f} us CPU each", flush=True)
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
