"""Compiles the rooms named in pyproject.toml with mypyc, beside their sources.

    python compiling.py         what `make compiled` does: for the sources that lie here
    CompileHook                 the same for hatchling, which packs a wheel; the container image is made by it

A module that has an extension beside it is imported as that; without one, from its source. Both are the same program.
Old extensions go first: one that outlived a change of its source would be run in its place. The C compiler takes a
minute; OPTIMIZE=0 in the environment halves that, for tests.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_ROOT = Path(__file__).resolve().parent
# Here mypyc would make another program: a list where the source asks one by one, and stops early.
_EAGER = "Treating generator comprehension as list"


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """What hatchling runs before it packs a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say that the wheel is for this machine only."""
        compile_rooms(self.config["compiled"])
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for extension in extensions():
            build_data["force_include"][str(extension)] = str(extension.relative_to(_ROOT))


def extensions() -> list[Path]:
    """What is compiled here: an extension for each room, and the one that has the code of them all."""
    return [*_ROOT.glob("*__mypyc.*.so"), *(_ROOT / "smtpmaild").rglob("*.so")]


def compile_rooms(rooms: Sequence[str]) -> None:
    """Put extensions beside the sources of these rooms. SystemExit says what is missing or wrong."""
    _look_for_a_compiler()
    for old in extensions():
        old.unlink()
    # Here and not above: only who compiles has them.
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    with TemporaryDirectory() as directory, contextlib.chdir(_ROOT):
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                # silent: what the rooms import may want extras that are not installed here.
                modules = mypycify(
                    ["--follow-imports=silent", *[f"smtpmaild/{room}.py" for room in rooms]],
                    target_dir=directory,
                    group_name="smtpmaild",
                    opt_level=os.environ.get("OPTIMIZE", "3"),
                    debug_level="0",
                )
        finally:
            sys.stdout.write(said.getvalue())
        if _EAGER in said.getvalue():
            raise SystemExit("compiling: write a loop or a generator function there; compiled, this would not be lazy")
        command = build_ext(Distribution({"ext_modules": modules}))
        command.inplace = True
        command.build_lib = command.build_temp = directory
        command.ensure_finalized()
        command.run()


def _look_for_a_compiler() -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_path("include"), "Python.h")
    missing = [] if shutil.which(compiler) else [f"the C compiler {compiler}"]
    missing += [] if header.is_file() else [f"Python's headers ({header})"]
    if missing:
        raise SystemExit(f"compiling needs {' and '.join(missing)}: apt install gcc libc6-dev python3-dev")


def rooms_of_the_project() -> list[str]:
    """The rooms that pyproject.toml names."""
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    rooms: list[str] = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["compiled"]
    return rooms


if __name__ == "__main__":
    compile_rooms(rooms_of_the_project())
