"""Counting connections across worker processes."""

from __future__ import annotations

import ipaddress
import os
import random
import time

import pytest

from smtpmaild.server.counts import Counts, IpAddress, Occupancy


def ip(text: str) -> IpAddress:
    return ipaddress.ip_address(text)


def test_counts_in_all_by_address_and_by_network() -> None:
    worker = Counts(1).worker(0)
    assert worker.enter(ip("192.0.2.1")) == Occupancy(total=1, address=1, network=1)
    assert worker.enter(ip("192.0.2.1")) == Occupancy(2, 2, 2)
    assert worker.enter(ip("192.0.2.200")) == Occupancy(3, 1, 3)
    assert worker.enter(ip("192.0.3.1")) == Occupancy(4, 1, 1)
    worker.leave(ip("192.0.2.1"))
    assert worker.enter(ip("192.0.2.1")) == Occupancy(4, 2, 3)


def test_ipv6_clients_are_a_slash_64() -> None:
    worker = Counts(1).worker(0)
    assert worker.enter(ip("2001:db8:1:2::1")) == Occupancy(1, 1, 1)
    assert worker.enter(ip("2001:db8:1:2:ffff::9")) == Occupancy(2, 2, 2)
    assert worker.enter(ip("2001:db8:1:3::1")) == Occupancy(3, 1, 3)
    assert worker.enter(ip("2001:db8:1:100::1")) == Occupancy(4, 1, 1)


def test_prefixes_are_options() -> None:
    worker = Counts(1, prefix_v4=16, prefix_v6=48).worker(0)
    worker.enter(ip("192.0.2.1"))
    assert worker.enter(ip("192.0.3.1")).network == 2
    worker.enter(ip("2001:db8:1:1::1"))
    assert worker.enter(ip("2001:db8:1:ffff::1")).network == 2
    # A network as small as a client is still counted by itself.
    assert Counts(1, prefix_v4=32).worker(0).enter(ip("192.0.2.1")) == Occupancy(1, 1, 1)


def test_same_bits_of_the_other_ip_version_are_somebody_else() -> None:
    worker = Counts(1, prefix_v4=32, prefix_v6=128).worker(0)
    worker.enter(ip("192.0.2.1"))
    assert worker.enter(ip("::c000:201")) == Occupancy(2, 1, 1)


def test_unix_sockets_count_in_all_only() -> None:
    worker = Counts(1).worker(0)
    assert worker.enter(None) == Occupancy(1, 0, 0)
    assert worker.enter(None) == Occupancy(2, 0, 0)
    worker.leave(None)
    assert worker.enter(ip("192.0.2.1")) == Occupancy(2, 1, 1)


def test_a_named_listener_counts_by_itself() -> None:
    counts = Counts(2)
    worker, other = counts.worker(0), counts.worker(1)
    worker.enter(ip("192.0.2.1"))
    assert worker.enter(ip("192.0.2.1"), "lmtp") == Occupancy(2, 1, 1, 1)
    assert other.enter(ip("192.0.2.1"), "lmtp") == Occupancy(3, 2, 2, 2)
    assert other.enter(ip("192.0.2.2"), "submission") == Occupancy(4, 1, 1, 1)
    assert other.enter(ip("192.0.2.1")) == Occupancy(5, 2, 2)
    assert other.enter(None, "lmtp") == Occupancy(6, 0, 0, 3)
    worker.leave(ip("192.0.2.1"), "lmtp")
    assert worker.enter(ip("192.0.2.1"), "lmtp") == Occupancy(6, 2, 2, 3)


def test_workers_see_each_other() -> None:
    counts = Counts(3)
    first, last = counts.worker(0), counts.worker(2)
    first.enter(ip("192.0.2.1"))
    assert last.enter(ip("192.0.2.1")) == Occupancy(2, 2, 2)
    first.leave(ip("192.0.2.1"))
    assert last.enter(ip("192.0.2.2")) == Occupancy(2, 1, 2)


def test_clearing_forgets_one_worker() -> None:
    counts = Counts(2)
    dead, alive = counts.worker(0), counts.worker(1)
    for _ in range(5):
        dead.enter(ip("192.0.2.1"))
    alive.enter(ip("192.0.2.1"))
    counts.clear(0)
    assert counts.worker(0).enter(ip("192.0.2.1")) == Occupancy(2, 2, 2)


def test_worker_numbers_are_checked() -> None:
    for row in (-1, 2):
        with pytest.raises(ValueError, match="no worker"):
            Counts(2).worker(row)


def test_forked_processes_count_together() -> None:
    counts = Counts(2)
    child = os.fork()
    if child == 0:  # pragma: no cover: another process
        worker = counts.worker(1)
        for _ in range(7):
            worker.enter(ip("192.0.2.1"))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert counts.worker(0).enter(ip("192.0.2.1")) == Occupancy(8, 8, 8)
    counts.clear(1)
    assert counts.worker(0).enter(ip("192.0.2.1")) == Occupancy(2, 2, 2)


def test_everybody_leaves_nothing_behind() -> None:
    counts = Counts(2)
    workers = [counts.worker(0), counts.worker(1)]
    chance = random.Random(1)
    names = ("", "", "lmtp", "submission")
    came = [
        (chance.randrange(2), ipaddress.IPv4Address(chance.getrandbits(32)), chance.choice(names)) for _ in range(2000)
    ]
    for row, address, name in came:
        workers[row].enter(address, name)
    chance.shuffle(came)
    for row, address, name in came:
        workers[row].leave(address, name)
    assert not any(counts.cells)


def test_strangers_hardly_ever_count_for_each_other() -> None:
    worker = Counts(1).worker(0)
    chance = random.Random(2)
    for address in chance.sample(range(1 << 32), 5000):
        worker.enter(ipaddress.IPv4Address(address))
    over = [worker.enter(ipaddress.IPv4Address(0x0A000000 + 512 * number)).address - 1 for number in range(500)]
    assert sum(excess > 0 for excess in over) < 50  # expected: 10
    assert max(over) <= 3


def test_cells_are_chosen_anew_at_each_start() -> None:
    lines = {tuple(Counts(1).worker(0)._lines(ip("192.0.2.1"), "")) for _ in range(4)}
    assert len(lines) == 4


def test_is_cheap() -> None:
    """A guard against a slip of a power of ten, not a measurement: 4.3 µs on an idle machine."""
    worker = Counts(4).worker(0)
    address = ip("192.0.2.1")
    started = time.process_time()
    for _ in range(2000):
        worker.enter(address)
        worker.leave(address)
    assert (time.process_time() - started) / 2000 < 100e-6
