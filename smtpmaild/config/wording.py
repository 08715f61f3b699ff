"""Turns what pydantic found into sentences for people, with the nearest valid key or value.

One row per kind of error. What the models say themselves (ValueError) is a whole sentence already. The valid keys and
values of a place are read from the JSON Schema, the one description of the file that is plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from smtpmaild.config.mistakes import Mistake, did_you_mean
from smtpmaild.config.yaml_nodes import Document, Loc, MappingNode, ScalarNode, SequenceNode

Schema = Mapping[str, Any]

#: Keys of the finished product that this version has no use for yet.
_LATER_KEYS = {"certificate", "milters", "include"}
# Errors that mean the key rather than its value, or one that is missing in the mapping.
_ABOUT_THE_KEY = {"extra_forbidden", "missing", "union_tag_not_found"}


class Wording:
    """Explains the errors of one validation of one document."""

    def __init__(self, document: Document, schema: Schema) -> None:
        self._document = document
        self._schema = schema

    def mistake(self, error: ErrorDetails) -> Mistake | None:
        """The mistake for an error; None where the document has one at this place already."""
        loc = error["loc"]
        is_about_key = error["type"] in _ABOUT_THE_KEY or loc[-1:] == ("[key]",)
        if self._document.is_broken(loc, of_key=is_about_key):
            return None
        explain = _SENTENCES.get(error["type"], _as_pydantic_says)
        if error["type"] == "union_tag_invalid":
            loc = (*loc, str(error["ctx"]["discriminator"]).strip("'"))
        place = self._document.place(loc, of_key=is_about_key)
        return self._document.mistake(place, explain(self, error))

    def subject(self, error: ErrorDetails) -> str:
        """What is wrong, by its name in the file."""
        names = [step for step in error["loc"] if isinstance(step, str) and self._is_in_file(step, error["loc"])]
        if not names:
            return "the file"
        key, _ = self._document.find(error["loc"])
        return f"'{names[-1]}'" if key is not None else f"an entry of '{names[-1]}'"

    def _is_in_file(self, step: str, loc: Loc) -> bool:
        _, parent = self._document.find(loc[: loc.index(step)])
        return isinstance(parent, MappingNode) and step in parent.entries

    def section(self, loc: Loc) -> str:
        """` in listeners.mx`: the mapping something is in, empty for the top of the file."""
        title = ".".join(self._titles(loc))
        return f" in {title}" if title else ""

    def _titles(self, loc: Loc) -> Iterator[str]:
        for position, step in enumerate(loc):
            _, parent = self._document.find(loc[:position])
            if isinstance(parent, MappingNode) and step in parent.entries:
                yield str(step)
            elif isinstance(parent, SequenceNode) and isinstance(step, int):
                yield self._name_of_item(parent, step)

    @staticmethod
    def _name_of_item(parent: SequenceNode, index: int) -> str:
        item = parent.items[index]
        named = item.entries.get("name") if isinstance(item, MappingNode) else None
        return named[1].text if named and isinstance(named[1], ScalarNode) else str(index + 1)

    def keys(self, loc: Loc) -> list[str]:
        """The keys that are valid in the mapping at a location."""
        return [key for schema in self._schemas(loc) for key in schema.get("properties", ())]

    def home(self, key: str, parent: Loc) -> str:
        """`; it belongs under limits`, for a key that stands in the wrong section."""
        sections = [section for section in self.keys(()) if key in self.keys((section,))]
        if not sections:
            return ""
        # A listener has sections of the same names.
        is_namesake = parent[-1:] == (sections[0],)
        return f"; it belongs under {sections[0]}{' for all listeners' if is_namesake else ''}"

    def values(self, loc: Loc) -> list[str]:
        """The words that are valid at a location."""
        return [str(word) for schema in self._schemas(loc) for word in _words(schema)]

    def _schemas(self, loc: Loc) -> list[Schema]:
        """The alternatives of the schema at a location."""
        found = self._alternatives(self._schema)
        for step in loc:
            found = [inner for schema in found for inner in self._step(schema, step)]
        return found

    def _step(self, schema: Schema, step: str | int) -> list[Schema]:
        if isinstance(step, int):
            return self._alternatives(schema.get("items", {}))
        inner = schema.get("properties", {}).get(step) or schema.get("additionalProperties")
        if isinstance(inner, dict):
            return self._alternatives(inner)
        # A step of pydantic's own: the tag of a union names one of its alternatives.
        tag = schema.get("properties", {}).get("type", {}).get("const")
        return [schema] if tag in (None, step) else []

    def _alternatives(self, schema: Schema) -> list[Schema]:
        if "$ref" in schema:
            return self._alternatives(self._schema["$defs"][schema["$ref"].rpartition("/")[2]])
        several = schema.get("anyOf") or schema.get("oneOf")
        return [one for inner in several for one in self._alternatives(inner)] if several else [schema]


def _words(schema: Schema) -> list[object]:
    if "const" in schema:
        return [schema["const"]]
    tag = schema.get("properties", {}).get("type", {}).get("const")
    return list(schema.get("enum", ())) or ([tag] if tag else [])


def _kind(value: object) -> str:
    kinds: Mapping[type, str] = {dict: "a mapping", list: "a list", str: f"'{value}'", bool: str(value).lower()}
    return kinds.get(type(value), f"the number {value}")


def _unknown_key(wording: Wording, error: ErrorDetails) -> str:
    *parent, key = error["loc"]
    section = wording.section(tuple(parent))
    if key in _LATER_KEYS:
        return f"'{key}'{section} comes with a later version"
    hint = did_you_mean(str(key), wording.keys(tuple(parent))) or wording.home(str(key), tuple(parent))
    return f"unknown key '{key}'{section}{hint}"


def _missing_key(wording: Wording, error: ErrorDetails) -> str:
    *parent, key = error["loc"]
    return f"missing key '{key}'{wording.section(tuple(parent))}"


def _unknown_value(wording: Wording, error: ErrorDetails) -> str:
    value = error["input"]
    subject = wording.subject(error)
    words = wording.values(error["loc"])
    hint = did_you_mean(str(value), words) if isinstance(value, str) else ""
    shown = _kind(value).removeprefix("the number ")
    return f"unknown value {shown} for {subject}: one of {', '.join(words)}{hint}"


def _unknown_tag(wording: Wording, error: ErrorDetails) -> str:
    words = sorted(set(wording.values(error["loc"])))
    tag = str(error["ctx"]["tag"])
    return f"unknown value '{tag}' for 'type': one of {', '.join(words)}{did_you_mean(tag, words)}"


def _missing_tag(wording: Wording, error: ErrorDetails) -> str:
    return f"missing key {error['ctx']['discriminator']}{wording.section(error['loc'])}"


def _wants(expectation: str) -> Callable[[Wording, ErrorDetails], str]:
    def explain(wording: Wording, error: ErrorDetails) -> str:
        return f"{wording.subject(error)} must be {expectation}, not {_kind(error['input'])}"

    return explain


def _wants_text(wording: Wording, error: ErrorDetails) -> str:
    value = error["input"]
    quotes = "" if isinstance(value, dict | list) else "; put it in quotes if it is meant as text"
    return f"{wording.subject(error)} must be text, not {_kind(value)}{quotes}"


def _bound(words: str, name: str) -> Callable[[Wording, ErrorDetails], str]:
    def explain(wording: Wording, error: ErrorDetails) -> str:
        bound = error["ctx"][name]
        shown = int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        return f"{wording.subject(error)} must be {words} {shown}"

    return explain


def _empty(wording: Wording, error: ErrorDetails) -> str:
    return f"{wording.subject(error)} must not be empty"


def _form(wording: Wording, error: ErrorDetails) -> str:
    return f"{wording.subject(error)}: {_kind(error['input'])} does not have the form {error['ctx']['pattern']}"


def _own_words(_: Wording, error: ErrorDetails) -> str:
    return str(error["ctx"]["error"])


def _as_pydantic_says(wording: Wording, error: ErrorDetails) -> str:
    message = error["msg"]
    return f"{wording.subject(error)}: {message[:1].lower()}{message[1:]}"


_wants_list = _wants("a list, as in [a, b]")
_wants_mapping = _wants("a mapping of keys to values")
_wants_integer = _wants("a whole number")

_SENTENCES: Mapping[str, Callable[[Wording, ErrorDetails], str]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing_key,
    "literal_error": _unknown_value,
    "enum": _unknown_value,
    "union_tag_invalid": _unknown_tag,
    "union_tag_not_found": _missing_tag,
    "value_error": _own_words,
    "assertion_error": _own_words,
    "string_type": _wants_text,
    "bool_type": _wants("true or false"),
    "bool_parsing": _wants("true or false"),
    "int_type": _wants_integer,
    "int_parsing": _wants_integer,
    "int_from_float": _wants_integer,
    "float_type": _wants("a number"),
    "float_parsing": _wants("a number"),
    "dict_type": _wants_mapping,
    "model_type": _wants_mapping,
    "model_attributes_type": _wants_mapping,
    "list_type": _wants_list,
    "tuple_type": _wants_list,
    "greater_than_equal": _bound("at least", "ge"),
    "greater_than": _bound("more than", "gt"),
    "less_than_equal": _bound("at most", "le"),
    "less_than": _bound("less than", "lt"),
    "too_short": _empty,
    "string_too_short": _empty,
    "string_too_long": _bound("text with a length of at most", "max_length"),
    "string_pattern_mismatch": _form,
}
