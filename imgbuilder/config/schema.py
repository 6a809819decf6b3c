"""The JSON schema of a configuration, for editors and checks outside of this service."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from imgbuilder.config.model import Config


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out titles, which would only repeat the names of the fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        return False


def json_schema() -> dict[str, Any]:
    """The schema, in draft 2020-12."""
    schema = Config.model_json_schema(schema_generator=_WithoutTitles)
    schema["properties"] = {"$schema": {"type": "string"}, **schema["properties"]}
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}
