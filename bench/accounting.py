"""What a server costs, read from /proc: CPU seconds and resident memory of a process and all that came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> Iterator[int]:
    """The process and its descendants, as far as they are alive."""
    yield pid
    # The children of every thread: who forks need not be the first one.
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = children.read_text().split()
        except OSError:
            continue
        for child in below:
            yield from family(int(child))


def cpu_seconds(pid: int) -> float:
    """User and system time of the whole family, of ended and reaped members too, which are counted in ticks."""
    seconds = 0.0
    for member in family(pid):
        try:
            stat = Path(f"/proc/{member}/stat").read_text()
            # Its own time in nanoseconds: the clock of a process is ~pid << 3 | 2 (clock_getcpuclockid(3)).
            seconds += time.clock_gettime(~member << 3 | 2)
        except OSError:
            continue
        # Behind the name in parentheses, from field 3 on: cutime and cstime are 16 and 17 (proc(5)).
        seconds += sum(map(int, stat.rpartition(")")[2].split()[13:15])) / TICKS
    return seconds


def memory(pid: int, field: str) -> int:
    """Sum over the family of a memory field of /proc/PID/status, in bytes: VmRSS now, VmHWM at its highest."""
    total = 0
    for member in family(pid):
        try:
            status = Path(f"/proc/{member}/status").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))
    return total


def forget_highest_memory(pid: int) -> None:
    """Start VmHWM anew (proc(5), clear_refs)."""
    for member in family(pid):
        Path(f"/proc/{member}/clear_refs").write_text("5")
