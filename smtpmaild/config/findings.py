"""What a check of meaning has found, before it has a line: by a location of keys and indexes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smtpmaild.config.mistakes import Severity
from smtpmaild.config.yaml_nodes import Loc


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a location; of_key: the key is meant, not the value."""

    loc: Loc
    message: str
    severity: Severity = "error"
    of_key: bool = False


Findings = Iterator[Finding]
