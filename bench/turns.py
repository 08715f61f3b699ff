"""Servers beside each other that take turns in short bursts, and how each compares with the first of them.

The machine is shared, and what it gives to us changes from second to second. So each burst is compared with the one of
the first server in the same round, and the median of these ratios counts; behind it stands its standard error.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from accounting import cpu_seconds
from load import Shape, send
from servers import Running


@dataclass(frozen=True)
class Burst:
    """rate: messages a second.  cpu: of the server, microseconds a message."""

    rate: float
    cpu: float


Bursts = Mapping[str, list[Burst]]


def take_turns(running: Mapping[str, Running], shape: Shape, rounds: int, messages: int, pause: float = 0.0) -> Bursts:
    """pause: seconds after a burst, for what the server does later."""
    bursts: dict[str, list[Burst]] = {name: [] for name in running}
    for turn in range(rounds + 1):  # the first one warms up
        for name in [*running][:: 1 if turn % 2 else -1]:
            one = running[name]
            before = cpu_seconds(one.pid)
            seconds = send(one.port, shape, messages)
            time.sleep(pause)
            if turn:
                cpu = (cpu_seconds(one.pid) - before) / messages * 1e6
                bursts[name].append(Burst(messages / seconds, cpu))
    return bursts


def show(bursts: Bursts) -> None:
    """A line for each server: its best quarter, and beside it how its bursts compare with those of the first."""
    first = next(iter(bursts.values()))
    for name, own in bursts.items():
        cpu = statistics.median(sorted(one.cpu for one in own)[: max(1, len(own) // 4)])
        rate = statistics.median(sorted((one.rate for one in own), reverse=True)[: max(1, len(own) // 4)])
        pairs = [*zip(own, first, strict=True)]
        costs = _middle([one.cpu / usual.cpu for one, usual in pairs])
        more = _middle([one.cpu - usual.cpu for one, usual in pairs])
        rates = _middle([one.rate / usual.rate for one, usual in pairs])
        print(
            f"  {name:16} {cpu:6.1f} us CPU a message (x {costs}, {more} us)  {rate:8,.0f} messages/s (x {rates})",
            flush=True,
        )


def _middle(values: list[float]) -> str:
    middle = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in values)  # of a normal distribution
    error = 1.2533 * spread / len(values) ** 0.5
    return f"{middle:.3f} +- {error:.3f}" if abs(middle) < 10 and error < 1 else f"{middle:.1f} +- {error:.1f}"
