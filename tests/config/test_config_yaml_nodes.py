from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smtpmaild.config import yaml_nodes
from smtpmaild.config.yaml_nodes import Document, MappingNode, Place, ScalarNode, resolve


def read(text: str, **environment: str) -> Document:
    return Document("smtp.yaml", text, environment)


def value(text: str, **environment: str) -> object:
    document = read(text, **environment)
    assert not document.mistakes, [mistake.message for mistake in document.mistakes]
    return document.value()


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("true", True),
        ("False", False),
        ("no", "no"),  # YAML 1.1 took these for booleans
        ("on", "on"),
        ("y", "y"),
        ("0", 0),
        ("-12", -12),
        ("+12", 12),
        ("010", "010"),  # ... and this for 8
        ("1:20", "1:20"),  # ... and this for 80
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("0o17", 15),
        ("0x1F", 31),
        ("5e3", 5000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.2.3", "1.2.3"),
        (".inf", ".inf"),  # no key of ours wants it
        ("1" * 31, 10**31 // 9),
        ("1" * 5000, "1" * 5000),  # int() refuses more than 4,300 digits
        ("\u0661", "\u0661"),  # only ASCII digits are digits
        ("2001-01-01", "2001-01-01"),
        ("", ""),
    ],
)
def test_plain_scalars_of_yaml_1_2(text: str, resolved: object) -> None:
    found = resolve(text)
    assert (found, type(found)) == (resolved, type(resolved))


def test_quotes_make_text() -> None:
    assert value('["1", \'true\', "0o17"]') == ["1", "true", "0o17"]
    assert value("a: |\n  1\n") == {"a": "1\n"}


def test_keys_are_text() -> None:
    assert value("{1: a, true: b}") == {"1": "a", "true": "b"}


def test_environment() -> None:
    assert value("a: ${X}-${Y_2}", X="1", Y_2="2") == {"a": "1-2"}
    assert value("a: ${X}", X="5") == {"a": 5}  # a plain scalar may be a number
    assert value('a: "${X}"', X="5") == {"a": "5"}
    assert value('"${X}": 1', X="key") == {"key": 1}
    assert value("a: $X $$ $${X}", X="5") == {"a": "$X $ ${X}"}
    assert value("a: ${X}", X="${Y}") == {"a": "${Y}"}  # once, not again


def test_empty_variable_is_no_value() -> None:
    (mistake,) = read("a: ${X}", X="").mistakes
    assert mistake.message == "'a' has no value: give it one or leave the key out"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: x${NO}", (1, 5, 5), "the environment has no variable 'NO'"),
        ('a: "x\n  ${NO}"', (1, 4, 2), "the environment has no variable 'NO'"),  # in a later line: where it begins
        ("a: ${1}", (1, 4, 2), "'${' without a name and '}'"),
        ("a: b\na: c", (2, 1, 1), "'a' is given twice, the first time in line 1"),
        ("a: &x b\nc: *x\nd: *x", (2, 4, 2), "aliases (*x) are not supported"),
        ("a: !!str b", (1, 4, 7), "tags (!name) are not supported"),
        ("a:\n  -\n  - b", (2, 3, 1), "an entry of a list without a value"),
        ("a:\n  - b\n  -\n", (3, 3, 1), "an entry of a list without a value"),
        ("a:\n  - # b\n  - c", (2, 3, 1), "an entry of a list without a value"),
        ("a:\n  - ~", (2, 5, 1), "an entry of a list without a value"),
        ("a:\n  - ${EMPTY}", (2, 5, 8), "an entry of a list without a value"),
        ("? {a: b}\n: c", (1, 4, 1), "a key must be one word or text"),
        ("a: b\n--- c", (2, 1, 3), "a second document"),
        ("a: \x07", (1, 4, 1), "character \\x07 is not allowed in YAML"),
        ("a: b\n\ufeffc: d", (2, 1, 1), "character \\ufeff is not allowed in YAML"),
        ("a: b\x85c: \x00", (2, 4, 1), "character \\x00 is not allowed in YAML"),  # NEL ends a line in YAML 1.1
        ("a: [b", (1, 4, 1), "not YAML: did not find expected ',' or ']' while parsing a flow sequence"),
        ("a: 'b", (1, 4, 1), "not YAML: found unexpected end of stream"),
        ("a: {b: ${X}}", (1, 9, 1), 'within { } and [ ] it needs quotes: "${NAME}"'),
        ("a:\n\t- b", (2, 1, 1), "indent with blanks, not with tabs"),
        ("a: b: c", (1, 5, 1), "text with ': ' in it needs quotes"),
        ("[" * 40, (1, 32, 1), "nested deeper than 30 levels"),
    ],
)
def test_mistake(text: str, place: tuple[int, int, int], words: str) -> None:
    (mistake,) = read(text, EMPTY="").mistakes
    assert (mistake.line, mistake.column, mistake.length) == place
    assert words in mistake.message


