"""What all sections of the file have in common: unknown keys are mistakes, and values never change."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt


class Section(BaseModel):
    """A mapping in the file. Each field carries a description: it goes into the JSON Schema and the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)


#: A number, not a text that looks like one: "010" is none.
Whole = StrictInt

T = TypeVar("T")


def _not_empty(items: tuple[T, ...]) -> tuple[T, ...]:
    # Not min_length: pydantic counts the valid items only, and one wrong item would be called "no item" too.
    if not items:
        raise ValueError("the list must not be empty")
    return items


AtLeastOne = Annotated[tuple[T, ...], AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1})]
