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
    fixed, brace, rest = path.partition("{")
    folder, slash, name = fixed.rpartition("/") if brace else (fixed, "", "")
    return {**value, "path": os.path.join(absolute_path(folder + slash or ".", info), name + brace + rest)}


Store = Annotated[Annotated[SinkOptions, Field(discriminator="type")], BeforeValidator(_with_absolute_path)]
