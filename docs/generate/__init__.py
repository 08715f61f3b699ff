"""Makes the reference pages from the code: docs/configuration.md, docs/commands.md and the man pages.

`make docs` writes them; tests/test_docs_reference.py fails where they are stale. keys.py reads the models, commands.py
the commands, words.py names types and values, around.py and examples.py have what none of them knows, markdown.py and
roff.py write.
"""

from __future__ import annotations

from pathlib import Path

from . import markdown, roff
from .commands import commands
from .keys import sections

DOCS = Path(__file__).resolve().parent.parent


def pages() -> dict[Path, str]:
    """Every page that is made, with its text."""
    found, keys = [*commands()], [*sections()]
    return {
        DOCS / "configuration.md": markdown.configuration(keys),
        DOCS / "commands.md": markdown.commands(found),
        DOCS / "man" / "smtpmaild.1": roff.commands(found),
        DOCS / "man" / "smtpmaild.yaml.5": roff.configuration(keys),
    }
