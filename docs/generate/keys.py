"""The configuration as sections of keys, read from the models in the order of the file.

What a page shows of a key is a Key; markdown.py and roff.py only write it down. Sections that stand in several places
(`limits` of a listener) are shown once, where they stand for all.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from smtpmaild.config.limits import DoorLimits, DoorTimeouts
from smtpmaild.config.models import Config
from smtpmaild.config.policies import Policies
from smtpmaild.config.roles import ROLES, ROLES_WITH_CERTIFICATES, leaves
from smtpmaild.delivery.builtin import BUILTIN as AGENTS
from smtpmaild.sink.builtin import BUILTIN as SINKS

from .words import Kind, kind_of, plain


@dataclass(frozen=True, slots=True)
class Key:
    """path: the names that lead to it.  default: as written, "" where there is none.  more: where the section behind it
    is shown, if that is elsewhere."""

    path: tuple[str, ...]
    kind: str
    is_required: bool
    default: str
    roles: tuple[str, ...]
    description: str
    examples: tuple[str, ...]
    more: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """title: as a heading.  depth: 0 for a section of the file, more for one within it.  key: the one it is behind."""

    title: str
    depth: int
    description: str
    keys: tuple[Key, ...]
    key: Key | None = None


#: Models that stand at a listener as well; shown once, in the section for all.
_AT_LISTENERS = (Policies, DoorLimits, DoorTimeouts)
#: Texts that are names of something.
_CALLED: Mapping[str, str] = {
    "user": "user name",
    "group": "group name",
    "listeners: socket_owner": "user name",
    "listeners: socket_group": "group name",
    "local_domains: deliver": "name under `deliver_to` or `relays`",
    "local_domains: relay": "name under `relays`, `mx`, or `host:port`",
    "relay_rules: deliver": "name under `deliver_to`",
    "relay_rules: listeners": "list of listener names",
    "relay_rules: relay": "name under `relays`, `mx`, or `host:port`",
    "relays: host": "host name or address",
    "relays: url": "URL",
    "relays: hello": "host name",
    "relays: source_ipv4": "IPv4 address",
    "relays: source_ipv6": "IPv6 address",
    "queue: report_by": "name under `relays`, `mx`, or `host:port`",
    "sendmail: listener": "listener name",
}
#: Sections whose items are of several types -> the table of those types.
_TYPED: Mapping[str, Mapping[str, Any]] = {"deliver_to": SINKS, "relays": AGENTS}


def sections() -> Iterator[Section]:
    """The whole file: first the keys of its top level, then each section."""
    keys = {key.path[0]: key for key in _keys(Config, ())}
    inner = {name: model for name, hint in _hints(Config).items() if (model := _model(hint)) is not None}
    yield Section("The top level", 0, "", tuple(key for name, key in keys.items() if name not in inner))
    for name, model in inner.items():
        if name in _TYPED:
            yield Section(name, 0, keys[name].description, (), keys[name])
            yield from _typed(name)
        else:
            yield from _section(model, keys[name])


def _section(model: type[BaseModel], behind: Key) -> Iterator[Section]:
    keys = [*_keys(model, behind.path)]
    hints = _hints(model)
    inner = {key: found for key in keys if (found := _own_section(hints[key.path[-1]])) is not None}
    shown = tuple(key for key in keys if key not in inner)
    yield Section(": ".join(behind.path), len(behind.path) - 1, behind.description, shown, behind)
    for key, found in inner.items():
        yield from _section(found, key)


def _typed(name: str) -> Iterator[Section]:
    """What items of one type take, and then what several types share, each key once."""
    rows = _TYPED[name]
    shared: dict[Key, list[str]] = {}
    inner: dict[Key, type[BaseModel]] = {}
    for kind, row in rows.items():
        hints = _hints(row.options)
        for key in _keys(row.options, (name,), getattr(row, "files", ())):
            if found := _own_section(hints[key.path[-1]]):
                inner[key] = found
            else:
                shared.setdefault(key, []).append(kind)
    sets = sorted({tuple(kinds) for kinds in shared.values()}, key=lambda kinds: (len(kinds), [*rows].index(kinds[0])))
    for kinds in sets:
        description = _text(rows[kinds[0]].options) if len(kinds) == 1 else ""
        keys = tuple(key for key, found in shared.items() if tuple(found) == kinds)
        yield Section(f"{name}, type{'s' * (len(kinds) > 1)} {_listed(kinds)}", 1, description, keys)
    for key, found in inner.items():
        yield from _section(found, key)


def _own_section(hint: Any) -> type[BaseModel] | None:
    """The section behind a key, if it is shown with it."""
    found = _model(hint)
    return None if found in _AT_LISTENERS else found


def _listed(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _keys(model: type[BaseModel], path: tuple[str, ...], files: Sequence[str] = ()) -> Iterator[Key]:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for name, hint in _hints(model).items():
        field = fields[name]
        kind = kind_of(hint)
        inner = _model(hint)
        here = (*path, name)
        yield Key(
            path=here,
            kind=_CALLED.get(": ".join(here)) or _kind(kind, field, inner, is_path=name in files or name == "path"),
            is_required=field.is_required(),
            default="" if inner is not None else _default(field, kind),
            roles=tuple(_brought(here)),
            description=_described(field) or (_text(inner) if inner else ""),
            examples=tuple(plain(example) for example in field.examples or ()),
            more=name if inner in _AT_LISTENERS and path else "",
        )


def _kind(kind: Kind, field: FieldInfo, inner: type[BaseModel] | None, *, is_path: bool) -> str:
    if is_path:
        return "path"
    if inner is not None and kind.one == "section":
        return "section"
    bounds = {type(one): getattr(one, "ge" if isinstance(one, Ge) else "le") for one in field.metadata
              if isinstance(one, Ge | Le)}  # fmt: skip
    least, most = bounds.get(Ge), bounds.get(Le)
    if kind.one != "number" or least is None:
        return kind.one
    return f"number from {least} to {most}" if most is not None else f"number, {least} or more"


def _default(field: FieldInfo, kind: Kind) -> str:
    if field.is_required() or field.default_factory is not None or field.default in (None, ""):
        return ""
    return kind.shown(field.default)


def _brought(path: tuple[str, ...]) -> Iterator[str]:
    """What roles bring in place of the default."""
    steps = path[1:] if path[0] == "listeners" else path
    if path[0] not in ("listeners", "policies"):
        return
    for rows, when in ((ROLES, ""), (ROLES_WITH_CERTIFICATES, ", where there are certificates")):
        found = [(role, value) for role, row in rows.items() for step, value in leaves(row) if step == steps]
        for value, roles in groupby(found, key=lambda one: one[1]):
            names = [f"`{role}`" for role, _ in roles]
            yield f"`{plain(value)}` by the role {' and '.join(names)}{when}"


def _model(hint: Any) -> type[BaseModel] | None:
    """The section behind a key: its own, or that of its items."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    # Not the keys of a mapping, which are names.
    arguments = typing.get_args(hint)
    found = (_model(one) for one in arguments if one is not ...)
    return next((one for one in found if one is not None), None)


def _hints(model: type[BaseModel]) -> dict[str, Any]:
    hints = typing.get_type_hints(model, include_extras=True)
    return {field.alias or name: hints.get(name, field.annotation) for name, field in model.model_fields.items()}


def _described(field: FieldInfo) -> str:
    return field.description or ""


def _text(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").split("\n\n")[0].replace("\n    ", " ").strip()