@pytest.mark.parametrize("text", ["", "# comment\n", "---\n# comment\n...\n"[:0]])
def test_nothing_in_the_file(text: str) -> None:
    document = read(text)
    assert document.root is None
    assert document.value() == {}
    assert not document.mistakes


TEXT = """\
hostname: mx.example.com
listeners:
  - name: mx
    listen: [a, b]
  - {name: second}
"""


@pytest.mark.parametrize(
    ("loc", "of_key", "place"),
    [
        ((), False, Place(1, 1, 8)),
        (("hostname",), False, Place(1, 11, 14)),
        (("hostname",), True, Place(1, 1, 8)),
        (("listeners",), False, Place(2, 1, 9)),  # a value that fills the lines below is shown by its key
        (("listeners", 0), False, Place(3, 5, 4)),  # a mapping by its first key
        (("listeners", 0, "listen"), False, Place(4, 13, 6)),
        (("listeners", 0, "listen", 1), False, Place(4, 17, 1)),
        (("listeners", 1, "name"), False, Place(5, 12, 6)),
        (("listeners", 7, "name"), False, Place(2, 1, 9)),  # what is there of it
        (("listeners", "smtp", 0, "name", "[key]"), True, Place(3, 5, 4)),  # steps of pydantic's own
    ],
)
def test_places(loc: yaml_nodes.Loc, of_key: bool, place: Place) -> None:
    assert read(TEXT).place(loc, of_key=of_key) == place


def test_where_names_file_and_line() -> None:
    document = Document("/etc/smtpmaild/smtp.yaml", TEXT, {})
    assert document.where(("listeners", 1)) == "smtp.yaml:5"
    assert document.where(("hostname",)) == "smtp.yaml:1"


def test_another_name_for_a_key() -> None:
    document = read("Bücher.example: 1")
    assert isinstance(document.root, MappingNode)
    assert not document.has(("xn--bcher-kva.example",))
    document.also_known_as(document.root, "Bücher.example", "xn--bcher-kva.example")
    assert document.has(("xn--bcher-kva.example",))
    key, node = document.find(("xn--bcher-kva.example",))
    assert isinstance(key, ScalarNode) and isinstance(node, ScalarNode)
    assert (key.text, node.text) == ("Bücher.example", "1")


def test_line_behind_the_end() -> None:
    assert read("a: b").line(2) == ""


def test_billion_laughs_costs_nothing() -> None:
    text = (Path(__file__).parent / "billion-laughs.yaml").read_text()
    began = time.perf_counter()
    document = read(text)
    assert len(str(document.value())) < 5000
    assert len(document.mistakes) == 9
    assert time.perf_counter() - began < 1


FRAGMENTS = st.sampled_from(
    ["a", "b: ", ": ", "- ", "\n", "\n  ", "[", "]", "{", "}", ", ", "'", '"', "|", ">", "#", "&x ", "*x", "!t ", "? "]
    + ["---", "...", "%", "${X}", "${", "$", "~", "\t", "\r", "\x85", "\u2028", "\ufeff", "\x00", "\ud800", "é", "受"]
)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(FRAGMENTS, max_size=30).map("".join)))
@example("? - a\n: b")
@example("a: |\n\t${X}")
@example("'\u2028' : ${X}")
def test_whatever_the_file_holds(text: str) -> None:
    document = read(text)
    document.value()
    lines = yaml_nodes._LINE_END.split(text)
    for mistake in document.mistakes:
        assert 1 <= mistake.line <= len(lines)
        assert mistake.source == lines[mistake.line - 1]
        assert 1 <= mistake.column <= len(mistake.source) + 1
        mistake.render()


@settings(deadline=None)
@given(st.lists(FRAGMENTS, max_size=30).map("".join))
def test_loader_in_python_finds_the_same_values(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        in_c = read(text)
        patch.setattr(yaml_nodes, "_Loader", yaml.SafeLoader)
        in_python = read(text)
    if not in_c.mistakes and not in_python.mistakes:
        assert in_c.value() == in_python.value()
