"""What a check of meaning has found, before it has a line: by a location of keys and indexes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smtpmaild.config.mistakes import Severity
from smtpmaild.config.yaml_nodes import Loc


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a location.

    of_key: the key is meant, not the value.  rests_on: other parts of the file without which it would not be said; it
    is not where one of them has mistakes of its own.
    """

    loc: Loc
    message: str
    severity: Severity = "error"
    of_key: bool = False
    rests_on: Sequence[Loc] = ()


Findings = Iterator[Finding]
