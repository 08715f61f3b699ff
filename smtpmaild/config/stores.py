"""The section `deliver_to`: the stores. What each `type` takes is described by the store itself (sink/)."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo

from smtpmaild.config.paths import absolute_path
from smtpmaild.sink.builtin import SinkOptions


def _with_absolute_path(value: object, info: ValidationInfo) -> object:
    """A store knows nothing of the file it is described in, so its path is made absolute here."""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(path, str) or not path:
        return value
    # Only what stands before the first placeholder may have ".." in it; the store refuses it behind.
    if "{" not in path:
        return {**value, "path": absolute_path(path, info)}
    fixed = path.partition("{")[0].rpartition("/")[0]
    folder = absolute_path(fixed or ("/" if path.startswith("/") else "."), info)
    return {**value, "path": os.path.join(folder, path[len(fixed) :].lstrip("/"))}


Store = Annotated[Annotated[SinkOptions, Field(discriminator="type")], BeforeValidator(_with_absolute_path)]
