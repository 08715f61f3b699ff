"""Mistakes in the configuration, shown as a compiler shows them.

    smtp.yaml:14:5: unknown key 'mailboxs' in local_domains.example.com; did you mean 'mailboxes'?
       14 |     mailboxs: [alice, bob]
          |     ^~~~~~~~

Whatever the file holds, what is printed is safe for a terminal: control and format characters appear as escapes, long
lines are cut around the place, and the caret stands under it whether the line has tabs, wide or combining characters.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from smtpmaild.config.models import Config

#: danger: well-formed, and an error all the same: it could be served, and must not be.
Severity = Literal["error", "danger", "warning"]

#: Cells of a source line that are shown, and how many of them at most stand before the caret.
_WIDTH = 100
_BEFORE = 60
# A quoted value in a message: of a long one its beginning is enough to know it. Short ones are matched too, or what
# stands between two of them would be taken for a value.
_VALUE = re.compile(r"'([^']*)'")
_LONGEST_VALUE, _ENOUGH_OF_IT = 79, 60
_TAB = "    "
# Control, format (with the marks that turn the direction of text), surrogate, unassigned, and line separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, and where.

    path: the file as the user named it.  line, column: from 1, in characters; 0 where the file as a whole is meant.
    length: of the underline, in characters.  source: the line of the file, as it is.
    """

    path: str
    line: int
    column: int
    length: int
    message: str
    source: str = ""
    severity: Severity = "error"

    @property
    def is_error(self) -> bool:
        """False for a warning, with which the daemon starts."""
        return self.severity != "warning"

    def render(self) -> str:
        """Up to three lines without the last line end."""
        label = "" if self.is_error else "warning: "
        message = label + _VALUE.sub(_shortened, visible(self.message))
        if not self.line:
            return f"{visible(self.path)}: {message}"
        shown, before, under = _window(self.source, self.column - 1, self.length)
        return (
            f"{visible(self.path)}:{self.line}:{self.column}: {message}\n{self.line:5} | {shown}".rstrip()
            + f"\n      | {' ' * before}^{'~' * (under - 1)}"
        )


class ConfigError(Exception):
    """The configuration cannot be used; mistakes holds every reason, in the order of the file.

    dangerous: the configuration, where it could be served and must not be: for those who ask what it would do.
    """

    def __init__(self, mistakes: Iterable[Mistake], dangerous: Config | None = None) -> None:
        self.mistakes = in_order(mistakes)
        self.dangerous = dangerous
        super().__init__(self.mistakes)

    def render(self) -> str:
        """All mistakes, as they are printed."""
        return "\n".join(mistake.render() for mistake in self.mistakes)

    def __str__(self) -> str:
        return self.render()


def in_order(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Sorted by place, each once."""
    return sorted(dict.fromkeys(mistakes), key=lambda mistake: (mistake.path, mistake.line, mistake.column))


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest valid word, or nothing where none is near."""
    words = {word.lower(): word for word in valid}
    near = difflib.get_close_matches(wrong.lower()[:100], words, n=1, cutoff=0.6)
    return f"; did you mean '{words[near[0]]}'?" if near else ""


def _shortened(value: re.Match[str]) -> str:
    return f"'{value[1][:_ENOUGH_OF_IT]}…'" if len(value[1]) > _LONGEST_VALUE else value[0]


def visible(text: str) -> str:
    """The text with everything that could move the cursor or hide something as an escape."""
    return text if text.isascii() and text.isprintable() else "".join(map(_cell, text))


def _cell(character: str) -> str:
    if character == "\t":
        return _TAB
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")


def _width(text: str) -> int:
    """Columns of a terminal that a printed text takes."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _window(line: str, start: int, length: int) -> tuple[str, int, int]:
    """The part of a line to show, the columns before the caret in it, and the columns under it."""
    first, left_out = _window_start(line, min(start, len(line)))
    shown, before, under = ("…", 1, 0) if left_out else ("", 0, 0)
    width = before
    for index in range(first, len(line)):
        cell = _cell(line[index])
        columns = _width(cell)
        if width + columns > _WIDTH:
            shown += "…"
            break
        shown += cell
        width += columns
        before += columns if index < start else 0
        under += columns if start <= index < start + length else 0
    return shown, before, max(1, under)


def _window_start(line: str, start: int) -> tuple[int, bool]:
    """Where to begin so that what the caret marks is in sight."""
    room, first = _BEFORE, start
    while first and (columns := _width(_cell(line[first - 1]))) <= room:
        room -= columns
        first -= 1
    return first, first > 0
