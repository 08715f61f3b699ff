"""Where things are, for commands that must be quick: the file as YAML, without the models.

Takes 30 ms; the whole configuration takes ten times that. What these few keys mean is said in control.py, queue.py and
models.py. A file that is more wrong than this can see is none of our business: who runs by it has checked it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from smtpmaild.config.mistakes import ConfigError, Mistake
from smtpmaild.config.yaml_nodes import Document, Value, process_environment

#: The defaults of Control.socket and Queue.path; a test compares them.
CONTROL_SOCKET = "var/run/control.sock"
QUEUE = "var/queue"


@dataclass(frozen=True, slots=True)
class Places:
    """control: path of the control socket, "" where there is none.  queue: directory of the queue.  user, group: whom
    the daemon becomes, "" for nobody else.  has_history: what happens is remembered."""

    control: str
    queue: str
    user: str = ""
    group: str = ""
    has_history: bool = False


def places(path: str) -> Places:
    """Of the configuration in this file; raises ConfigError where it cannot be read."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError([Mistake(path, 0, 0, 0, f"cannot read the file: {cause}")]) from None
    document = Document(path, text, process_environment())
    if document.mistakes:
        raise ConfigError(document.mistakes)
    root = document.value()
    assert isinstance(root, dict), "Document.value() says so"
    folder = os.path.dirname(os.path.abspath(path))
    control = _mapping(root, "control")
    return Places(
        control="" if control is None else _path(folder, control, "socket", CONTROL_SOCKET),
        queue=_path(folder, _mapping(root, "queue") or {}, "path", QUEUE),
        user=_text(root, "user"),
        group=_text(root, "group"),
        has_history=_mapping(root, "history") is not None,
    )


def _mapping(root: Mapping[str, Value], key: str) -> Mapping[str, Value] | None:
    value = root.get(key)
    return value if isinstance(value, dict) else None


def _path(folder: str, section: Mapping[str, Value], key: str, default: str) -> str:
    return os.path.normpath(os.path.join(folder, _text(section, key) or default))


def _text(section: Mapping[str, Value], key: str) -> str:
    value = section.get(key, "")
    return "" if isinstance(value, list | dict) else str(value)
