"""Is it alive, is it ready: what is wrong, in words; nothing where all is well.

Alive means that every event loop turns: who is not should be killed and started again. Ready means that mail may be
sent here. A reload that was refused is no reason against either, for the configuration before it serves on, and all
machines that got the same mistake would leave at once; it is told as a remark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smtpmaild.control.queue_files import Record
from smtpmaild.status.observed import Observed

#: A loop that is so late, or a worker that was silent for so long, hangs.
LIFELESS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. trouble: what is wrong, "" if nothing.  remark: what should be known anyway."""

    name: str
    trouble: str = ""
    remark: str = ""


def live(lag: float, workers: Sequence[Record], now: float) -> list[Check]:
    """The loops: that of the attendant, and those of all workers that have begun to serve."""
    checks = [Check("attendant", _too_late(lag), f"lag {lag:.3f} s")]
    for worker in workers:
        if worker["is_ready"] and not worker["is_retiring"]:
            silent = now - (worker["heard_at"] or worker["started_at"])
            trouble = f"silent for {silent:.0f} s" if silent > LIFELESS_SECONDS else _too_late(worker["lag"])
            checks.append(Check(f"worker {worker['number']}", trouble, f"lag {worker['lag']:.3f} s"))
    return checks


def _too_late(lag: float) -> str:
    return f"the event loop is {lag:.0f} s late" if lag > LIFELESS_SECONDS else ""


def ready(observed: Observed, queue_limits: tuple[int, int]) -> list[Check]:
    """Configuration, workers, stores, queue. queue_limits: messages and bytes, 0 for any number."""
    summary = observed.summary
    reload = summary["reload"]
    refused = reload is not None and not reload["is_good"]
    checks = [
        Check("configuration", "", "the last reload was refused, the one before serves on" if refused else ""),
        Check("workers", summary["not_ready"]),
    ]
    checks += [Check(f"store {one['name']}", one["problem"] or "") for one in observed.stores]
    if summary["queue"] is not None:
        checks.append(Check("room in the queue", _too_full(summary["queue"], queue_limits)))
    return checks


def _too_full(queue: Record, limits: tuple[int, int]) -> str:
    messages, size = limits
    if messages and queue["messages"] >= messages:
        return f"{queue['messages']} messages of {messages}"
    if size and queue["size"] >= size:
        return f"{queue['size']} bytes of {size}"
    return ""


def told(checks: Sequence[Check], *, in_detail: bool) -> tuple[int, str]:
    """(HTTP status, text). in_detail: to somebody who may know what the daemon is made of; others hear the names of
    what is wrong."""
    troubles = [check for check in checks if check.trouble]
    status = 503 if troubles else 200
    if not in_detail:
        return status, "".join(f"failed: {check.name}\n" for check in troubles) or "ok\n"
    return status, "".join(map(_line, checks))


def _line(check: Check) -> str:
    word = "failed" if check.trouble else "ok"
    about = check.trouble or check.remark
    return f"{word}: {check.name}{f' ({about})' if about else ''}\n"
