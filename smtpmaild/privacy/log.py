"""The log that names nobody: looks at each fact before the next log hears of it."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from smtpmaild.facts import Log, Remember
from smtpmaild.privacy.pseudonyms import Pseudonyms, without_local_part
from smtpmaild.smtp.command import VERBS

Kind = Callable[[Pseudonyms, Any], Any]


def _plain(_: Pseudonyms, value: Any) -> Any:
    return value


def _each(kind: Kind) -> Kind:
    return lambda pseudonyms, values: [kind(pseudonyms, value) for value in values]


def _address(pseudonyms: Pseudonyms, value: Any) -> Any:
    return pseudonyms.address(str(value))


def _name(pseudonyms: Pseudonyms, value: Any) -> Any:
    return pseudonyms.name(str(value))


def _ip(pseudonyms: Pseudonyms, value: Any) -> Any:
    return pseudonyms.ip(str(value))


def _host(pseudonyms: Pseudonyms, value: Any) -> Any:
    return pseudonyms.host(str(value))


def _path(pseudonyms: Pseudonyms, value: Any) -> Any:
    return pseudonyms.path(str(value))


def _nothing(_: Pseudonyms, __: Any) -> Any:
    return ""


def _text(pseudonyms: Pseudonyms, value: Any) -> Any:
    """Whatever it is: texts in it are searched, keys of mappings too."""
    if isinstance(value, str):
        return pseudonyms.text(value)
    if isinstance(value, Mapping):
        return {_text(pseudonyms, key): KINDS.get(key, _text)(pseudonyms, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_text(pseudonyms, one) for one in value]
    if value is None or isinstance(value, int | float):
        return value
    return pseudonyms.text(str(value))


# The verb stays, if it is one; anything else may be a password.
_COMMAND = re.compile(
    rf"((?:{'|'.join(sorted(VERBS))})(?![^\s:]))?.*?(?:: ([245]\d\d .*))?\Z",
    re.DOTALL | re.IGNORECASE,
)


def _command(pseudonyms: Pseudonyms, value: Any) -> Any:
    """A line that was refused, and the reply: the verb alone stays of the line, for the rest may be anything."""
    match = _COMMAND.match(str(value))
    assert match is not None, "it matches everything"
    verb = f"{match[1]} " if match[1] else ""
    return f"{verb}...: {pseudonyms.text(match[2] or '')}"


def _refusal(pseudonyms: Pseudonyms, value: Any) -> Any:
    kind = _ARGUMENTS.get(value["command"], _name)
    changed = {key: KINDS.get(key, _text)(pseudonyms, one) for key, one in value.items() if key != "argument"}
    return {**changed, "argument": kind(pseudonyms, value["argument"])}


#: Command that was refused -> what its argument is.
_ARGUMENTS: Mapping[str, Kind] = dict.fromkeys(("MAIL", "RCPT"), _address) | dict.fromkeys(
    ("HELO", "EHLO", "LHLO"), _host
)

#: What each fact is, by its name. Any other is searched as a text.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        # ours: made by us, or written in the configuration
        **dict.fromkeys(("session_id", "queue_id", "about", "listener", "address", "sockets", "hostname"), _plain),
        **dict.fromkeys(("rule", "rules", "decided_by", "policy", "stage", "mode", "tls", "domain", "store"), _plain),
        **dict.fromkeys(("exc_info", "command", "worker", "event", "action", "verb", "names", "priority"), _plain),
        # addresses of mail
        **dict.fromkeys(("reverse_path", "recipient", "sender"), _address),
        "recipients": _each(_address),
        # people by other names
        **dict.fromkeys(("user", "login", "uid", "client_certificate", "message_id"), _name),
        "subject": _nothing,
        # where they are
        **dict.fromkeys(("peer", "proxy", "forwarded_for", "addr", "destaddr"), _ip),
        **dict.fromkeys(("helo", "client_name", "name"), _host),
        # what was said
        "refusals": _each(_refusal),
        "refused_commands": _each(_command),
        "line": _command,
    }
)
#: Facts that are something else in some event.
_IN_EVENT: Mapping[tuple[str, str], Kind] = MappingProxyType(
    {
        ("store_failed", "path"): _path,
        ("dropped_mail_handed_in", "name"): _plain,
        ("dropped_mail_refused", "name"): _plain,
    }
)
#: Facts whose local part others may speak of without its domain: "550 alice: no such user".
_SPOKEN_OF = ("recipient", "reverse_path", "sender")


class Private:
    """Stands before a log (facts.py). A traceback is made text here, and searched."""

    __slots__ = ("_log", "_pseudonyms")

    def __init__(self, log: Log, pseudonyms: Pseudonyms) -> None:
        self._log = log
        self._pseudonyms = pseudonyms

    def info(self, event: str, /, **facts: object) -> object:
        return self._log.info(event, **_without_names(self._pseudonyms, event, facts))

    def warning(self, event: str, /, **facts: object) -> object:
        return self._log.warning(event, **_without_names(self._pseudonyms, event, facts))

    def error(self, event: str, /, **facts: object) -> object:
        return self._log.error(event, **_without_names(self._pseudonyms, event, facts))

    def exception(self, event: str, /, **facts: object) -> object:
        return self.error(event, **{"exc_info": sys.exception(), **facts})


class PrivateMemory:
    """Stands before a Remember (facts.py) in the same way."""

    __slots__ = ("_pseudonyms", "_record")

    def __init__(self, record: Remember, pseudonyms: Pseudonyms) -> None:
        self._record = record
        self._pseudonyms = pseudonyms

    def __call__(self, event: str, facts: dict[str, Any], trace: Any) -> object:
        pseudonyms = self._pseudonyms
        return self._record(event, _without_names(pseudonyms, event, facts), _trace(pseudonyms, event, trace))


def _without_names(pseudonyms: Pseudonyms, event: str, facts: dict[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key, value in facts.items():
        if key == "exc_info" and isinstance(value, BaseException):
            changed["exception"] = pseudonyms.text("".join(traceback.format_exception(value)).rstrip())
        else:
            changed[key] = (_IN_EVENT.get((event, key)) or KINDS.get(key, _text))(pseudonyms, value)
    for key in _SPOKEN_OF:
        address = facts.get(key)
        if address and isinstance(changed.get("reply"), str):
            changed["reply"] = without_local_part(changed["reply"], str(address), changed[key])
    return changed


def _trace(pseudonyms: Pseudonyms, event: str, trace: Any) -> Any:
    """What journal.py tells the history alone; of a session only times."""
    if trace is None or event == "session_closed":
        return trace
    to, message_id, _ = trace
    each = [
        (pseudonyms.address(address), rule, where, [_place(pseudonyms, *one) for one in places])
        for address, rule, where, places in to
    ]
    return (each, pseudonyms.name(message_id), "")


def _place(pseudonyms: Pseudonyms, sink: str, mailbox: str, domain: str, route: str) -> tuple[str, str, str, str]:
    return sink, pseudonyms.local_part(mailbox, domain), pseudonyms.ip_in(domain), pseudonyms.ip_in(route)
