"""The configuration: one YAML file, read into frozen pydantic models, every mistake shown at its place.

`load(path)` gives a Config or raises ConfigError. Where things are: one file per section of the YAML (listeners,
domains, stores, rules, policies, limits), models.py for the whole; units, names, sockets and paths for the values in
it; yaml_nodes, wording and mistakes for what goes wrong; check.py for what makes no sense; schema.py for editors;
places.py for commands that only want to know where something is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smtpmaild.config.mistakes import ConfigError, Mistake
    from smtpmaild.config.models import Config
    from smtpmaild.config.reading import load, load_text

__all__ = ["Config", "ConfigError", "Mistake", "load", "load_text"]


def __getattr__(name: str) -> object:
    """What the package gives away, when somebody asks (PEP 562): all of it takes 300 ms; places.py does without."""
    if name not in __all__:
        raise AttributeError(name)
    from smtpmaild.config.mistakes import ConfigError, Mistake
    from smtpmaild.config.models import Config
    from smtpmaild.config.reading import load, load_text

    given = {one.__name__: one for one in (Config, ConfigError, Mistake, load, load_text)}
    globals().update(given)
    return given[name]
