"""The JSON schema of a configuration, for editors and checks outside of this service."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from imgbuilder.config import model
from imgbuilder.config.model import Config


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out titles, which would only repeat the names of the fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        return False


def json_schema() -> dict[str, Any]:
    """The schema, in draft 2020-12."""
    schema = Config.model_json_schema(schema_generator=_WithoutTitles)
    for section, descriptions in _docstrings().items():
        definition = schema if section == Config.__name__ else schema["$defs"].get(section, {})
        for name, setting in definition.get("properties", {}).items():
            if name in descriptions:
                setting["description"] = descriptions[name]
    schema["properties"] = {"$schema": {"type": "string"}, **schema["properties"]}
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def _docstrings() -> Mapping[str, Mapping[str, str]]:
    """What stands below each setting in the code, by section and by the name that a file spells.

    pydantic could collect that by itself, but would read the code at every start of the service.
    """
    sections: dict[str, dict[str, str]] = {}
    for section in ast.parse(inspect.getsource(model)).body:
        if isinstance(section, ast.ClassDef):
            fields = getattr(model, section.name).model_fields
            descriptions = sections[section.name] = {}
            for setting, text in pairwise(section.body):
                match setting, text:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(words))):
                        descriptions[fields[name].alias] = words
    return sections
