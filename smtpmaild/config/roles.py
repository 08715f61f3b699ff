"""What a listener's `role` brings: the defaults of its door, as one table.

A key that the listener has itself always wins; then comes its role, then the section for all listeners, then the
default of the key. Within `policies`, `limits` and `timeouts` that is settled key by key. docs/roles.md shows the
table; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, TypeVar

from pydantic import BaseModel

from smtpmaild.config.yaml_nodes import Value

Role = Literal["mx", "submission", "lmtp", "internal"]

_OFF: Value = {"mode": "off"}
_ENFORCE: Value = {"mode": "enforce"}

#: Role -> what its listeners have where they do not say otherwise, as they would write it.
ROLES: Mapping[str, Mapping[str, Value]] = MappingProxyType(
    {
        # Other servers bring mail for our domains.
        "mx": {},
        # RFC 6409: people hand in mail with their mail programs, which know neither patience nor their host name.
        "submission": {
            "tls": "required",
            "auth": "required",
            "add_missing_headers": True,
            "greeting_delay": 0,
            "policies": {"early_talker": _OFF, "helo_syntax": _OFF, "senders": _ENFORCE},
        },
        # RFC 2033: another server of ours hands on what it has taken.
        "lmtp": {
            "protocol": "lmtp",
            "policies": {"early_talker": _OFF, "helo_syntax": _OFF},
        },
        # Printers, scripts and cron on a private network: old, careless, and known to us.
        "internal": {
            "add_missing_headers": True,
            "bare_lf_commands": True,
            "long_lines": "accept",
            "policies": {"early_talker": _OFF, "helo_syntax": _OFF},
        },
    }
)


#: What a role brings besides where there are certificates.
ROLES_WITH_CERTIFICATES: Mapping[str, Mapping[str, Value]] = MappingProxyType({"internal": {"tls": "optional"}})


def with_role(listener: object, roles: Mapping[str, Mapping[str, Value]] = ROLES) -> object:
    """A listener as the file has it, with what its role brings."""
    role = listener.get("role", "mx") if isinstance(listener, dict) else None
    brought = roles.get(role) if isinstance(role, str) else None
    return listener if brought is None else _filled(listener, brought)


def with_roles(config: object) -> object:
    """A whole file; where it has certificates, its listeners have what their roles then bring."""
    if not isinstance(config, dict) or not isinstance(config.get("listeners"), list):
        return config
    tls = config.get("tls")
    if not isinstance(tls, dict) or not (tls.get("certificates") or tls.get("self_signed") is True):
        return config
    return {**config, "listeners": [with_role(one, ROLES_WITH_CERTIFICATES) for one in config["listeners"]]}


def _filled(given: object, brought: Mapping[str, Value]) -> object:
    """given: what is no mapping is a mistake, and stays as it is."""
    if not isinstance(given, dict):
        return given
    inner = {
        key: _filled(given[key], value) if isinstance(value, dict) else given[key]
        for key, value in brought.items()
        if key in given
    }
    return {**brought, **given, **inner}


def leaves(section: Mapping[str, Value], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Value]]:
    """Each key of a section and of those within it, as the steps that lead there, with its value."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def brought(role: Role, *, has_certificates: bool) -> dict[tuple[str, ...], Value]:
    """Everything that a role brings, for people."""
    more = ROLES_WITH_CERTIFICATES.get(role, {}) if has_certificates else {}
    return dict(leaves({**ROLES[role], **more}))


Model = TypeVar("Model", bound=BaseModel)


def overridden(general: Model, own: BaseModel) -> Model:
    """The section for all listeners with what a listener says of its own."""
    before = dict(general)
    changes = {
        key: overridden(before[key], value) if isinstance(value, BaseModel) else value
        for key, value in own
        if key in own.model_fields_set
    }
    return general.model_copy(update=changes)
