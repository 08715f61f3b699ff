"""The section `relays`: what takes our mail on. What each `type` takes is described by the agent itself (delivery/).

Without a type it is a host that speaks SMTP.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo

from smtpmaild.config.paths import absolute_path, secret_path
from smtpmaild.delivery.builtin import BUILTIN, DEFAULT_TYPE, AgentOptions

#: Options of agents that name a file with a secret in it.
SECRET_FILES = ("password_file", "secret_file")


def _with_type_and_absolute_paths(value: object, info: ValidationInfo) -> object:
    """An agent knows nothing of the file it is described in, so its paths are made absolute here."""
    if not isinstance(value, dict):
        return value
    value = {"type": DEFAULT_TYPE, **value}
    kind = BUILTIN.get(value["type"]) if isinstance(value["type"], str) else None
    for key in kind.files if kind else ():
        path = value.get(key)
        if isinstance(path, str) and path:
            value[key] = secret_path(path, info) if key in SECRET_FILES else absolute_path(path, info)
    return value


Relay = Annotated[
    Annotated[AgentOptions, Field(discriminator="type")],
    BeforeValidator(_with_type_and_absolute_paths),
]
