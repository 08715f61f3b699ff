from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from smtpmaild.config.units import Duration, Size, parse_duration, parse_size


class Model(BaseModel):
    size: Size = 0
    duration: Duration = 0.0


PROPERTIES = Model.model_json_schema()["properties"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (1000, 1000),
        ("1000", 1000),
        ("50 MB", 50_000_000),  # decimal, as the IEC and disk makers have it
        ("50MB", 50_000_000),
        ("50 mb", 50_000_000),
        ("50M", 50_000_000),
        ("25MiB", 25 * 2**20),  # binary
        ("25 mib", 25 * 2**20),
        ("1.5 GB", 1_500_000_000),
        ("0.1 KB", 100),
        ("7 B", 7),
        ("2 TiB", 2 * 2**40),
    ],
)
def test_size(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MB",
        "50 XB",
        "-1",
        -1,
        "1,5 MB",
        "1e6",
        "5  MB",
        " 5 MB",
        "5 MB ",
        "\u0665 MB",
        True,
        None,
        1.5,
        [1],
        "1_000",
    ],
)
def test_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size: write it as 50 MB, 25MiB or a number of bytes"):
        parse_size(text)


@pytest.mark.parametrize("text", [2**63, "9999999 TiB", "999999999999999999 TB"])
def test_size_too_large(text: object) -> None:
    with pytest.raises(ValueError, match="is too large a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0.0),
        (90, 90.0),
        (0.5, 0.5),
        ("90", 90.0),
        ("30s", 30.0),
        ("30 s", 30.0),
        ("5m", 300.0),
        ("5 min", 300.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("4d", 345_600.0),
        ("2 weeks", 1_209_600.0),
        ("250ms", 0.25),
        ("1.5 h", 5400.0),
        ("1 hour 30 minutes", 5400.0),
    ],
)
def test_duration(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "s", "5 parsecs", "1h 30", "30 1h", "-5s", -5, "5s ", " 5s", "5m-3s", "٣s", True, None, [], float("inf")],
)
def test_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration: write it as 30s, 5m, 1h30m, 4d or a number of seconds"):
        parse_duration(text)


@pytest.mark.parametrize("text", [10**10, "5000 weeks 99999 weeks"])
def test_duration_too_long(text: object) -> None:
    with pytest.raises(ValueError, match="is too long a duration"):
        parse_duration(text)


def schema_takes(name: str, text: str) -> bool:
    """What an editor would say of a text."""
    (pattern,) = (one["pattern"] for one in PROPERTIES[name]["anyOf"] if "pattern" in one)
    return re.search(pattern, text) is not None


def parser_takes(parse: object, text: str) -> bool:
    assert callable(parse)
    try:
        parse(text)
    except ValueError as error:
        return "too l" in str(error)  # too large, too long: a pattern cannot know
    return True


UNITS = ["", "b", "k", "KB", "MiB", "gb", "Tib", "s", "ms", "M", "Min", "hours", "d", "w", "x"]
NUMBERS = st.one_of(st.integers(0, 10**20).map(str), st.decimals(0, 100, places=3).map(str), st.just(""))
TEXTS = st.lists(st.tuples(NUMBERS, st.sampled_from(["", " "]), st.sampled_from(UNITS)), max_size=3).map(
    lambda parts: "".join(map("".join, parts))
)


@settings(deadline=None)
@given(TEXTS)
def test_schema_agrees_with_parser(text: str) -> None:
    assert schema_takes("size", text) == parser_takes(parse_size, text)
    if not text.endswith(" "):  # the pattern is laxer by a blank
        assert schema_takes("duration", text) == parser_takes(parse_duration, text)


def test_models_hold_numbers() -> None:
    model = Model.model_validate({"size": "1 KB", "duration": "1m"})
    assert json.loads(model.model_dump_json()) == {"size": 1000, "duration": 60.0}
