"""Generates the reference pages of ``docs/`` from the code; with ``--check``, fails when what is committed differs.

``configuration.md`` is made of the configuration's JSON schema, ``metrics.md`` of the metrics that a service shows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imgbuilder.config import json_schema
from imgbuilder.telemetry.metrics import Metrics

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Made by `make docs`: change the code it is made of. -->\n"

CONFIGURATION = """
# Configuration

One JSON file, named by `--config`. Files of the system this one replaces load unchanged: `orchestrator`, `refCache`
and `server` are its sections, all others are optional and new. A mistake is told with file, field and fault, all
mistakes at once; a key that means nothing here is told and ignored. `imgbuilder generate config` prints the JSON
schema of all this for editors, `config/example.json` is a file that works.

Durations are written like `1h30m`, `15s`, `250ms`; sizes like `4MiB`, or as a number of bytes. Changing the file needs
a restart; certificates, keys and the pull secret are read again when they change.
"""

METRICS = """
# Metrics

Served at `/metrics` on `telemetry.metricsAddress`, as Prometheus' text or OpenMetrics. The names that begin with
`gitpod_` and `grpc_` are those of the system this one replaces, so that dashboards and alerts go on working.
[operations.md](operations.md) says which to look at when.
"""


def configuration() -> str:
    """The page on what can be configured: a table for each section."""
    schema = json_schema()
    parts = [NOTE, CONFIGURATION]
    sections = {name: section for name, section in schema["properties"].items() if "$ref" in section}
    for name, section in sections.items():
        definition = _resolved(schema, section)
        needed = "" if name in schema.get("required", ()) else " (optional)"
        parts.append(f"\n## `{name}`{needed}\n\n{definition['description']}\n")
        parts.append("\n| key | type | default | meaning |\n|---|---|---|---|\n")
        parts.extend(_rows(schema, definition, ""))
    return "".join(parts)


def _rows(schema: dict[str, Any], definition: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, setting in definition["properties"].items():
        resolved = _resolved(schema, setting)
        if "properties" in resolved:
            yield from _rows(schema, resolved, f"{prefix}{name}.")
            continue
        default = json.dumps(resolved["default"], ensure_ascii=False) if "default" in resolved else ""
        cells = (
            f"`{prefix}{name}`",
            _type(resolved),
            f"`{default}`" if default else "**needed**" if name in definition.get("required", ()) else "",
            resolved["description"],
        )
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |\n"


def _resolved(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    return {**schema["$defs"][part["$ref"].rpartition("/")[2]], **part}


def _type(setting: dict[str, Any]) -> str:
    kind = setting.get("type") or [choice["type"] for choice in setting["anyOf"] if choice["type"] != "null"]
    match kind:
        case "array":
            return f"list of {_type(setting.get('items', {}))}s"
        case "object":
            return f"object of {_type(setting.get('additionalProperties', {}))}s"
        case list():
            return " or ".join(dict.fromkeys(kind))
        case _:
            return str(kind)


def metrics() -> str:
    """The page on what a service counts: a table."""
    counted = Metrics()
    counted.observe_spool(int)
    counted.observe_subscribers(int)
    counted.watcher_event()
    parts = [NOTE, METRICS, "\n| metric | type | labels | meaning |\n|---|---|---|---|\n"]
    families = {family.name: family for family in counted.registry.collect()}
    labels = _labels(counted)
    for name, family in sorted(families.items()):
        shown = f"{name}_total" if family.type == "counter" else name
        cells = (
            f"`{shown}`",
            family.type,
            ", ".join(map("`{}`".format, labels.get(name, ()))),
            family.documentation,
        )
        parts.append(f"| {' | '.join(_cell(cell) for cell in cells)} |\n")
    return "".join(parts)


def _labels(counted: Metrics) -> dict[str, tuple[str, ...]]:
    """The labels of each family; series that exist tell theirs, the rest is known to the library."""
    known = {
        name: tuple(collector._labelnames)  # noqa: SLF001  # the library tells it nowhere else
        for collector, names in counted.registry._collector_to_names.items()  # noqa: SLF001
        if hasattr(collector, "_labelnames")
        for name in names
    }
    return known | {"imgbuilder_builds_running": ("phase",)}


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


PAGES = {"configuration.md": configuration, "metrics.md": metrics}


def main() -> int:
    """Write the pages, or compare them."""
    pages = {DOCS / name: make() for name, make in PAGES.items()}
    if "--check" not in sys.argv[1:]:
        for path, text in pages.items():
            path.write_text(text)
        return 0
    differing = [path.name for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if differing:
        print(f"docs/ does not fit the code: run `make docs` ({', '.join(differing)})", file=sys.stderr)
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
