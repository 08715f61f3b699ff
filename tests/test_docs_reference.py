"""The pages that `make docs` makes: fresh, complete, and such as man and browsers can read."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click
import pytest
from generate import DOCS, pages
from generate.around import PAGES as AROUND
from generate.commands import commands
from generate.examples import EXAMPLES
from generate.keys import sections
from generate.words import duration, kind_of, plain, size

from smtpmaild.cli import cli
from smtpmaild.config.models import Config
from smtpmaild.config.schema import config_schema

PAGES = pages()
SECTIONS = [*sections()]
MAN = [path for path in PAGES if path.parent.name == "man"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_page_is_fresh(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run `make docs`"


def test_every_key_of_the_schema_is_there() -> None:
    schema = config_schema()
    wanted = {key for part in (schema, *schema["$defs"].values()) for key in part.get("properties", {})}
    shown = {step for section in SECTIONS for key in section.keys for step in key.path}
    shown |= {step for section in SECTIONS if section.key is not None for step in section.key.path}
    assert shown == wanted


def test_every_section_has_an_example() -> None:
    assert {section.title for section in SECTIONS if section.depth == 0} == {*EXAMPLES}
    assert {*AROUND} <= {*EXAMPLES}


def test_sections_stand_in_the_order_of_the_file() -> None:
    names = [name for name in Config.model_fields if any(section.title == name for section in SECTIONS)]
    assert [section.title for section in SECTIONS if section.depth == 0] == ["The top level", *names]


def test_every_command_is_there_with_an_example() -> None:
    found = {command.name: command for command in commands()}
    assert {name.split()[1] for name in found if " " in name} == {*cli.commands}
    for group in ("queue", "user"):
        command = cli.commands[group]
        assert isinstance(command, click.Group)
        assert {f"smtpmaild {group} {name}" for name in command.commands} < {*found}
    for name, one in found.items():
        assert any(name in example for example in one.examples), f"{name} has no example of its own"
        assert one.paragraphs[0].endswith(".")


def test_headings_are_links_to_one_place_each() -> None:
    for path, text in PAGES.items():
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE) if path.suffix == ".md" else []
        assert len(headings) == len({*headings}), path.name


@pytest.mark.debian
@pytest.mark.parametrize("path", MAN, ids=lambda path: path.name)
def test_man_page_is_well_formed(path: Path, needs_program: Callable[[str], str]) -> None:
    formatted = [needs_program("groff"), "-ww", "-man", "-Tutf8", "-z", str(path)]
    assert subprocess.run(formatted, capture_output=True, text=True, check=True).stderr == ""
    checked = [needs_program("mandoc"), "-T", "lint", "-W", "style", str(path)]
    told = subprocess.run(checked, capture_output=True, text=True, check=False).stdout.splitlines()
    # A date would make another page every day, or never be true.
    assert [line for line in told if 'missing date, using ""' not in line] == []


@pytest.mark.parametrize(
    ("value", "shown"), [("off", "off"), ("1.2", '"1.2"'), (("a", "b"), "[a, b]"), (3.0, "3"), (True, "true")]
)
def test_values_are_written_as_in_the_file(value: object, shown: str) -> None:
    assert plain(value) == shown


def test_sizes_and_durations_are_written_as_in_the_file() -> None:
    assert [size(octets) for octets in (0, 500, 50_000, 50_000_000)] == ["0", "500", "50 KB", "50 MB"]
    assert [duration(seconds) for seconds in (0, 0.5, 90, 300, 129600)] == ["0", "0.5s", "90s", "5m", "36h"]


def test_types_are_called_as_people_do() -> None:
    assert kind_of(Literal["a", "b", "c"] | None).one == "`a`, `b` or `c`"
    assert kind_of(tuple[str, ...]).one == "list of texts"
    with pytest.raises(TypeError, match="has no words for"):
        kind_of(bytes)


def test_the_wheel_ships_the_man_pages() -> None:
    text = (DOCS.parent / "pyproject.toml").read_text()
    for path in MAN:
        assert f'"docs/man/{path.name}" = "share/man/man{path.suffix[1:]}/{path.name}"' in text
