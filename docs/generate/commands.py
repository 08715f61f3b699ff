"""The commands as click knows them: what a page shows of each.

The help text of a command is the one source: its docstring, its options, its epilog. The words of options are composed
here and not by click, whose own differ between versions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from smtpmaild.cli import cli

PROGRAM = "smtpmaild"


@dataclass(frozen=True, slots=True)
class Option:
    """spelled: as typed, with what it takes."""

    spelled: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """paragraphs: one that begins with a blank is to be shown as it is.  examples: lines to type."""

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[Option, ...]
    examples: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first sentence, without its full stop."""
        return re.split(r"(?<=\w)\.(?:\s|$)|;", self.paragraphs[0])[0]


def commands() -> Iterator[Command]:
    """The program itself, then every command and those below it, by their names."""
    yield from _walk(cli, click.Context(cli, info_name=PROGRAM, **cli.context_settings))


def _walk(command: click.Command, context: click.Context) -> Iterator[Command]:
    yield Command(
        name=context.command_path,
        usage=" ".join([context.command_path, *command.collect_usage_pieces(context)]),
        paragraphs=tuple(_paragraphs(command.help or "")),
        options=tuple(_options(command)),
        examples=tuple(_examples(command.epilog or "")),
    )
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            if not inner.hidden:
                yield from _walk(inner, click.Context(inner, parent=context, info_name=name, **inner.context_settings))


def _paragraphs(text: str) -> Iterator[str]:
    """click: a paragraph behind a line of "\\b" keeps its lines, and "\\f" ends what people see."""
    for paragraph in inspect.cleandoc(text).partition("\f")[0].split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        if lines[0].strip() == "\b":
            yield "\n".join(f"    {line}" for line in lines[1:])
        else:
            yield " ".join(line.strip() for line in lines)


def _options(command: click.Command) -> Iterator[Option]:
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        names = ", ".join([*sorted(parameter.opts, key=len), *parameter.secondary_opts])
        words = [parameter.help or ""]
        if parameter.envvar:
            words.append(f"The environment variable {parameter.envvar} stands in for it.")
        if parameter.show_default:
            words.append(
                f'Left out: "{parameter.default}".' if parameter.default == "" else f"Left out: {parameter.default}."
            )
        takes = "" if parameter.is_flag or parameter.count else f" {_metavar(parameter)}"
        yield Option(names + takes, " ".join(words))


def _metavar(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(str(choice) for choice in option.type.choices)
    return _NAMES_OF_TYPES.get(option.type.name, option.type.name.upper())


_NAMES_OF_TYPES = {"filename": "FILE", "directory": "DIRECTORY", "integer": "N", "integer range": "N", "float": "N"}


def _examples(epilog: str) -> Sequence[str]:
    """Behind "Example:" stands one, below "Examples:" one a line."""
    lines = [line.strip() for line in epilog.replace("\b", "").splitlines()]
    lines = [re.sub(r"^Examples?:\s*", "", line) for line in lines]
    return [line for line in lines if line]
