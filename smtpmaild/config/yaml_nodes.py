"""The YAML file as a tree of nodes that know their place, and the values in it.

YAML 1.2 core schema: only `true` and `false` are booleans; `no`, `010` and `1:20` are text. Left out on purpose, each
with a mistake that says so: tags, aliases (with them, files that grow when read), a second document, keys given
twice, keys without a value. `${NAME}` in a scalar becomes the environment variable, `$$` a dollar sign.

The tree is built from the parser's events, so that a place, a tag and the style of a scalar are at hand and the depth
is bounded. Nothing here knows what the keys mean.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import yaml

from smtpmaild.config.mistakes import Mistake, Severity, visible

try:  # the loader in C is five times as fast, but not every build of PyYAML has it
    from yaml import CSafeLoader as _Loader
except ImportError:  # pragma: no cover
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

Loc = tuple[str | int, ...]
Value = str | int | float | bool | list["Value"] | dict[str, "Value"]

_DEEPEST = 30

# What YAML takes for the end of a line (YAML 1.1 §5.4, which libyaml keeps).
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# YAML 1.1 §5.1: c-printable. Checked before parsing, for the sake of an exact place.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

# YAML 1.2 §10.3.2, plain scalars. We keep numbers with a leading zero as text: a file mode or a postal code, seldom
# a number. Digits are bounded: Python refuses to read more than 4,300, and nobody means them.
_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,30})")
_OCTAL = re.compile(r"0o[0-7]{1,30}")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,30}|(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{0,30})?)(?:[eE][-+]?[0-9]{1,3})?")

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<broken>\{))")


@dataclass(frozen=True, slots=True)
class Place:
    """line and column from 1, in characters; length within that line."""

    line: int
    column: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class ScalarNode:
    """text: after `${NAME}` was expanded.  is_plain: not in quotes and no block, so that it may be a number."""

    place: Place
    text: str
    is_plain: bool


@dataclass(frozen=True, slots=True, eq=False)
class SequenceNode:
    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MappingNode:
    """keys and values stand beside each other by the text of the key."""

    place: Place
    entries: Mapping[str, tuple[ScalarNode, Node]]


Node = ScalarNode | SequenceNode | MappingNode


class Document:
    """One file: its lines, its nodes, and every mistake found on the way to its values.

    path: as the user named it, for messages.  root: None where there is nothing to read or it could not be parsed.
    """

    def __init__(self, path: str, text: str, environment: Mapping[str, str]) -> None:
        self.path = path
        self.mistakes: list[Mistake] = []
        self._lines = _LINE_END.split(text)
        self._broken: set[Node] = set()
        self._synonyms: dict[tuple[Node, str], str] = {}
        composer = _Composer(self, environment)
        self.root = composer.compose(text) if self._is_printable(text) else None

    def _is_printable(self, text: str) -> bool:
        if match := _UNPRINTABLE.search(text):
            lines = _LINE_END.split(text[: match.start()])
            self.add(Place(len(lines), len(lines[-1]) + 1, 1), f"character {visible(match[0])} is not allowed in YAML")
        return match is None

    def value(self) -> Value:
        """The whole file as values; a scalar that is a mistake already is an empty text."""
        return {} if self.root is None else self._value(self.root)

    def _value(self, node: Node) -> Value:
        if isinstance(node, MappingNode):
            return {name: self._value(value) for name, (_, value) in node.entries.items()}
        if isinstance(node, SequenceNode):
            return [self._value(item) for item in node.items]
        return resolve(node.text) if node.is_plain and node not in self._broken else node.text

    def find(self, loc: Loc) -> tuple[ScalarNode | None, Node]:
        """The key and the value at a location; steps that the file does not have are skipped."""
        assert self.root is not None
        key: ScalarNode | None = None
        node = self.root
        for step in loc:
            if isinstance(node, MappingNode) and (entry := self._entry(node, step)):
                key, node = entry
            elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.items):
                key, node = None, node.items[step]
        return key, node

    def _entry(self, node: MappingNode, step: str | int) -> tuple[ScalarNode, Node] | None:
        name = str(step)
        return node.entries.get(name) or node.entries.get(self._synonyms.get((node, name), name))

    def also_known_as(self, mapping: MappingNode, key: str, name: str) -> None:
        """Find a key by another name too: the models have domains in A-labels, the file as people write them."""
        self._synonyms[mapping, name] = key

    def has(self, loc: Loc) -> bool:
        """True if the file has the whole of this location, not only the beginning."""
        return not loc or self.find(loc)[1] is not self.find(loc[:-1])[1]

    def where(self, loc: Loc) -> str:
        """`smtp.yaml:14`, for logs: the file without its folder, and the line."""
        return f"{os.path.basename(self.path)}:{self.place(loc, of_key=True).line}"

    def is_broken(self, loc: Loc, *, of_key: bool = False) -> bool:
        """True where a mistake was found already, so that another one would only repeat it."""
        key, node = self.find(loc)
        return key in self._broken if of_key else self.is_broken_node(node)

    def is_broken_node(self, node: Node) -> bool:
        """The same for a node."""
        return node in self._broken

    def place(self, loc: Loc, *, of_key: bool = False) -> Place:
        """What to underline: the value, or its key where the value fills lines below it."""
        key, node = self.find(loc)
        if key is not None and (of_key or node.place.line != key.place.line):
            return key.place
        return node.place

    def is_end(self, mark: yaml.Mark) -> bool:
        """True where nothing but blanks follows in the file."""
        following = (self.line(mark.line + 1)[mark.column :], *self._lines[mark.line + 1 :])
        return not any(map(str.strip, following))

    def place_of(self, mark: yaml.Mark | None) -> Place:
        """Where the parser stood; for a mark behind the last line, the end of that line."""
        if mark is not None and mark.line < len(self._lines):
            return Place(mark.line + 1, mark.column + 1, 1)
        return Place(len(self._lines), len(self._lines[-1]) + 1, 1)

    def line(self, number: int) -> str:
        """A line of the file, counted from 1; empty behind the end."""
        return self._lines[number - 1] if number <= len(self._lines) else ""

    def mistake(self, place: Place, message: str, severity: Severity = "error") -> Mistake:
        """A mistake at a place of this file."""
        return Mistake(self.path, place.line, place.column, place.length, message, self.line(place.line), severity)

    def add(self, place: Place, message: str, node: Node | None = None) -> None:
        """Keep a mistake; node: what is not worth a second one."""
        self.mistakes.append(self.mistake(place, message))
        if node is not None:
            self.forgive(node)

    def forgive(self, node: Node) -> None:
        """Take the node for broken: whatever else is wrong with it follows from that."""
        self._broken.add(node)


class _UnreadableError(Exception):
    """The rest of the file makes no sense; the mistake was kept."""


class _Composer:
    """Turns the events of the YAML parser into nodes, and what it does not take into mistakes."""

    def __init__(self, document: Document, environment: Mapping[str, str]) -> None:
        self._document = document
        self._environment = environment
        self._events: Iterator[yaml.Event] = iter(())
        self._seen_aliases: set[str | None] = set()

    def compose(self, text: str) -> Node | None:
        self._events = yaml.parse(text, Loader=_Loader)
        try:
            return self._stream()
        except yaml.MarkedYAMLError as error:
            self._syntax_mistake(error)
        except _UnreadableError:
            pass
        return None

    def _stream(self) -> Node | None:
        next(self._events)  # StreamStart
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        root = self._node(next(self._events), 0)
        next(self._events)  # DocumentEnd
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            self._give_up(self._place(following), "a second document: the configuration is one")
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        if depth > _DEEPEST:
            self._give_up(self._place(event), f"nested deeper than {_DEEPEST} levels")
        node = self._nodes[type(event)](self, event, depth)
        if getattr(event, "tag", None) is not None and isinstance(event, yaml.NodeEvent):
            self._document.add(self._place(event), "tags (!name) are not supported: write the plain value", node)
        return node

    def _alias(self, event: yaml.AliasEvent, depth: int) -> Node:
        node = ScalarNode(self._place(event), "", is_plain=False)
        self._document.forgive(node)
        if event.anchor not in self._seen_aliases:  # a file full of them is told once for each name
            self._document.add(node.place, f"aliases (*{event.anchor}) are not supported: write the value out")
        self._seen_aliases.add(event.anchor)
        return node

    def _scalar(self, event: yaml.ScalarEvent, depth: int) -> ScalarNode:
        place = self._place(event)
        text, problem = self._expanded(event.value, place)
        node = ScalarNode(problem[0] if problem else place, text, is_plain=event.style in (None, ""))
        if problem:
            self._document.add(*problem, node)
        return node

    def _sequence(self, event: yaml.SequenceStartEvent, depth: int) -> Node:
        items = []
        while not isinstance(following := next(self._events), yaml.SequenceEndEvent):
            item = self._node(following, depth + 1)
            if self._is_null(item):
                self._document.add(self._visible_place(item), "an entry of a list without a value", item)
            items.append(item)
        return SequenceNode(self._place(event, following), tuple(items))

    def _mapping(self, event: yaml.MappingStartEvent, depth: int) -> Node:
        entries: dict[str, tuple[ScalarNode, Node]] = {}
        while not isinstance(following := next(self._events), yaml.MappingEndEvent):
            key = self._node(following, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if self._is_good_key(key, entries):
                assert isinstance(key, ScalarNode)
                entries[key.text] = (key, value)
                if self._is_null(value):
                    message = f"'{key.text}' has no value: give it one or leave the key out"
                    self._document.add(key.place, message, value)
        first = next(iter(entries.values()))[0].place if entries else self._place(event)
        return MappingNode(first, entries)

    def _is_null(self, node: Node) -> bool:
        is_null = isinstance(node, ScalarNode) and node.is_plain and node.text in _NULLS
        return is_null and not self._document.is_broken_node(node)

    def _is_good_key(self, key: Node, entries: Mapping[str, tuple[ScalarNode, Node]]) -> bool:
        if not isinstance(key, ScalarNode):
            self._document.add(key.place, "a key must be one word or text, not a list or a mapping")
            return False
        if key.text in entries:
            first = entries[key.text][0].place.line
            if not self._document.is_broken_node(key):  # two variables that are not set look the same
                self._document.add(key.place, f"'{key.text}' is given twice, the first time in line {first}", key)
            return False
        return True

    _nodes: Mapping[type, Callable[..., Node]] = {
        yaml.AliasEvent: _alias,
        yaml.ScalarEvent: _scalar,
        yaml.SequenceStartEvent: _sequence,
        yaml.MappingStartEvent: _mapping,
    }

    def _expanded(self, text: str, place: Place) -> tuple[str, tuple[Place, str] | None]:
        """The text with its variables, and the first problem with them."""
        problem: tuple[Place, str] | None = None

        def replacement(match: re.Match[str]) -> str:
            nonlocal problem
            if match["dollar"]:
                return "$"
            if match["name"] and match["name"] in self._environment:
                return self._environment[match["name"]]
            message = "'${' without a name and '}': write $$ for a dollar sign"
            if match["name"]:
                message = f"the environment has no variable '{match['name']}'"
            problem = problem or (self._within(place, match[0]), message)
            return ""

        return (_VARIABLE.sub(replacement, text), problem) if "$" in text else (text, None)

    def _within(self, place: Place, text: str) -> Place:
        """The place of a part of a scalar, where it stands in the line in which the scalar begins."""
        at = self._document.line(place.line).find(text, place.column - 1)
        return place if at < 0 else Place(place.line, at + 1, len(text))

    def _place(self, event: yaml.Event, last: yaml.Event | None = None) -> Place:
        start, end = event.start_mark, (last or event).end_mark
        assert start is not None and end is not None
        line = start.line + 1
        rest = len(self._document.line(line).rstrip()) - start.column
        length = end.column - start.column if end.line == start.line else rest
        return Place(line, start.column + 1, max(1, min(length, rest)))

    def _visible_place(self, item: Node) -> Place:
        """What stands for an entry without a value: ~, null, or where nothing does, the dash before it."""
        place = item.place
        if self._document.line(place.line)[place.column - 1 :][:1].strip():
            return place
        return Place(place.line, max(1, place.column - 1), 1)

    def _syntax_mistake(self, error: yaml.MarkedYAMLError) -> None:
        mark, began = error.problem_mark, error.context_mark
        if began is not None and (mark is None or self._document.is_end(mark)):
            mark = began  # the end of the file tells nothing, what was not finished does
        place = self._document.place_of(mark)
        context = f" {error.context}" if error.context else ""
        if began is not None and began.line + 1 != place.line:
            context += f" that began in line {began.line + 1}"
        self._document.add(place, f"not YAML: {error.problem}{context}{self._hint(error.problem or '', place)}")

    def _hint(self, problem: str, place: Place) -> str:
        line = self._document.line(place.line)
        before, after = line[: place.column - 1], line[place.column - 1 :]
        if after.startswith("\t"):
            return "; indent with blanks, not with tabs"
        if line[: place.column].endswith("${"):
            return '; within { } and [ ] it needs quotes: "${NAME}"'
        if before.endswith("[") and after.startswith(":"):
            return '; an IPv6 address needs quotes: "[::1]:25"'
        if _BRACKET_IN_TEXT.search(line[: place.column]):
            return "; within { } and [ ] text that has brackets itself needs quotes"
        if after.startswith(":") and _ONLY_A_KEY.fullmatch(before):
            return "; it is indented further than the line above it allows"
        return _YAML_HINTS.get(problem, "")

    def _give_up(self, place: Place, message: str) -> NoReturn:
        self._document.add(place, message)
        raise _UnreadableError


# A bracket right behind text, as in {path: mail/{domain}}: YAML begins a list or a mapping there.
_BRACKET_IN_TEXT = re.compile(r"[\w/.+@-][{\[]$")
_ONLY_A_KEY = re.compile(r" +(?:- +)?[\w.-]+")
# What the parser says, and what people mostly did.
_YAML_HINTS = {
    "did not find expected '-' indicator": "; the entries of a list begin in the same column",
    "did not find expected key": "; keys that belong together begin in the same column",
    "found character that cannot start any token": "; text that begins with @, % or ` needs quotes",
    "mapping values are not allowed in this context": "; text with ': ' in it needs quotes",
    "could not find expected ':'": "; a ':' after the key, or a quote, is missing",
}


def resolve(text: str) -> str | int | float | bool:
    """The value of a plain scalar."""
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    for pattern, convert in _NUMBERS:
        if pattern.fullmatch(text):
            return convert(text)
    return text


_NUMBERS: Sequence[tuple[re.Pattern[str], Callable[[str], int | float]]] = (
    (_INTEGER, int),
    (_OCTAL, lambda text: int(text, 8)),
    (_HEXADECIMAL, lambda text: int(text, 16)),
    (_FLOAT, float),
)


def process_environment() -> Mapping[str, str]:
    """The variables `${NAME}` is looked up in."""
    return os.environ
