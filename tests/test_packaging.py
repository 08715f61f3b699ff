"""What the packages say of themselves: one version everywhere, and the files that ship are there."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import smtpmaild

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_image_has_the_version_of_the_package() -> None:
    assert re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE, re.MULTILINE) == [smtpmaild.__version__]


def compiled_rooms() -> dict[str, Path]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["compiled"]
    modules = [f"smtpmaild.{name.removesuffix('/__init__').replace('/', '.')}" for name in names]
    return {module: ROOT / f"smtpmaild/{name}.py" for module, name in zip(modules, names, strict=True)}


def test_every_room_that_is_compiled_is_there() -> None:
    assert [str(path) for path in compiled_rooms().values() if not path.is_file()] == []


def test_nothing_interpreted_derives_from_what_is_compiled() -> None:
    """mypyc's classes refuse it, when such a class is made: maybe in the middle of a session."""
    rooms = compiled_rooms()
    wrong = []
    for path in (ROOT / "smtpmaild").rglob("*.py"):
        if path in rooms.values():
            continue
        tree = ast.parse(path.read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in rooms]
        names = {alias.asname or alias.name for node in imports for alias in node.names}
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        wrong += [f"{path}: {each.name}" for each in classes if names & {ast.unparse(base) for base in each.bases}]
    assert wrong == []


# What mypyc makes loops of. Elsewhere it makes a list of a generator expression, which is not lazy any more.
CONSUMERS = {"all", "any", "dict", "frozenset", "list", "max", "min", "next", "set", "sorted", "sum", "tuple"}
CONSUMING_METHODS = {"extend", "join", "update"}
# `self._thread` becomes a C member `__thread`, and these are words of C.
C_WORDS = {"_asm", "_attribute", "_const", "_inline", "_restrict", "_signed", "_thread", "_typeof", "_volatile"}


@pytest.mark.parametrize("path", compiled_rooms().values(), ids=compiled_rooms())
def test_a_compiled_room_has_only_what_mypyc_takes_as_it_is_meant(path: Path) -> None:
    """`make compiled` finds all of it, but takes a minute."""
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    consumed = set()
    for call in nodes:
        if isinstance(call, ast.Call):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
            if name in (CONSUMING_METHODS if isinstance(call.func, ast.Attribute) else CONSUMERS):
                consumed.add(call.args[0] if call.args else None)
    lazy = [node for node in nodes if isinstance(node, ast.GeneratorExp) and node not in consumed]
    assert [f"{path}:{node.lineno}: use a list or a generator function" for node in lazy] == []
    clashes = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr in C_WORDS]
    assert [f"{path}:{node.lineno}: {node.attr} would be a word of C" for node in clashes] == []


def test_what_was_compiled_is_as_new_as_its_source() -> None:
    extensions = (ROOT / "smtpmaild").rglob("*.so")
    sources = {extension: extension.parent / f"{extension.name.partition('.')[0]}.py" for extension in extensions}
    old = [source for extension, source in sources.items() if source.stat().st_mtime > extension.stat().st_mtime]
    assert old == [], "run `make compiled`, or `make interpreted`"


@pytest.mark.parametrize("copied", re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE))
def test_what_the_image_copies_reaches_the_builder(copied: str) -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name in copied.split():
        assert (ROOT / name).exists()
        assert name.partition("/")[0] in let_through
