"""docs/configuration.md and docs/commands.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .around import COMMANDS_INTRODUCTION, ENVIRONMENT, EXIT_STATUSES, FILES, INTRODUCTION, PAGES, SIGNALS, VALUES, Rows
from .commands import Command
from .examples import EXAMPLES
from .keys import Key, Section

NOTICE = "<!-- Made by `make docs` from the code; changes belong there. -->"


def anchor(heading: str) -> str:
    """What a heading is called in a link: as GitHub and others make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def configuration(sections: Sequence[Section]) -> str:
    """The reference of the file."""
    parts = ["# smtp.yaml: every key", NOTICE, *INTRODUCTION, "## How values are written", _table("value", VALUES)]
    parts += ["## Contents", "\n".join(_contents(sections))]
    for section in sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _contents(sections: Sequence[Section]) -> Iterator[str]:
    for section in sections:
        keys = ", ".join(f"[{key.path[-1]}](#{anchor(_heading(key, section))})" for key in section.keys)
        indent, own = "  " * (section.depth > 0), f"[{section.title}](#{anchor(section.title)})"
        yield f"{indent}- {own}: {keys}" if keys else f"{indent}- {own}"


def _heading(key: Key, section: Section) -> str:
    """Unique: a key that several types of relays have, in their own ways, is called by the type too."""
    _, comma, types = section.title.partition(", ")
    return f"{': '.join(key.path)}" + (f" ({types.partition(' ')[2]})" if comma else "")


def _section(section: Section) -> Iterator[str]:
    yield f"{'##' if section.depth == 0 else '###'} {section.title}"
    if section.key is not None:
        yield _key(section.key)
    elif section.description:
        yield _marked(section.description)
    if example := EXAMPLES.get(section.title):
        yield f"```yaml\n# {'smtp.yaml' if section.title == 'The top level' else 'part of smtp.yaml'}\n{example}```"
    if page := PAGES.get(section.title):
        yield f"More: [{page}]({page})"
    for key in section.keys:
        yield f"#### {_heading(key, section)}"
        yield _key(key)


def _key(key: Key) -> str:
    kind = f"[{key.kind}](#{anchor(key.more)})" if key.more else key.kind
    facts = [kind[0].upper() + kind[1:] if kind[0] != "`" else kind]
    if key.is_required:
        facts.append("required")
    if key.default:
        facts.append(f"default `{key.default}`")
    facts += key.roles
    lines = [f"{'; '.join(facts)}.", _marked(key.description)]
    if key.examples:
        lines.append(f"Example: {' or '.join(f'`{example}`' for example in key.examples)}")
    return "\\\n".join(line for line in lines if line)


def commands(found: Sequence[Command]) -> str:
    """The reference of the command line."""
    parts = [
        "# The commands",
        NOTICE,
        COMMANDS_INTRODUCTION,
        "\n".join(f"- [{command.name}](#{anchor(command.name)}): {command.summary}" for command in found),
    ]
    for command in found:
        parts += _command(command)
    parts += ["## Exit status", "As in sysexits.h, where a command does not say otherwise."]
    parts += [_table("status", EXIT_STATUSES)]
    parts += ["## Signals", "What the daemon does when it gets one.", _table("signal", SIGNALS)]
    parts += ["## Environment", _table("variable", ENVIRONMENT), "## Files", _table("file", FILES)]
    return "\n\n".join(parts) + "\n"


def _command(command: Command) -> Iterator[str]:
    yield f"## {command.name}"
    yield f"```\n{command.usage}\n```"
    for paragraph in command.paragraphs:
        yield f"```\n{_dedented(paragraph)}\n```" if paragraph.startswith(" ") else _marked(paragraph)
    if command.options:
        yield _table("option", [(option.spelled, option.text) for option in command.options])
    if command.examples:
        lines = "\n".join(command.examples)
        yield f"For example:\n\n```sh\n{lines}\n```"


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.split("\n"))


def _table(name: str, rows: Rows) -> str:
    lines = [f"| {name} | |", "|---|---|"]
    lines += [f"| `{_cell(term)}` | {_cell(_marked(text))} |" for term, text in rows]
    return "\n".join(lines)


def _marked(text: str) -> str:
    """Asterisks and angle brackets are themselves, but for what stands in backticks."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
