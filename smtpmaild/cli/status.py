"""`smtpmaild status`: how the running daemon is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from smtpmaild.cli.shown import coloured, counted, plain, size, span, table
from smtpmaild.cli.steering import control_socket, socket_options, troubles

#: What of the numbers is shown: the line, and what each stands for in it.
_NUMBERS = (
    (
        "messages",
        (("accepted", "messages_accepted"), ("refused", "messages_refused"), ("deferred", "messages_deferred")),
    ),
    (
        "recipients",
        (("accepted", "recipients_accepted"), ("refused", "recipients_refused"), ("deferred", "recipients_deferred")),
    ),
    ("sessions", (("opened", "sessions_opened"), ("refused", "sessions_refused"), ("timed out", "sessions_timed_out"))),
    ("logins", (("accepted", "authentications_accepted"), ("refused", "authentications_refused"))),
)
_COLOURS = {"serving": "green", "starting": "yellow", "retiring": "cyan", "draining": "yellow", "silent": "red"}


@click.command(epilog="Example: smtpmaild status --config smtp.yaml")
@socket_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line.")
def status(config: str, socket: str | None, as_json: bool) -> None:
    """Show how the running daemon is.

    Workers, sessions by listener, what it has counted, the queue, the last reload. Numbers are those since it began,
    over all workers, ended ones too; behind them is what came in the last minute, per second.

    Exit status: 0 it answers, 69 none is running, 75 it does not answer, 77 you may not ask.
    """
    from smtpmaild.control.client import answer

    path = control_socket(config, socket)
    with troubles():
        found = answer(path, "status")
    click.echo(json.dumps(found) if as_json else "\n".join(_lines(found)))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    now = found["now"]
    ready = coloured(f"not ready: {found['not_ready']}", fg="red") if found["not_ready"] else _how_many(found)
    up = span(now - found["started_at"])
    yield f"smtpmaild {found['version']} on {found['hostname']}, process {found['pid']}, up {up}"
    yield ready
    yield ""
    yield from _workers(found, now)
    yield ""
    yield from _listeners(found)
    yield ""
    for name, shown in _NUMBERS:
        counters = [(word, found["numbers"].get(key, 0), found["rates"].get(key, 0.0)) for word, key in shown]
        if name != "logins" or any(count for _, count, _ in counters):
            yield f"{name:<12}" + "   ".join(_number(*counter) for counter in counters)
    if found["queue"] is not None:
        yield f"{'queue':<12}{_queue(found['queue'], now)}"
    if found["reload"] is not None:
        yield f"{'reload':<12}{_reload(found['reload'])}"


def _how_many(found: Mapping[str, Any]) -> str:
    serving = sum(worker["state"] == "serving" for worker in found["workers"])
    died = f"; {counted(found['deaths'], 'worker')} died and came back" if found["deaths"] else ""
    text = f"{serving} of {counted(found['wanted'], 'worker')} serving{died}"
    return text if serving == found["wanted"] else coloured(text, fg="yellow")


def _workers(found: Mapping[str, Any], now: float) -> list[str]:
    rows = [
        (
            str(worker["pid"]),
            worker["state"],
            span(now - worker["started_at"]),
            f"{worker['sessions']:,}",
            size(worker["memory"]),
            f"{1000 * worker['lag']:.0f} ms",
        )
        for worker in found["workers"]
    ]
    title, *lines = table(("WORKER", "STATE", "UP", "SESSIONS", "IN FLIGHT", "LATE"), rows, right=(2, 3, 4, 5))
    coloured_lines = [
        line.replace(row[1], coloured(row[1], fg=_COLOURS[row[1]]), 1) for line, row in zip(lines, rows, strict=True)
    ]
    return [title, *coloured_lines]


def _listeners(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (plain(one["name"]), f"{one['sessions']:,}", ", ".join(one["addresses"]) or "closed by a reload")
        for one in found["listeners"]
    ]
    return table(("LISTENER", "SESSIONS", "LISTENS ON"), rows, right=(1,))


def _number(word: str, count: int, rate: float) -> str:
    return f"{count:,} {word}" + (f" ({rate:.1f}/s)" if rate >= 0.05 else "")


def _queue(queue: Mapping[str, Any], now: float) -> str:
    if not queue["messages"]:
        return "empty"
    parts = [
        f"{counted(queue['messages'], 'message')} to {counted(queue['destinations'], 'destination')}",
        f"{size(queue['size'])}B",
        f"oldest {span(now - queue['oldest'])}",
        *([f"{queue['in_flight']:,} on their way"] if queue["in_flight"] else []),
        *([coloured(f"{counted(queue['dead'], 'destination')} not answering", fg="red")] if queue["dead"] else []),
    ]
    return ", ".join(parts)


def _reload(reload: Mapping[str, Any]) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(reload["at"]))
    if not reload["is_good"]:
        return f"{at} " + coloured("refused", fg="red") + f": {plain(reload['cause'].splitlines()[0])}"
    changed = "; ".join(reload["changed"]) or "nothing in the file had changed"
    return f"{at} {'taken' if reload['is_done'] else 'its workers are starting'}: {plain(changed)}"
