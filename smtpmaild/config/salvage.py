"""A file with mistakes in its shape, mended so far that it can be asked for its meaning.

A mistake in one place must not hide those of another kind elsewhere. An entry that the models refused is replaced by a
stand-in of the same name that says as little as possible (a store that discards, a domain that takes any local part);
what the entry has of keys that can be judged by themselves stays. `Broken` remembers what was replaced: nothing is said
of the meaning of that, and no check draws a conclusion from what a broken section does not name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from smtpmaild.config.models import Config
from smtpmaild.config.yaml_nodes import Loc, Value


@dataclass(frozen=True, slots=True)
class Broken:
    """What of the file is not what it should be.

    parts: whole sections, or single entries of one.  sound: keys of broken entries that are what the file says.
    nameless: sections of which not every name is known.
    """

    parts: frozenset[Loc] = frozenset()
    sound: frozenset[Loc] = frozenset()
    nameless: frozenset[str] = frozenset()

    def covers(self, loc: Loc) -> bool:
        """True for a place within a broken part."""
        return (loc[:1] in self.parts or loc[:2] in self.parts) and loc[:3] not in self.sound

    def spares(self, section: str) -> bool:
        """True where all names of a section are known."""
        return section not in self.nameless

    def joined(self, newly: Broken) -> Broken:
        """This, and what was found later."""
        return Broken(self.parts | newly.parts, self.sound | newly.sound, self.nameless | newly.nameless)


NOTHING_BROKEN = Broken()


@dataclass(frozen=True, slots=True)
class _StandIn:
    """values: of an entry nobody finds fault with.  keeps: keys that stay, when they are right, because what is said
    of them does not depend on the others."""

    values: Mapping[str, Value]
    keeps: Sequence[str] = ()


#: Sections with entries of their own names, and what stands for a broken one. Any other section is left out whole.
_STAND_INS: Mapping[str, _StandIn] = {
    "listeners": _StandIn({"name": "?", "listen": ["127.0.0.1:0"]}, keeps=("name", "listen")),
    "local_domains": _StandIn({"deliver": ""}, keeps=("deliver",)),
    "deliver_to": _StandIn({"type": "discard"}),
    # For a domain that nobody has: it hides no other rule.
    "relay_rules": _StandIn({"name": "?", "to_domains": ["broken.invalid"]}, keeps=("listeners", "deliver", "relay")),
    "relays": _StandIn({"host": "localhost"}),
}


def mend(value: dict[str, Value], locs: Iterable[Loc]) -> Broken:
    """Replace in the values of a file what is wrong at these places; what that was."""
    broken = NOTHING_BROKEN
    entries: dict[Loc, set[str]] = {}
    for loc in filter(None, locs):  # what a model says of the file as a whole cannot be mended
        section = str(loc[0])
        if section in _STAND_INS and isinstance(value.get(section), dict | list) and len(loc) > 1:
            entries.setdefault(loc[:2], set()).add(str(loc[2]) if len(loc) > 2 else "")
        else:
            broken = broken.joined(_without_section(value, section))
    for entry, keys in entries.items():
        if entry[:1] not in broken.parts:
            broken = broken.joined(_with_stand_in(value[str(entry[0])], entry, keys))
    return broken


def _without_section(value: dict[str, Value], section: str) -> Broken:
    value.pop(section, None)
    nameless = {section}
    if section not in Config.model_fields:  # perhaps a section whose name is misspelled, any of those not there
        nameless |= set(Config.model_fields).difference(value)
    if section == "listeners":  # the one that must be there
        value[section] = [dict(_STAND_INS[section].values)]
    return Broken(frozenset({(section,)}), nameless=frozenset(nameless))


def _with_stand_in(entries: Value, entry: Loc, wrong: set[str]) -> Broken:
    """wrong: the keys that are; "" among them where the entry as a whole makes no sense."""
    section, key = str(entry[0]), entry[1]
    is_nameless = not wrong.isdisjoint(("[key]", "name"))
    kept: dict[str, Value] = {}
    if isinstance(entries, list):
        index = int(key)
        kept = _kept(section, entries[index], wrong)
        entries[index] = _standing_in(section, kept)
    elif isinstance(entries, dict) and "[key]" in wrong:
        entries.pop(str(key), None)
    elif isinstance(entries, dict):
        kept = _kept(section, entries.get(str(key)), wrong)
        entries[str(key)] = _standing_in(section, kept)
    sound = frozenset((*entry, name) for name in kept)
    return Broken(frozenset({entry}), sound, frozenset({section} if is_nameless else ()))


def _kept(section: str, entry: Value | None, wrong: set[str]) -> dict[str, Value]:
    if not isinstance(entry, dict) or "" in wrong:
        return {}
    return {key: entry[key] for key in _STAND_INS[section].keeps if key in entry and key not in wrong}


def _standing_in(section: str, kept: dict[str, Value]) -> Value:
    values = {**_STAND_INS[section].values, **kept}
    if section == "relay_rules" and values.keys().isdisjoint(("deliver", "relay")):
        values["reject"] = True  # a rule decides one thing
    return values
