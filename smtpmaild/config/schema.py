"""The JSON Schema of the file, for editors and for the reference: made from the models, shipped beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from smtpmaild.config.models import Config

#: The dialect pydantic writes, and a name for ours that does not depend on where the file lies.
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_ID = "urn:smtpmaild:config:1"


@cache
def config_schema() -> dict[str, Any]:
    """The schema as plain data; not to be changed."""
    schema = Config.model_json_schema(mode="validation")
    for part in _parts(schema):
        _forget_null(part)
    return {"$schema": DIALECT, "$id": SCHEMA_ID, **schema, "title": "smtpmaild configuration"}


def schema_text() -> str:
    """What `smtpmaild schema` prints and the package ships."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


def _parts(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _parts(value)


def _forget_null(part: dict[str, Any]) -> None:
    """An optional key is left out; a key without a value is a mistake."""
    if part.get("default", ...) is None:
        del part["default"]
    alternatives = [one for one in part.get("anyOf", ()) if one != {"type": "null"}]
    if len(alternatives) == 1:
        del part["anyOf"]
        part |= {**alternatives[0], **part}
    elif alternatives:
        part["anyOf"] = alternatives
