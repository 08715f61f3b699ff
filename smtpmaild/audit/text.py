"""An audit for people: one screen for a small configuration, the answer before its reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from smtpmaild.audit.report import Audit, CounterExample, Decision, Way
from smtpmaild.audit.rights import Rights
from smtpmaild.config.mistakes import visible

#: Of a long list its beginning is enough here; --json has it whole.
_LONGEST = 60


def render(audit: Audit) -> str:
    """The whole, without colour and without a last line end."""
    parts = (_head, _listeners, _relaying, _strangers, _files, _findings)
    return visible_lines("\n\n".join("\n".join(part(audit)) for part in parts))


def visible_lines(text: str) -> str:
    """Nothing that a configuration holds moves the cursor."""
    return "\n".join(map(visible, text.split("\n")))


def _head(audit: Audit) -> Iterator[str]:
    yield f"{audit.config or 'The configuration'}, serving as {audit.hostname}"


def _listeners(audit: Audit) -> Iterator[str]:
    yield "Listeners"
    yield from _table(
        [
            (
                door.name,
                door.role,
                door.protocol.upper(),
                " ".join(door.addresses),
                "no TLS" if door.tls == "none" else f"TLS {door.tls}",
                "no AUTH" if door.auth == "none" else f"AUTH {door.auth}",
                f"no strangers: {door.strangers}" if door.strangers else "open to strangers",
            )
            for door in audit.listeners
        ]
    )


def _relaying(audit: Audit) -> Iterator[str]:
    yield "Who can send through us, the first that matches"
    rows = [_way(way) for way in audit.relaying]
    yield from _table([*rows, ("nobody else", "", "", "", "")])


def _way(way: Way) -> Sequence[str]:
    by = "by" if way.action == "relay" else "into the store"
    who = "; ".join(map(_short, way.who)) or "everybody"
    return way.rule, _place(way.where), who, f"to {_short(', '.join(way.to)) or 'anywhere'}", f"{by} {way.target}"


def _strangers(audit: Audit) -> Iterator[str]:
    if audit.can_strangers_relay:
        yield "Can a stranger relay? YES"
    else:
        looked = f"every kind of stranger was looked at ({audit.classes}), with mail for a domain that is not ours"
        yield f"Can a stranger relay? No: {looked if audit.classes else 'none comes in'}"
    for example in audit.counter_examples:
        yield from _example(example)
    for way in audit.relaying:
        if way.barrier:
            yield f"  '{way.rule}' {_place(way.where)}: {way.barrier}"
    for door in audit.listeners:
        if door.strangers:
            yield f"  {door.name}: {door.strangers}"
    for listener, decisions in groupby(sorted(audit.decisions, key=lambda one: one.listener), lambda one: one.listener):
        said = "; ".join(map(_decision, decisions))
        yield f"  {listener}: {said}"


def _decision(one: Decision) -> str:
    said = "refused by" if one.outcome == "refused" else "from a network known to"
    return f"{one.classes} {said} '{one.rule}'{f' {_place(one.where)}' if one.where else ''}"


def _example(example: CounterExample) -> Iterator[str]:
    yield f"  by '{example.rule}' {_place(example.where)}, who is answered {example.reply}:"
    yield f"    {example.command}"


def _files(audit: Audit) -> Iterator[str]:
    yield "Files"
    yield from _table([_file(rights) for rights in audit.files])


def _file(rights: Rights) -> Sequence[str]:
    if not rights.mode:
        return rights.what, rights.path, "not there", "", ""
    return (
        rights.what,
        rights.path,
        f"{rights.mode} {rights.owner}:{rights.group}",
        f"read by {', '.join(rights.readers) or 'root alone'}",
        f"written by {', '.join(rights.writers) or 'root alone'}",
    )


def _findings(audit: Audit) -> Iterator[str]:
    if not audit.findings:
        yield "Nothing found that should not be so"
        return
    number = len(audit.findings)
    yield f"{number} thing{'' if number == 1 else 's'} to look at"
    for finding in audit.findings:
        yield f"  {f'{finding.where}: ' if finding.where else ''}{finding.message}"


def _place(where: str) -> str:
    return f"({where})" if where else ""


def _short(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    shown = text[:_LONGEST].rpartition(", ")[0] or text[:_LONGEST]
    return f"{shown} and {text[len(shown) :].count(', ')} more"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns of equal width, two blanks before each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
