"""Runs as files: one of JSON for each, which are read again for the picture of all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench.rows import Effort, Measured, Row

FOLDER: Final = Path("bench-results")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run.

    :ivar at: when it began, as ISO 8601 has it, in UTC.
    :ivar commit: what was measured; with ``+`` if there were changes that are not committed.
    :ivar quick: whether it measured in a hurry.
    :ivar machine: where it ran.
    :ivar results: what came out.
    """

    at: str
    commit: str
    quick: bool
    machine: Mapping[str, Any] = field(default_factory=dict)
    results: Sequence[Measured] = ()

    @property
    def file_name(self) -> str:
        """Sorts by time."""
        return f"{self.at.replace(':', '-')}-{self.commit}.json"


def write(run: Run, folder: Path) -> Path:
    """Keep *run* in *folder*; the file."""
    rows = [
        {
            "name": one.row.name,
            "unit": one.row.unit,
            "values": list(one.values),
            "floors": list(one.floors),
            "cpu": [effort.cpu for effort in one.efforts],
            "waited": [effort.waited for effort in one.efforts],
        }
        for one in run.results
    ]
    document = {
        "at": run.at,
        "commit": run.commit,
        "quick": run.quick,
        "machine": dict(run.machine),
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / run.file_name
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def read(folder: Path, rows: Mapping[str, Row]) -> list[Run]:
    """The runs in *folder*, the oldest first. What they say of other than *rows* is left out."""
    return [_run(json.loads(path.read_text()), rows) for path in sorted(folder.glob("*.json"))]


def _run(document: Mapping[str, Any], rows: Mapping[str, Row]) -> Run:
    return Run(
        at=document["at"],
        commit=document["commit"],
        quick=document["quick"],
        machine=document["machine"],
        results=[
            Measured(
                row=rows[one["name"]],
                values=tuple(one["values"]),
                floors=tuple(one["floors"]),
                efforts=tuple(map(Effort, one.get("cpu", ()), one.get("waited", ()))),
            )
            for one in document["rows"]
            if one["name"] in rows and rows[one["name"]].unit == one["unit"]
        ],
    )
