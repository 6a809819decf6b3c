"""The JSON schema that `generate config` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from imgbuilder.config import json_schema


def test_the_schema_is_one() -> None:
    """It is valid in the draft that it names, and names no address of its own."""
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "$id" not in schema
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_example_fits_the_schema() -> None:
    """And keys that it does not know do no harm."""
    example = json.loads(Path("config/example.json").read_text())
    jsonschema.validate(example | {"$schema": "x", "colour": "red"}, json_schema())


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("refCache", "interval", "6 hours"),
        ("refCache", "refs", "ubuntu"),
        ("logs", "followed", -1),
        ("telemetry", "probesAddress", "9501"),
        ("limits", "messageSize", None),
    ],
)
def test_what_does_not_load_does_not_fit_the_schema(section: str, name: str, value: object) -> None:
    """An editor can tell before the service does."""
    example = json.loads(Path("config/example.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(example | {section: {name: value}}, json_schema())


def _properties(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    objects = [schema, *schema["$defs"].values()]
    return [item for described in objects for item in described["properties"].items()]


def test_defaults_are_spelled_as_a_file_spells_them() -> None:
    """Durations and sizes show as texts, not as the numbers they become."""
    defaults = {name: described.get("default") for name, described in _properties(json_schema())}
    assert defaults["maximumDuration"] == "1h0m0s"
    assert defaults["maxSize"] == "64MiB"
    assert defaults["metricsAddress"] == "127.0.0.1:9500"
    assert defaults["enableAdditionalECRAuth"] is False
