"""How names are compared: local parts folded, domains as lower-case A-labels, by pattern where a pattern is given."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

#: The store of what travels on: a name that nothing under deliver_to has.
QUEUE = "(queue)"


def fold(local_part: str) -> str:
    """The spelling in which local parts are compared: neither case nor the encoding of an accent makes a difference."""
    if local_part.isascii():
        return local_part.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local_part).casefold())


def absolute(target: str, domain: str) -> str:
    """A target as an address, folded."""
    local_part, at, named = target.rpartition("@")
    return f"{fold(local_part)}@{named}" if at else f"{fold(target)}@{domain}"


T = TypeVar("T")


class ByDomain(Generic[T]):
    """Values under domain patterns: "example.com", "*.example.com", "*"; the longest match is found."""

    def __init__(self, by_pattern: Mapping[str, T]) -> None:
        self._exact = {pattern: value for pattern, value in by_pattern.items() if pattern[:1] != "*"}
        self._wildcards = {pattern[2:]: value for pattern, value in by_pattern.items() if pattern[:1] == "*"}

    def values(self) -> Iterator[T]:
        return itertools.chain(self._exact.values(), self._wildcards.values())

    def find(self, domain: str) -> T | None:
        found = self._exact.get(domain)
        if found is None and self._wildcards:
            return next((self._wildcards[parent] for parent in parents(domain) if parent in self._wildcards), None)
        return found


def parents(domain: str) -> Iterator[str]:
    """The domains above this one, the nearest first, and at last "", the root."""
    while domain:
        domain = domain.partition(".")[2]
        yield domain
