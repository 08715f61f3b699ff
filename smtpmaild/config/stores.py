"""The section `deliver_to`: the stores. What each `type` takes is described by the store itself (sink/)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo

from smtpmaild.config.paths import absolute_path
from smtpmaild.sink.builtin import SinkOptions


def _with_absolute_path(value: object, info: ValidationInfo) -> object:
    """A store knows nothing of the file it is described in, so its path is made absolute here."""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(path, str) or not path:
        return value
    return {**value, "path": absolute_path(path, info)}


Store = Annotated[Annotated[SinkOptions, Field(discriminator="type")], BeforeValidator(_with_absolute_path)]
