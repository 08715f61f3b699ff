"""Two checkouts beside each other: what the server's processor time for a message is in each, and their ratio.

    python bench/trees.py plain=. compiled=../compiled [--store maildir|discard|queue] [--workers 1] [--rounds 16]

For a change before and after, or compiled rooms beside their sources; each tree brings its own .venv. They take turns
in bursts of half a second, with a connection kept and with one for each message, and the median of the best quarter
counts: whoever else is at work on the machine only makes it slower. The first tree named is the one others are
compared with.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from accounting import cpu_seconds
from load import HOST, Shape, send
from servers import MAILDIR, Running, Server, always, smtpmaild, started

SHAPES = {"kept": Shape(20, 4096, True), "a session each": Shape(20, 4096, False)}
#: Mail for a next hop that is not there: nothing but the queue is at work.
QUEUE = """\
hostname: mx.example.com
listeners: [{{name: bench, listen: ["{host}:{port}"]}}]
relay_rules: [{{name: on, to_domains: [example.com], relay: hop}}]
relays: {{hop: {{host: 127.0.0.1, port: 1}}}}
queue: {{path: queue, min_free: 0, retry_first: 30s}}
limits: {{connections: 30000, connections_per_ip: 30000}}
logging: {{format: json}}
workers: {workers}
allow_root: true
"""
STORES = {"maildir": MAILDIR, "discard": "{type: discard}"}


def server(name: str, tree: Path, store: str, workers: str) -> Server:
    def prepare(folder: Path, port: int) -> list[str]:
        if store == "queue":
            (folder / "smtp.yaml").write_text(QUEUE.format(host=HOST, port=port, workers=workers))
        else:
            smtpmaild(STORES[store], workers)(folder, port)
        return [str(tree / ".venv/bin/python"), "-P", "-m", "smtpmaild", "--config", str(folder / "smtp.yaml")]

    return Server(name, "", always, prepare, None)


def best(values: list[float], key: Callable[[float], float]) -> float:
    return statistics.median(sorted(values, key=key)[: max(1, len(values) // 4)])


def compare(running: dict[str, Running], shape: Shape, rounds: int, messages: int) -> None:
    costs: dict[str, list[float]] = {name: [] for name in running}
    rates: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(rounds + 1):  # the first one warms up
        for name in [*running][:: 1 if turn % 2 else -1]:
            one = running[name]
            before = cpu_seconds(one.pid)
            seconds = send(one.port, shape, messages)
            if turn:
                costs[name].append((cpu_seconds(one.pid) - before) / messages * 1e6)
                rates[name].append(messages / seconds)
    usual = best(next(iter(costs.values())), key=float)
    for name in running:
        each, rate = best(costs[name], key=float), best(rates[name], key=lambda value: -value)
        print(f"  {name:16} {each:6.1f} us CPU a message ({each / usual:.2f})  {rate:8,.0f} messages/s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+", metavar="NAME=DIRECTORY")
    parser.add_argument("--store", choices=[*STORES, "queue"], default="maildir")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--messages", type=int, default=2000)
    wanted = parser.parse_args()
    trees = {name: Path(tree).resolve() for name, _, tree in (one.partition("=") for one in wanted.trees)}
    folder = Path(tempfile.mkdtemp(prefix="trees-"))
    try:
        with contextlib.ExitStack() as stack:
            running = {
                name: stack.enter_context(started(server(name, tree, wanted.store, wanted.workers), folder / name))
                for name, tree in trees.items()
            }
            for title, shape in SHAPES.items():
                print(f"{wanted.store}, {title}")
                compare(running, shape, wanted.rounds, wanted.messages)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
