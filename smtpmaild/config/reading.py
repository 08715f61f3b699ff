"""Reads the file: text to nodes, nodes to models, models checked. Every mistake on the way becomes one ConfigError.

The file is read once. What the YAML says, what the models say and what the checks of meaning say (check.py) is
collected together; where the models refused something, the checks get a stand-in for it (salvage.py).
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
from smtpmaild.config.salvage import NOTHING_BROKEN, Broken, mend
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
    if not isinstance(document.root, MappingNode):
        raise ConfigError(document.mistakes or [_no_mapping(document)])
    context = Surroundings(_directory(path), variables.get("CREDENTIALS_DIRECTORY", ""))
    config, broken, mistakes = _validated(document, context)
    found = [*document.mistakes, *mistakes, *_normalise_keys(document)]
    if config is not None:
        config._document = document
        found += check(config, broken)
    if config is None or any(mistake.is_error for mistake in found):
        is_dangerous = all(mistake.severity != "error" for mistake in found)
        raise ConfigError(found, config if is_dangerous else None)
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


def _validated(document: Document, context: Surroundings) -> tuple[Config | None, Broken, list[Mistake]]:
    """The models, with what of them only stands in for the file, and every mistake that they found.

    None: so little of the file makes sense that nothing can be said of its meaning.
    """
    value = document.value()
    assert isinstance(value, dict)
    broken = NOTHING_BROKEN
    mistakes: list[Mistake] = []
    while True:
        try:
            return Config.model_validate(value, context=context), broken, mistakes
        except ValidationError as error:
            details = error.errors(include_url=False)
        wording = Wording(document, config_schema())
        mistakes += [mistake for detail in details if (mistake := wording.mistake(detail))]
        # Each turn replaces what the last one did not know of; what is replaced already cannot be mended again.
        newly = mend(value, [detail["loc"] for detail in details])
        if newly.parts <= broken.parts:
            return None, broken, mistakes
        broken = broken.joined(newly)


def _no_mapping(document: Document) -> Mistake:
    if document.root is None:
        return Mistake(document.path, 0, 0, 0, "the file is empty: a configuration needs listeners at least")
    return document.mistake(document.root.place, "the file must be a mapping of keys to values, as in 'listeners: ...'")


def _normalise_keys(document: Document) -> Iterator[Mistake]:
    """Let the document find domains and aliases by the names the models have; two keys for one name are a mistake."""
    yield from _normalise(document, ("local_domains",), domain_pattern)
    _, domains = document.find(("local_domains",))
    for name in domains.entries if isinstance(domains, MappingNode) and domains is not document.root else ():
        yield from _normalise(document, ("local_domains", name, "aliases"), mailbox_name)


def _normalise(document: Document, loc: Loc, normal: Callable[[str], str]) -> Iterator[Mistake]:
    if not document.has(loc):
        return
    _, mapping = document.find(loc)
    if not isinstance(mapping, MappingNode):
        return
    seen: dict[str, int] = {}
    for raw, (key, _) in mapping.entries.items():
        try:
            name = normal(raw)
        except ValueError:  # the models have said so
            continue
        if name in seen:
            yield document.mistake(key.place, f"'{raw}' is given twice, the first time in line {seen[name]}")
        seen.setdefault(name, key.place.line)
        document.also_known_as(mapping, raw, name)
