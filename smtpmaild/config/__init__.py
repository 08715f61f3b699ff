"""The configuration: one YAML file, read into frozen pydantic models, every mistake shown at its place.

`load(path)` gives a Config or raises ConfigError. Where things are: one file per section of the YAML (listeners,
domains, stores, rules, policies, limits), models.py for the whole; units, names, sockets and paths for the values in
it; yaml_nodes, wording and mistakes for what goes wrong; check.py for what makes no sense; schema.py for editors.
"""

from __future__ import annotations

from smtpmaild.config.load import load, load_text
from smtpmaild.config.mistakes import ConfigError, Mistake
from smtpmaild.config.models import Config

__all__ = ["Config", "ConfigError", "Mistake", "load", "load_text"]
