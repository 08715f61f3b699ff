"""What a reload changed, in words: `listeners: submission added, mx changed`."""

from __future__ import annotations

from collections.abc import Mapping

Sections = Mapping[str, Mapping[str, object]]


def differences(before: Sections, after: Sections) -> list[str]:
    """A line for each section that is not what it was; parts without a name make the section itself `changed`."""
    lines = []
    for name in {**before, **after}:
        old, new = before.get(name, {}), after.get(name, {})
        said = [
            f"{part} {_verb(part in old, part in new)}".strip()
            for part in {**old, **new}
            if (part in old) != (part in new) or old[part] != new[part]
        ]
        if said:
            lines.append(f"{name}: {', '.join(said)}")
    return lines


def _verb(was_there: bool, is_there: bool) -> str:
    if was_there and is_there:
        return "changed"
    return "added" if is_there else "removed"
