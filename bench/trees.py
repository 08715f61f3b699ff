"""Checkouts beside each other: what a message costs the server in each, and how they compare with the first.

    python bench/trees.py plain=. compiled=../compiled [--store maildir|discard|queue] [--workers 1] [--rounds 24]

For a change before and after, or compiled rooms beside their sources; each tree brings its own .venv. They take turns
(turns.py) with a connection kept and with one for each message.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

from load import Shape
from queue_through import smtpmaild as relaying
from servers import SHARED_MAILDIR, Server, always, smtpmaild, started
from turns import show, take_turns

SHAPES = {"kept": Shape(20, 4096, True), "a session each": Shape(20, 4096, False)}
STORES = {"maildir": SHARED_MAILDIR, "discard": "{type: discard}"}


def server(name: str, tree: Path, store: str, workers: str) -> Server:
    def prepare(folder: Path, port: int) -> list[str]:
        if store == "queue":  # for a next hop that is not there: nothing but the queue is at work
            relaying({"hop": 1}, workers, level="info")(folder, port)
        else:
            smtpmaild(STORES[store], workers)(folder, port)
        return [str(tree / ".venv/bin/python"), "-P", "-m", "smtpmaild", "--config", str(folder / "smtp.yaml")]

    return Server(name, "", always, prepare, None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+", metavar="NAME=DIRECTORY")
    parser.add_argument("--store", choices=[*STORES, "queue"], default="maildir")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--messages", type=int, default=1000)
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
                show(take_turns(running, shape, wanted.rounds, wanted.messages))
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
