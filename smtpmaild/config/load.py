"""Reads the file: text to nodes, nodes to models, models checked. Every mistake on the way becomes one ConfigError.

The file is read once. What the YAML says and what the models say is collected together; the checks of meaning
(check.py) come when the models could be built, as they ask about names that must be there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from smtpmaild.config.check import check
from smtpmaild.config.mistakes import ConfigError, Mistake
from smtpmaild.config.models import Config
from smtpmaild.config.names import domain_pattern, mailbox_name
from smtpmaild.config.paths import Surroundings
from smtpmaild.config.schema import config_schema
from smtpmaild.config.wording import Wording
from smtpmaild.config.yaml_nodes import Document, Loc, MappingNode, process_environment

_BYTE_LINE_END = re.compile(rb"\r\n|[\n\r]")


def load(path: str | Path) -> Config:
    """The configuration in a file, checked; raises ConfigError with every mistake in it."""
    name = str(path)
    return load_text(_read(name), name)


def load_text(text: str, path: str, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration in a text, as if it stood in the file `path`."""
    variables = process_environment() if environment is None else environment
    document = Document(path, text, variables)
    config = _validated(document, Surroundings(_directory(path), variables.get("CREDENTIALS_DIRECTORY", "")))
    found = check(config)
    if any(mistake.is_error for mistake in found):
        raise ConfigError(found)
    config._warnings = tuple(found)
    return config


def _read(path: str) -> str:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError([Mistake(path, 0, 0, 0, f"cannot read the file: {error.strerror}")]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([_not_utf8(path, data, error.start)]) from None


def _not_utf8(path: str, data: bytes, offset: int) -> Mistake:
    before = _BYTE_LINE_END.split(data[:offset])
    line = _BYTE_LINE_END.split(data)[len(before) - 1].decode(errors="replace")
    column = len(before[-1].decode(errors="replace")) + 1
    return Mistake(path, len(before), column, 1, f"byte 0x{data[offset]:02x} is not UTF-8", line)


def _directory(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


def _validated(document: Document, context: Surroundings) -> Config:
    """The models, or a ConfigError with what is wrong with the YAML and with the models, together."""
    if not isinstance(document.root, MappingNode):
        raise ConfigError(document.mistakes or [_no_mapping(document)])
    try:
        config = Config.model_validate(document.value(), context=context)
    except ValidationError as error:
        wording = Wording(document, config_schema())
        explained = (wording.mistake(detail) for detail in error.errors(include_url=False))
        raise ConfigError([*document.mistakes, *(mistake for mistake in explained if mistake)]) from None
    repeated = list(_normalise_keys(document))
    if document.mistakes or repeated:
        raise ConfigError([*document.mistakes, *repeated])
    config._document = document
    return config


def _no_mapping(document: Document) -> Mistake:
    if document.root is None:
        return Mistake(document.path, 0, 0, 0, "the file is empty: a configuration needs listeners at least")
    return document.mistake(document.root.place, "the file must be a mapping of keys to values, as in 'listeners: ...'")


def _normalise_keys(document: Document) -> Iterator[Mistake]:
    """Let the document find domains and aliases by the names the models have; two keys for one name are a mistake."""
    yield from _normalise(document, ("local_domains",), domain_pattern)
    _, domains = document.find(("local_domains",))
    assert isinstance(domains, MappingNode)
    for name in domains.entries if domains is not document.root else ():
        loc = ("local_domains", name, "aliases")
        if document.has(loc):
            yield from _normalise(document, loc, mailbox_name)


def _normalise(document: Document, loc: Loc, normal: Callable[[str], str]) -> Iterator[Mistake]:
    if not document.has(loc):
        return
    _, mapping = document.find(loc)
    assert isinstance(mapping, MappingNode)
    seen: dict[str, int] = {}
    for raw, (key, _) in mapping.entries.items():
        name = normal(raw)
        if name in seen:
            yield document.mistake(key.place, f"'{raw}' is given twice, the first time in line {seen[name]}")
        seen.setdefault(name, key.place.line)
        document.also_known_as(mapping, raw, name)
