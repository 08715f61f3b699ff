"""Types and values of the configuration as people write them: `50 MB`, `5m`, `0660`, "a list of networks".

Knows the types of the models by name, so a new kind of value is a row here; one that is missing is an error, and no
page says "str".
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import yaml
from pydantic import BaseModel, BeforeValidator
from pydantic_core import PydanticUndefined

from smtpmaild.config import dns, listeners, models, names, paths, report_words, sockets, tests, tls, units
from smtpmaild.delivery import options as delivery
from smtpmaild.sink import options as sink


@dataclass(frozen=True, slots=True)
class Kind:
    """one, many: what it is called.  shown: how a value of it is written."""

    one: str
    many: str
    shown: Callable[[Any], str]


def plain(value: object) -> str:
    """A value as YAML writes it on one line."""
    if isinstance(value, Enum):
        value = value.value
    if value in _WORDS:  # YAML 1.1 has them as booleans, and so has the library; our files are read as YAML 1.2
        return str(value)
    if isinstance(value, tuple):
        value = [item if isinstance(item, str | int | list | dict) else str(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    text = text.removesuffix("\n").removesuffix("\n...")
    return text.replace("'", '"') if '"' not in text else text


_WORDS = ("off", "on", "yes", "no")

_DURATIONS = ((86400, "d"), (3600, "h"), (60, "m"))
_SIZES = ((10**9, "GB"), (10**6, "MB"), (10**3, "KB"))


def duration(seconds: float) -> str:
    """300.0 is 5m."""
    for factor, unit in _DURATIONS:
        if seconds and seconds % factor == 0:
            return f"{seconds / factor:g}{unit}"
    return f"{seconds:g}s" if seconds else "0"


def size(octets: int) -> str:
    """50000000 is 50 MB."""
    for factor, unit in _SIZES:
        if octets and octets % factor == 0:
            return f"{octets // factor} {unit}"
    return str(octets)


def _mode(bits: int) -> str:
    return f'"{bits:04o}"'


#: A type of the models -> what people call it.
KINDS: Sequence[tuple[object, Kind]] = (
    (units.Size, Kind("size", "sizes", size)),
    (units.Duration, Kind("duration", "durations", duration)),
    (sink.Seconds, Kind("duration", "durations", duration)),
    (listeners.Mode, Kind("octal mode, quoted", "modes", _mode)),
    (sink.Mode, Kind("octal mode, quoted", "modes", _mode)),
    (sink.User, Kind("user, by name or number", "users", plain)),
    (sink.Group, Kind("group, by name or number", "groups", plain)),
    (paths.ConfigPath, Kind("path", "paths", plain)),
    (paths.SecretFile, Kind("path of a file with a secret", "paths", plain)),
    (report_words.WordsFile, Kind("path", "paths", plain)),
    (sockets.Listen, Kind("address", "addresses", plain)),
    (names.HostName, Kind("host name", "host names", plain)),
    (names.Network, Kind("network or address", "networks or addresses", plain)),
    (models.Workers, Kind("number from 1 to 1024, or `auto`", "numbers", plain)),
    (delivery.Port, Kind("port", "ports", plain)),
    (names.MailAddress, Kind("mail address", "mail addresses", plain)),
    (names.SenderAddress, Kind("mail address or `<>`", "mail addresses or `<>`", plain)),
    (names.DomainPattern, Kind("domain", "domains", plain)),
    (names.MailboxName, Kind("local part", "local parts", plain)),
    (names.AliasTarget, Kind("mailbox or mail address", "mailboxes or mail addresses", plain)),
    (names.ClientName, Kind("host name", "host names", plain)),
    (names.UserName, Kind("user name", "user names", plain)),
    (names.CertificateName, Kind("subject or fingerprint", "subjects or fingerprints", plain)),
    (tls.CertificateName, Kind("host name", "host names", plain)),
    (dns.DnsServer, Kind("address", "addresses", plain)),
    (tests.Client, Kind("address, or `local`", "addresses", plain)),
    (tests.Expected, Kind("`accept`, `reject` or `defer`, with a code", "outcomes", plain)),
    (tests.Line, Kind("text", "texts", plain)),
    (tests.Path, Kind("mail address", "mail addresses", plain)),
    (tests.Names, Kind("name or list of names", "names", plain)),
    (str, Kind("text", "texts", plain)),
    (bool, Kind("`true` or `false`", "`true` or `false`", plain)),
    (int, Kind("number", "numbers", plain)),
    (float, Kind("number", "numbers", plain)),
)


def kind_of(hint: Any) -> Kind:
    """What a type is called; raises TypeError for one that nobody has named."""
    for known, kind in KINDS:
        if hint == known:
            return kind
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return Kind("section", "sections", plain)
    if origin is not None and (made := _MADE_OF.get(origin)) is not None:
        return made(arguments)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice([item.value for item in hint])
    raise TypeError(f"docs/generate/words.py has no words for {hint!r}")


def _choice(values: Sequence[object]) -> Kind:
    shown = [f"`{plain(value)}`" for value in values]
    return Kind(_listed(shown), f"any of {', '.join(shown)}", plain)


def _listed(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _list(arguments: Sequence[Any]) -> Kind:
    inner = kind_of(arguments[0])

    def shown(values: Any) -> str:
        return plain(tuple(values))

    return Kind(f"list of {inner.many}" if not inner.many.startswith("any of ") else f"list, {inner.many}", "", shown)


def _mapping(arguments: Sequence[Any]) -> Kind:
    inner = kind_of(arguments[1])
    return Kind(f"mapping of names, each to a {inner.one}", "", plain)


def _either(arguments: Sequence[Any]) -> Kind:
    kinds = [kind_of(one) for one in arguments if one is not type(None)]
    # Sections of several types are sections.
    one, many = (
        _listed([*dict.fromkeys(words)]) for words in zip(*((kind.one, kind.many) for kind in kinds), strict=True)
    )
    return Kind(one, many, kinds[0].shown)


def _annotated(arguments: Sequence[Any]) -> Kind:
    """What may stand in the file, where a validator says so; else what it becomes."""
    for extra in arguments[1:]:
        written = extra.json_schema_input_type if isinstance(extra, BeforeValidator) else PydanticUndefined
        if written is not PydanticUndefined:
            return kind_of(written)
    return kind_of(arguments[0])


_MADE_OF: Mapping[Any, Callable[[Sequence[Any]], Kind]] = {
    typing.Annotated: _annotated,
    typing.Literal: _choice,
    typing.Union: _either,
    types.UnionType: _either,
    tuple: _list,
    list: _list,
    dict: _mapping,
}
