"""What `smtpmaild top` shows: one screen of plain values, laid out for its width and height.

Pure: who asks the daemon and who draws is elsewhere (cli/top.py). Everything is cut to its column, nothing wraps, and
nothing that came from the network is taken for markup or moves a cursor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Record = Mapping[str, Any]

#: Below this width a table has its most important columns only.
WIDE = 60
#: Mail that waits so long is worth a look.
_LONG = 3600
#: Lines of the frame: the head with its numbers.
_HEAD = 7
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))
_TONES = {"good": "green", "bad": "red", "waits": "yellow"}


@dataclass(frozen=True, slots=True)
class Screen:
    """summary: of the desk (control/desk.py).  destinations: what waits where.  recent: (seconds since the epoch, tone,
    text) of what happened last, the newest first; None where nothing is recorded.  trouble: why the daemon cannot be
    asked now; the rest is as it was then."""

    summary: Record
    destinations: Sequence[Record]
    recent: Sequence[tuple[float, str, str]] | None = None
    trouble: str = ""


def frame(screen: Screen, width: int, height: int) -> RenderableType:
    """The screen in so many columns and lines."""
    is_wide = width >= WIDE
    parts: list[RenderableType] = [*_head(screen.summary, screen.trouble, is_wide=is_wide)]
    room = max(3, height - _HEAD)
    tables = [
        ("SLOWEST DESTINATIONS", [*_destinations(screen, is_wide=is_wide)]),
        ("MOST REFUSED", [*_refused(screen.summary)]),
        ("LAST", [*_recent(screen)]),
    ]
    # The last ones are left out where there is no room for their title, a line and the gap before them.
    tables = [(title, rows) for title, rows in tables if rows][: max(1, room // 3)]
    for number, (title, rows) in enumerate(tables):
        share = max(1, room // (len(tables) - number) - 2)  # two lines for its head and the gap
        shown = rows[:share]
        room -= len(shown) + 2
        parts += [Text(), _table(title, shown)]
    return Group(*parts)


# The head


def _head(summary: Record, trouble: str, *, is_wide: bool) -> Iterator[Text]:
    now, numbers, rates = summary["now"], summary["numbers"], summary["rates"]
    up = f"up {_span(now - summary['started_at'])}"
    title = Text(no_wrap=True, overflow="ellipsis")
    title.append("smtpmaild", "bold")
    title.append(f" on {_clean(summary['hostname'])}" if is_wide else "")
    title.append(f"  {_clock(now)}  {up}  ")
    if is_wide:
        title.append_text(_workers(summary))
    yield title
    if trouble:
        yield Text(_clean(trouble), "bold red", no_wrap=True, overflow="ellipsis")
    else:
        yield Text() if is_wide else _workers(summary)
    open_now = sum(one["sessions"] for one in summary["listeners"])
    listeners = "  ".join(f"{_clean(one['name'])} {one['sessions']}" for one in summary["listeners"])
    yield _line("sessions", f"{open_now} open", rates, (("opened", "sessions_opened"),), f"  {listeners}" * is_wide)
    for name in ("messages", "recipients"):
        words = [(word, f"{name}_{word}") for word in ("accepted", "refused", "deferred")]
        yield _line(name, f"{numbers.get(f'{name}_accepted', 0):,}", rates, words)
    traffic = numbers.get("bytes_received", 0)
    yield _line("mail", _size(traffic), {}, (), f"{_size(rates.get('bytes_received', 0.0))}/s")
    queue = summary["queue"]
    if queue is not None:
        oldest = f", the oldest {_span(now - queue['oldest'])}" if queue["oldest"] else ""
        dead = f", {queue['dead']} of {queue['destinations']} destinations dead" if queue["dead"] else ""
        text = f"{queue['in_flight']} in flight{oldest}{dead}"
        yield _line("queue", f"{queue['messages']:,} waiting", {}, (), text)


def _workers(summary: Record) -> Text:
    if summary["not_ready"]:
        return Text(f"not ready: {_clean(summary['not_ready'])}", "bold red")
    serving = sum(one["state"] == "serving" for one in summary["workers"])
    wanted = summary["wanted"]
    died = f", {summary['deaths']} died" if summary["deaths"] else ""
    slowest = max((one["lag"] for one in summary["workers"]), default=0.0)
    late = f", {slowest * 1000:.0f} ms late" if slowest > 0.05 else ""
    style = "green" if serving == wanted and not died and not late else "yellow"
    return Text(f"{serving} of {wanted} workers{died}{late}", style)


def _line(name: str, first: str, rates: Record, words: Sequence[tuple[str, str]], rest: str = "") -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{name:<11}", "dim")
    line.append(f"{first:<15}", "bold")
    for word, key in words:
        rate = rates.get(key, 0.0)
        is_trouble = rate > 0 and word in ("refused", "deferred")
        line.append(f"{_rate(rate)} {word}  ", "yellow" if is_trouble else "")
    line.append(rest)
    return line


# The tables: (cells, their style); the first one takes the room


Row = tuple[Sequence[str], str]


def _destinations(screen: Screen, *, is_wide: bool) -> Iterator[Row]:
    """Dead ones first, then by how long their oldest mail waits."""
    now = screen.summary["now"]

    def slowness(one: Record) -> tuple[bool, float, int]:
        return bool(one["dead_until"]), now - (one["oldest"] or now), one["messages"]

    for one in sorted(screen.destinations, key=slowness, reverse=True):
        if one["messages"] or one["in_flight"]:
            oldest = _span(now - one["oldest"]) if one["oldest"] else "-"
            name = _clean(one["destination"])
            last = _clean(one["last"] or "")
            said = f"{name}  {last}".rstrip() if is_wide else name
            style = "red" if one["dead_until"] else "yellow" if now - (one["oldest"] or now) > _LONG else ""
            in_flight = (f"{one['in_flight']} at it",) if is_wide else ()
            yield (said, f"{one['messages']:,} waiting", oldest, *in_flight), style


def _refused(summary: Record) -> Iterator[Row]:
    counted = [
        (count, verb, reply, rule)
        for verb, replies in summary["numbers"].get("refusals", {}).items()
        for reply, rules in replies.items()
        for rule, count in rules.items()
    ]
    for count, verb, reply, rule in sorted(counted, key=lambda one: -one[0]):
        by = f"  by {_clean(rule)}" if rule else ""
        yield (f"{_clean(verb)} {_clean(reply)}{by}", f"{count:,}"), ""


def _recent(screen: Screen) -> Iterator[Row]:
    for at, tone, text in screen.recent or ():
        yield (f"{_clock(at)}  {_clean(text)}",), _TONES.get(tone, "")


def _table(title: str, rows: Sequence[Row]) -> Table:
    columns = max(len(cells) for cells, _ in rows)
    table = Table(box=None, pad_edge=False, expand=True, show_edge=False, header_style="bold")
    table.add_column(title, ratio=1, no_wrap=True, overflow="ellipsis")
    for _ in range(columns - 1):
        table.add_column("", justify="right", no_wrap=True)
    for cells, style in rows:
        table.add_row(*(Text(cell, style, no_wrap=True, overflow="ellipsis") for cell in cells))
    return table


# Words


def _clean(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%H:%M:%S}"


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return next((f"{int(seconds // size)}{unit}" for size, unit in _UNITS if seconds >= size), f"{int(seconds)}s")


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}/s" if per_second >= 10 or per_second == 0 else f"{per_second:.2g}/s"


def _size(octets: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if octets >= unit:
            return f"{octets / unit:.1f} {name}"
    return f"{octets:.0f} B"
