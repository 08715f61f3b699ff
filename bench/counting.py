"""What counting costs the event loop for each message: `python bench/counting.py`. Loads nothing, listens nowhere."""

from __future__ import annotations

import json
import time
import timeit
from collections.abc import Callable
from functools import partial

from smtpmaild.metrics import Metrics


def count_message(metrics: Metrics) -> None:
    """All that receiver.py and journal.py count for a message to one recipient, on a session that stays open."""
    metrics.recipients_accepted += 1
    metrics.bytes_received += 4096
    ended_at = time.time()
    metrics.commit_seconds.observe(time.time() - ended_at)
    metrics.messages_accepted += 1
    metrics.messages_by_listener.count("mx", "accepted")


def count_session(metrics: Metrics) -> None:
    """What a session adds."""
    metrics.sessions_opened += 1
    metrics.sessions_open += 1
    metrics.sessions_by_listener.count("mx")
    metrics.session_seconds.observe(0.5)
    metrics.sessions_open -= 1


def main() -> None:
    """Print it."""
    metrics = Metrics()
    for number in range(100):
        metrics.refusals.count("RCPT", "550 5.1.1", f"local_domains.{number}.example (smtp.yaml:{number})")
    print(f"a message: {cost(partial(count_message, metrics), 100_000):.2f} us")
    print(f"a session: {cost(partial(count_session, metrics), 100_000):.2f} us")
    print(
        f"JSON of 100 refusals and the rest, once a second: {cost(lambda: json.dumps(metrics.snapshot()), 200):.0f} us"
    )


def cost(what: Callable[[], object], rounds: int) -> float:
    """Microseconds of CPU, the best of nine: other processes only ever make it look more."""
    return min(timeit.repeat(what, number=rounds, repeat=9, timer=time.process_time)) / rounds * 1e6


if __name__ == "__main__":
    main()
