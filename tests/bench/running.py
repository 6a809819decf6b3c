"""One run from the choice of rows to the files it leaves."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench import generator, history, picture, table
from tests.bench.history import FOLDER, Run
from tests.bench.loading import load_program
from tests.bench.rows import Measured, Row
from tests.bench.scenarios import SCENARIOS
from tests.bench.stage import ROOT, Stage
from tests.bench.words import say

ROUNDS: Final = 5
SECONDS: Final = 4.0
QUICK_ROUNDS: Final = 1
QUICK_SECONDS: Final = 2.0

ROWS: Final[Mapping[str, Row]] = {row.name: row for scenario in SCENARIOS.values() for row in scenario.ROWS}


def chosen(only: Sequence[str]) -> list[Row]:
    """The rows whose name, or whose scenario's, has one of *only* in it; all if that is empty."""
    return [
        row
        for name, scenario in SCENARIOS.items()
        for row in scenario.ROWS
        if not only or any(part in row.name or part in name for part in only)
    ]


@contextmanager
def stage(
    *, quick: bool, tree: Path = ROOT, rounds: int | None = None, floors: bool = True
) -> Iterator[Stage]:
    """A stage for the service in *tree*."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Stage(
            tree=tree,
            folder=Path(folder),
            generator=load_program(),
            rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
            seconds=QUICK_SECONDS if quick else SECONDS,
            floors=floors,
        )


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*, scenario by scenario."""
    for scenario in SCENARIOS.values():
        some = [row for row in scenario.ROWS if row in rows]
        if some:
            yield from scenario.measure(stage, some)


def run(rows: Sequence[Row], *, quick: bool) -> Run:
    """Measure *rows*, show the results, keep them, and draw all that was kept so far."""
    at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    results = []
    with stage(quick=quick) as made:
        large, small = generator.measure(made)
        kind = made.generator.kind
        say(table.generator_line(kind, large, small))
        for result in measure(made, rows):
            say(table.result_line(result))
            results.append(result)
    machine = {
        **_machine(),
        "load generator": {"kind": kind, "large": large.as_json(), "small": small.as_json()},
    }
    done = Run(at=at, commit=commit_of(ROOT), quick=quick, machine=machine, results=results)
    say(f"\n{table.table(results)}\n")
    say(f"kept in {history.write(done, FOLDER)}")
    drawn = FOLDER / "history.png"
    picture.draw(history.read(FOLDER, ROWS), list(ROWS.values()), drawn)
    say(f"all runs: {drawn}")
    return done


def commit_of(tree: Path) -> str:
    """The commit that is checked out in *tree*, with a plus sign if it was changed."""
    text = _git(tree, "rev-parse", "--short", "HEAD")
    changed = _git(tree, "status", "--porcelain", "--untracked-files=no", "--", "imgbuilder")
    return f"{text}+" if changed else text


def _git(tree: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=tree, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "load average": os.getloadavg()[0],
    }
