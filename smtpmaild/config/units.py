"""Sizes and durations as people write them: `50 MB`, `25MiB`, `30s`, `1h30m`.

A plain number is a number of bytes or of seconds. KB, MB, GB are decimal, KiB, MiB, GiB binary, as the IEC has it.
The types at the end are what the models use; what is wrong with a value is said in the ValueError, ready for people.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_DURATION_UNITS = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
    "w": 604800.0,
    "week": 604800.0,
    "weeks": 604800.0,
}
#: What a file system or SIZE= can still name, and what nobody waits for.
_LARGEST_SIZE = 2**63 - 1
_LONGEST_DURATION = 100 * 365 * 86400.0

_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,9})?"
_SIZE = re.compile(rf"(?P<number>{_NUMBER}) ?(?P<unit>[A-Za-z]*)")
_DURATION_PART = re.compile(rf"(?P<number>{_NUMBER}) ?(?P<unit>[A-Za-z]+) ?")
_PLAIN_NUMBER = re.compile(_NUMBER)


def parse_size(value: object) -> int:
    """Bytes; raises ValueError."""
    size = _size(value)
    if size is None:
        raise ValueError(f"{_shown(value)} is not a size: write it as 50 MB, 25MiB or a number of bytes")
    if size > _LARGEST_SIZE:
        raise ValueError(f"{_shown(value)} is too large a size")
    return size


def _size(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value >= 0 else None
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    factor = _SIZE_UNITS.get(match["unit"].lower()) if match else None
    if match is None or factor is None:
        return None
    number = match["number"]
    return round(float(number) * factor) if "." in number else int(number) * factor


def parse_duration(value: object) -> float:
    """Seconds; raises ValueError."""
    duration = _duration(value)
    if duration is None:
        raise ValueError(f"{_shown(value)} is not a duration: write it as 30s, 5m, 1h30m, 4d or a number of seconds")
    if duration > _LONGEST_DURATION:
        raise ValueError(f"{_shown(value)} is too long a duration")
    return duration


def _duration(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 <= value < float("inf") else None
    if not isinstance(value, str):
        return None
    if _PLAIN_NUMBER.fullmatch(value):
        return float(value)
    return _sum_of_parts(value)


def _sum_of_parts(text: str) -> float | None:
    seconds, position = 0.0, 0
    while match := _DURATION_PART.match(text, position):
        factor = _DURATION_UNITS.get(match["unit"].lower())
        if factor is None:
            return None
        seconds += float(match["number"]) * factor
        position = match.end()
    return seconds if position == len(text) and text and not text.endswith(" ") else None


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str | int | float) and not isinstance(value, bool) else "this"


def _any_case(words: dict[str, float] | dict[str, int]) -> str:
    # JSON Schema patterns know no flags.
    longest_first = sorted((word for word in words if word), key=len, reverse=True)
    return "|".join("".join(f"[{letter.upper()}{letter}]" for letter in word) for word in longest_first)


_SIZE_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": rf"^{_NUMBER} ?(?:{_any_case(_SIZE_UNITS)})?$"},
    ],
    "examples": ["50 MB", "25MiB", 1000000],
}
_DURATION_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": rf"^(?:{_NUMBER}|(?:{_NUMBER} ?(?:{_any_case(_DURATION_UNITS)}) ?)+)$"},
    ],
    "examples": ["30s", "5m", "1h30m", "4d", 90],
}

#: A number of bytes.
Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
#: A number of seconds.
Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
