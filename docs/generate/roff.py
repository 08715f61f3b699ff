"""The man pages smtpmaild(1) and smtpmaild.yaml(5), in the macros of man(7)."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from smtpmaild import __version__

from .around import ENVIRONMENT, EXIT_STATUSES, FILES, INTRODUCTION, SIGNALS, VALUES, Rows
from .commands import PROGRAM, Command
from .examples import EXAMPLES
from .keys import Key, Section

#: The day of a page is that of the release, which nobody knows here: without one, a page is the same whoever makes it.
_DATE = ""
_NOTICE = '.\\" Made by `make docs` from the code; changes belong there.'


def commands(found: Sequence[Command]) -> str:
    """smtpmaild.1"""
    program, *others = found
    lines = [*_head("SMTPMAILD", 1, PROGRAM, "an SMTP daemon with one readable configuration file")]
    lines += [".SH SYNOPSIS", ".nf"]
    lines += [
        f"{_usage(command)}" for command in found if command.usage.endswith("...") or " COMMAND" not in command.usage
    ]
    lines += [".fi", ".SH DESCRIPTION"]
    lines += _paragraphs(program.paragraphs)
    lines += [".SH OPTIONS", *_options(program)]
    lines += [".SH COMMANDS"]
    for command in others:
        lines += [f".SS {_quoted(command.name.removeprefix(PROGRAM + ' '))}", *_paragraphs(command.paragraphs)]
        lines += _options(command)
    lines += _rows("EXIT STATUS", EXIT_STATUSES, "As in sysexits.h, where a command does not say otherwise.")
    lines += _rows("SIGNALS", SIGNALS)
    lines += _rows("ENVIRONMENT", ENVIRONMENT)
    lines += _rows("FILES", FILES)
    lines += [".SH EXAMPLES", ".nf"]
    lines += [_line(_escaped(example)) for command in found for example in command.examples]
    lines += [".fi", ".SH SEE ALSO", ".BR smtpmaild.yaml (5)"]
    return "\n".join(lines) + "\n"


def configuration(sections: Sequence[Section]) -> str:
    """smtpmaild.yaml.5"""
    lines = [*_head("SMTPMAILD.YAML", 5, "smtpmaild.yaml", "the configuration of smtpmaild")]
    lines += [".SH DESCRIPTION", *_paragraphs(INTRODUCTION)]
    lines += _rows("VALUES", VALUES)
    for section in sections:
        lines += _section(section)
    lines += [".SH SEE ALSO", ".BR smtpmaild (1)"]
    return "\n".join(lines) + "\n"


def _head(title: str, number: int, name: str, text: str) -> list[str]:
    head = f'.TH {title} {number} "{_DATE}" "smtpmaild {__version__}"'
    return [_NOTICE, head, ".SH NAME", f"{name} \\- {text}"]


def _section(section: Section) -> Iterator[str]:
    yield f".SS {_quoted(section.title)}" if section.depth else f".SH {_quoted(section.title.upper())}"
    if section.key is not None:
        yield from _facts(section.key)
    elif section.description:
        yield _text(section.description)
    if example := EXAMPLES.get(section.title):
        yield from (".RS", ".nf", *(_line(_escaped(line)) for line in example.splitlines()), ".fi", ".RE")
    for key in section.keys:
        yield from _key(key)


def _key(key: Key) -> Iterator[str]:
    yield from (".TP", f".B {_quoted(key.path[-1])}", *_facts(key))


def _facts(key: Key) -> Iterator[str]:
    facts = [f"{key.kind[0].upper()}{key.kind[1:]}" if key.kind[0] != "`" else key.kind]
    facts += ["required"] if key.is_required else []
    facts += [f"default {key.default}"] if key.default else []
    facts += key.roles
    yield _text(f"{'; '.join(facts)}.")
    if key.description:
        yield from (".br", _text(key.description))
    if key.examples:
        yield from (".br", _text(f"Example: {' or '.join(key.examples)}"))


def _usage(command: Command) -> str:
    return f"\\fB{_escaped(command.name)}\\fR{_escaped(command.usage.removeprefix(command.name))}"


def _paragraphs(paragraphs: Sequence[str]) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        if paragraph.startswith(" "):
            yield from (".nf", *(_line(_escaped(line)) for line in paragraph.splitlines()), ".fi")
        else:
            yield _text(paragraph)


def _options(command: Command) -> Iterator[str]:
    for option in command.options:
        yield from (".TP", f".B {_quoted(option.spelled)}", _text(option.text))


def _rows(title: str, rows: Rows, text: str = "") -> Iterator[str]:
    yield f".SH {_quoted(title)}"
    if text:
        yield _text(text)
    for term, words in rows:
        yield from (".TP", f".B {_quoted(term)}", _text(words))


def _quoted(text: str) -> str:
    """The one argument of a macro."""
    return '"' + _escaped(text).replace('"', "\\(dq") + '"'


def _text(text: str) -> str:
    """A paragraph: what stands between backticks is bold."""
    marked = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", _escaped(text))
    return "\n".join(map(_line, textwrap.wrap(marked, 79, break_long_words=False, break_on_hyphens=False)))


def _line(text: str) -> str:
    """A line that is none of roff's, whatever it begins with."""
    return f"\\&{text}" if text[:1] in (".", "'") else text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("^", "\\(ha").replace("~", "\\(ti")
