"""How commands show things to people: spans, sizes, numbers, tables, colours, and text from the network."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))
_SIZES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def span(seconds: float) -> str:
    """As people read it: 45s, 12m, 4h, 3d; "now" for what is over."""
    if seconds < 1:
        return "now"
    return next((f"{int(seconds // size)}{unit}" for size, unit in _UNITS if seconds >= size), f"{int(seconds)}s")


def size(octets: float) -> str:
    """1.2M, 350.0k, 12."""
    return next((f"{octets / unit:.1f}{name}" for unit, name in _SIZES if octets >= unit), str(int(octets)))


def plain(text: str) -> str:
    """Text from elsewhere: nothing in it moves a cursor or turns the direction of a line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def counted(number: int, noun: str) -> str:
    """1 message, 2 messages."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def table(title: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines with columns of equal width. right: numbers of the columns that are set to the right."""
    lines = [title, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(title))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def coloured(text: str, **style: object) -> str:
    """With colour on a terminal that may have it (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return click.style(text, **style)  # type: ignore[arg-type]
