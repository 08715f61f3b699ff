"""`make bench-tls`: what TLS costs, beside the same without it, in one run against one worker.

    python bench/tls.py [--scenarios kept,body,idle,handshakes] [--rounds 3] [--seconds 4] [--loop uvloop]

One server with two doors, one of them with TLS from the first byte; loads take turns between them. The load comes from
Python processes on the same machine, whose own TLS costs as much as the server's: rates depend on both, so the CPU of
the server is told too, of which the load is no part. Nothing leaves 127.0.0.0/8, and every run is bounded.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import shutil
import socket
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import load
from accounting import cpu_seconds, forget_highest_memory, memory
from load import HOST
from servers import Running, Server, always, free_port, raise_descriptor_limit, started

ROOT = Path(__file__).resolve().parent.parent
YAML = """\
hostname: mx.example.com
listeners:
  - {{name: plain, listen: ["{host}:{port}"]}}
  - {{name: tls, listen: ["{host}:{tls_port}"], tls: implicit}}
tls: {{self_signed: true}}
local_domains:
  example.com: {{deliver: {store}}}
deliver_to:
  mail: {{type: maildir, path: "mail/{{mailbox}}"}}
  nothing: {{type: discard}}
limits: {{message_size: 1 GB, connections: 30000, connections_per_ip: 30000}}
logging: {{format: json}}
event_loop: {loop}
allow_root: true
"""
MIB = 1 << 20
SESSIONS, PROCESSES = 20, 2
HANDSHAKES_A_SECOND = 50


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is self-signed
    return context


class Client(load.Client):
    """One session, with TLS or without."""

    def __init__(self, port: int, context: ssl.SSLContext | None, source: str = HOST) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=30, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket)
        self.expect(b"220")
        self.say("EHLO client.example.net", b"250")


@dataclass(frozen=True)
class Doors:
    """The two ports of a running server."""

    running: Running
    plain: int
    tls: int

    def cpu(self) -> float:
        return cpu_seconds(self.running.pid)

    def memory(self) -> int:
        return memory(self.running.pid, "VmRSS")


@contextlib.contextmanager
def serving(folder: Path, loop: str, store: str) -> Iterator[Doors]:
    tls_port = free_port()

    def prepare(own: Path, port: int) -> list[str]:
        config = own / "smtp.yaml"
        config.write_text(YAML.format(host=HOST, port=port, tls_port=tls_port, loop=loop, store=store))
        return [str(Path(sys.executable).with_name("smtpmaild")), "--config", str(config)]

    with started(Server("smtpmaild", "", always, prepare, "mail/user/new"), folder) as running:
        yield Doors(running, running.port, tls_port)


# Kept sessions


def keep_sending(port: int, is_tls: bool, begin: Event, end: Event, count: multiprocessing.Value) -> None:  # type: ignore[valid-type]
    """A process: its share of the sessions, each in a thread, a command at a time."""
    context = client_context() if is_tls else None

    def session() -> None:
        client, sent = Client(port, context), 0
        begin.wait()
        while not end.is_set():
            client.send(4096)
            sent += 1
        client.quit()
        with count.get_lock():  # type: ignore[attr-defined]
            count.value += sent  # type: ignore[attr-defined]

    threads = [threading.Thread(target=session) for _ in range(SESSIONS // PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@dataclass(frozen=True)
class Rate:
    """messages a second, CPU seconds of the server for a thousand."""

    messages: float
    cpu: float


def kept(doors: Doors, is_tls: bool, seconds: float) -> Rate:
    begin, end, count = multiprocessing.Event(), multiprocessing.Event(), multiprocessing.Value("l", 0)
    port = doors.tls if is_tls else doors.plain
    processes = [
        multiprocessing.Process(target=keep_sending, args=(port, is_tls, begin, end, count)) for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    time.sleep(1.0)  # until all have greeted
    before, began = doors.cpu(), time.monotonic()
    begin.set()
    time.sleep(seconds)
    end.set()
    for process in processes:
        process.join(30)
    took = time.monotonic() - began
    return Rate(count.value / took, (doors.cpu() - before) / max(1, count.value) * 1000)


def compare_kept(folder: Path, loop: str, rounds: int, seconds: float) -> None:
    print(f"kept connections: 4 KiB, {SESSIONS} sessions, a command at a time, into a Maildir")
    rates: dict[bool, list[Rate]] = {False: [], True: []}
    with serving(folder, loop, "mail") as doors:
        for _ in range(rounds):
            for is_tls, of in rates.items():
                of.append(kept(doors, is_tls, seconds))
    plain, tls = (statistics.median(rate.messages for rate in rates[is_tls]) for is_tls in (False, True))
    plain_cpu, tls_cpu = (statistics.median(rate.cpu for rate in rates[is_tls]) for is_tls in (False, True))
    print(f"  plain {plain:,.0f}/s, TLS {tls:,.0f}/s: {tls / plain:.0%}   (wanted: 60 % or more)")
    print(f"  CPU for 1000: plain {plain_cpu:.3f} s, TLS {tls_cpu:.3f} s: {plain_cpu / tls_cpu:.0%}\n", flush=True)


# One large body


def body(folder: Path, loop: str, rounds: int, megabytes: int) -> None:
    print(f"one message of {megabytes} MB, thrown away at the end")
    context = client_context()
    with serving(folder, loop, "nothing") as doors:
        for is_tls in (False, True):
            port, spent, grown, took = (doors.tls if is_tls else doors.plain), [], [], []
            for size in (MIB, *[megabytes * 1_000_000] * rounds):
                client = Client(port, context if is_tls else None)
                resident = doors.memory()
                forget_highest_memory(doors.running.pid)
                before, began = doors.cpu(), time.monotonic()
                client.send(size)
                spent.append((doors.cpu() - before) / (size / 1e6) * 1000)
                took.append(time.monotonic() - began)
                grown.append(memory(doors.running.pid, "VmHWM") - resident)
                client.quit()
            words = f"{statistics.median(spent[1:]):.2f} ms CPU for each MB (lowest {min(spent[1:]):.2f})"
            words += f", {statistics.median(took[1:]):.2f} s"
            wanted = "   (wanted: 1.2 ms or less)" if is_tls else ""
            print(f"  {'TLS' if is_tls else 'plain'}: {words}, memory grows by {max(grown[1:]) / MIB:.1f} MiB{wanted}")
    print(flush=True)


# Idle sessions


def idle(folder: Path, loop: str, count: int) -> None:
    count = min(count, raise_descriptor_limit() - 256)
    print(f"{count:,} idle sessions with TLS")
    context = client_context()
    with serving(folder, loop, "nothing") as doors:
        for _ in range(20):
            Client(doors.tls, context).quit()
        before, began = doors.memory(), time.monotonic()
        cpu = doors.cpu()
        clients = [Client(doors.tls, context, f"127.0.1.{number // 1000 + 1}") for number in range(count)]
        took, cpu = time.monotonic() - began, doors.cpu() - cpu
        each = (doors.memory() - before) / 1024 / count
        print(f"  {each:.1f} KiB each   (wanted: 60 or less)")
        print(
            f"  {count / took:,.0f} handshakes/s one after the other, {cpu / count * 1000:.2f} ms CPU each\n",
            flush=True,
        )
        for client in clients:
            client.socket.close()


# Handshakes beside kept sessions


def shake_hands(port: int, a_second: int, end: Event, done: multiprocessing.Value) -> None:  # type: ignore[valid-type]
    """A process: so many new sessions a second, each closed at once."""
    context = client_context()
    due = time.monotonic()
    while not end.is_set():
        with contextlib.suppress(OSError):
            Client(port, context).quit()
            done.value += 1  # type: ignore[attr-defined]
        due += 1 / a_second
        time.sleep(max(0.0, due - time.monotonic()))


def handshakes(folder: Path, loop: str, rounds: int, seconds: float) -> None:
    print(f"{SESSIONS} kept sessions with TLS, alone and beside {HANDSHAKES_A_SECOND} new ones a second")
    alone, beside, done = [], [], []
    with serving(folder, loop, "mail") as doors:
        for _ in range(rounds):
            alone.append(kept(doors, True, seconds).messages)
            end, count = multiprocessing.Event(), multiprocessing.Value("l", 0)
            shaker = multiprocessing.Process(target=shake_hands, args=(doors.tls, HANDSHAKES_A_SECOND, end, count))
            shaker.start()
            began = time.monotonic()
            beside.append(kept(doors, True, seconds).messages)
            end.set()
            shaker.join(30)
            done.append(count.value / (time.monotonic() - began))
    ratio = statistics.median(beside) / statistics.median(alone)
    print(
        f"  alone {statistics.median(alone):,.0f}/s, beside them {statistics.median(beside):,.0f}/s: {ratio:.0%}",
        end="",
    )
    print(f", {statistics.median(done):.0f} handshakes/s   (wanted: 50 % or more, at 50/s)\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default="kept,body,idle,handshakes", help="separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="how long a run lasts")
    parser.add_argument("--idle", type=int, default=2000, help="idle sessions")
    parser.add_argument("--megabytes", type=int, default=100, help="of the large message")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--work", type=Path, default=ROOT / "var/bench", help="where the server stores: a real disk")
    wanted = parser.parse_args()
    raise_descriptor_limit()
    folder: Path = wanted.work.resolve() / time.strftime("tls-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    print(f"Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}, {wanted.loop}\n")
    scenarios: dict[str, Callable[[Path], None]] = {
        "kept": lambda own: compare_kept(own, wanted.loop, wanted.rounds, wanted.seconds),
        "body": lambda own: body(own, wanted.loop, wanted.rounds, wanted.megabytes),
        "idle": lambda own: idle(own, wanted.loop, wanted.idle),
        "handshakes": lambda own: handshakes(own, wanted.loop, wanted.rounds, wanted.seconds),
    }
    for name in wanted.scenarios.split(","):
        scenarios[name](folder / name)
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
