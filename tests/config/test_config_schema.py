from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import smtpmaild.config
from smtpmaild.config.schema import DIALECT, config_schema, schema_text

SHIPPED = Path(smtpmaild.config.__file__).parent / "smtpmaild.schema.json"
ROOT = Path(__file__).resolve().parents[2]


def test_shipped_schema_is_fresh() -> None:
    assert SHIPPED.read_text() == schema_text(), "run `make schema`"


def test_says_what_it_is() -> None:
    schema = json.loads(schema_text())
    assert schema["$schema"] == DIALECT == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == "urn:smtpmaild:config:1"
    assert schema["title"] == "smtpmaild configuration"
    assert schema["required"] == ["listeners"]


def properties(schema: object, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        for name, inner in schema.get("properties", {}).items():
            yield f"{path}.{name}", inner
        for key, value in schema.items():
            yield from properties(value, f"{path}/{key}")


@pytest.mark.parametrize(("path", "schema"), list(properties(config_schema())))
def test_every_key_is_described(path: str, schema: dict[str, Any]) -> None:
    if path.endswith(".type"):  # the kind of a store; its section is described
        assert schema["const"]
    else:
        if path.startswith("/$defs/Policies."):  # a policy describes itself
            schema = config_schema()["$defs"][schema["$ref"].rpartition("/")[2]]
        assert schema["description"].endswith((".", '".')), path


def test_no_key_may_be_empty() -> None:
    """A key without a value is a mistake, so an editor must not offer null."""
    assert '"null"' not in schema_text()
    assert '"default": null' not in schema_text()


def test_every_section_is_closed() -> None:
    for name, section in config_schema()["$defs"].items():
        if section["type"] == "object":
            assert section["additionalProperties"] is False, name


CONFIGS = [ROOT / "config" / "smtp.yaml", *sorted((ROOT / "config" / "examples").glob("*.yaml"))]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_example_names_the_schema(path: Path) -> None:
    first = path.read_text().split("\n", 1)[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == SHIPPED
