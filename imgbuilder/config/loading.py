"""Reads a configuration: from a file to a `Config`, or to one message that says all that is wrong with it.

Files that were written for the Go system load: as its JSON decoder does, null means that a setting is not
set, and names match whatever their case. Keys that mean nothing here are told to the caller.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from imgbuilder.config.files import file_faults
from imgbuilder.config.model import Config, Section
from imgbuilder.config.problems import ConfigError, Fault, spelled

SCHEMA_KEY: Final = "$schema"

WORDS: Final = {
    "missing": "is missing",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}
"""For those of pydantic's errors whose own words speak of Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration, and the keys of its file that have no meaning here, e.g. ``orchestrator.colour``."""

    config: Config
    unknown_keys: tuple[str, ...]


def load(path: str) -> Loaded:
    """Read the configuration file at *path*, and look at the files it names.

    :raises ConfigError: if it can't be read, or can't work.
    """
    loaded = parse(path, _read(path))
    faults = file_faults(loaded.config)
    if faults:
        raise ConfigError(path, faults)
    return loaded


def parse(path: str, text: bytes) -> Loaded:
    """The configuration that *text* is; *path* says in errors where it comes from. Reads no files.

    :raises ConfigError: if it is not a configuration.
    """
    data = _decoded(path, text)
    unknown: list[str] = []
    known = _known(Config, data, (), unknown)
    try:
        # As JSON again: there pydantic takes a list for a tuple while it is strict with everything else.
        config = Config.model_validate_json(json.dumps(known))
    except ValidationError as error:
        raise ConfigError(path, _faults(error)) from error
    return Loaded(config=config, unknown_keys=tuple(unknown))


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(path, [Fault("", f"cannot be read: {error.strerror}")]) from error


def _decoded(path: str, text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(path, [Fault("", f"is not JSON: {error.msg} ({where})")]) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(path, [Fault("", "is not JSON in UTF-8")]) from error
    except ValueError as error:  # Python reads no number of thousands of digits
        raise ConfigError(path, [Fault("", "has a number that is too long")]) from error
    if not isinstance(data, dict):
        raise ConfigError(path, [Fault("", "must be a JSON object")])
    return data


def _known(
    section: type[Section], data: dict[str, Any], path: tuple[str, ...], unknown: list[str]
) -> dict[str, Any]:
    """What of *data* has a meaning in *section*, by its proper names; the rest goes to *unknown*."""
    fields = {field.alias or name: field.annotation for name, field in section.model_fields.items()}
    by_folded = {name.casefold(): name for name in fields}
    known: dict[str, Any] = {}
    # What is spelled properly comes first, so that it wins.
    for key, value in sorted(data.items(), key=lambda item: item[0] not in fields):
        name = by_folded.get(key.casefold())
        if name is None or name in known:
            if (*path, key) != (SCHEMA_KEY,):
                unknown.append(spelled((*path, key)))
        elif value is not None:
            kind = fields[name]
            if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, Section):
                value = _known(kind, value, (*path, name), unknown)  # noqa: PLW2901  # its known part
            known[name] = value
    return known


def _faults(error: ValidationError) -> Sequence[Fault]:
    faults = []
    for item in error.errors(include_url=False, include_input=False):
        words = WORDS.get(item["type"]) or item["msg"].replace("Input should", "must")
        faults.append(Fault(spelled(item["loc"]), str(item.get("ctx", {}).get("error", words))))
    return faults
