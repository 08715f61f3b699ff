"""`make docs`."""

from __future__ import annotations

from generate import pages

for path, text in pages().items():
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
