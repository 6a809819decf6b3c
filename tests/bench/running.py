"""One run from the choice of rows to the files it leaves."""

from __future__ import annotations

import datetime as dt
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench import generator, history, picture, table, trees
from tests.bench.children import ChildError
from tests.bench.history import FOLDER, Run
from tests.bench.loading import load_program
from tests.bench.rows import Measured, Row
from tests.bench.scenarios import SCENARIOS, Scenario
from tests.bench.stage import Stage
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


def scenarios(rows: Sequence[Row]) -> Iterator[tuple[Scenario, list[Row]]]:
    """The scenarios that measure *rows*, each with those that are its own."""
    for scenario in SCENARIOS.values():
        some = [row for row in scenario.ROWS if row in rows]
        if some:
            yield scenario, some


@contextmanager
def stage(
    *, rounds: int, seconds: float = SECONDS, floors: bool = True, commit: str | None = None
) -> Iterator[Stage]:
    """A stage for the service as it is in the checkout now, or in *commit*.

    :raises ChildError: if there is no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        yield Stage(
            tree=trees.copy(folder, commit),
            folder=folder,
            generator=load_program(),
            rounds=rounds,
            seconds=seconds,
            floors=floors,
        )


def measure(stage: Stage, scenario: Scenario, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows* of *scenario*. What fails is told, and left out."""
    left = list(rows)
    try:
        for result in scenario.measure(stage, rows):
            left.remove(result.row)
            yield result
    except (ChildError, AssertionError) as error:
        say(f"not measured: {', '.join(row.name for row in left)}: {error}")


def run(rows: Sequence[Row], *, quick: bool, rounds: int | None) -> Run:
    """Measure *rows*, show the results, keep them, and draw all that was kept so far."""
    at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    commit = trees.commit()
    times = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    results = []
    with stage(rounds=times, seconds=QUICK_SECONDS if quick else SECONDS) as made:
        kind = made.generator.kind
        large, small = generator.measure(made)
        say(table.generator_line(kind, large, small))
        for scenario, some in scenarios(rows):
            for result in measure(made, scenario, some):
                say(table.result_line(result))
                results.append(result)
    machine = {
        **_machine(),
        "load generator": {"kind": kind, "large": large.as_json(), "small": small.as_json()},
    }
    done = Run(at=at, commit=commit, quick=quick, machine=machine, results=results)
    say(f"\n{table.table(results)}\n")
    say(f"kept in {history.write(done, FOLDER)}")
    picture.draw_run(done, FOLDER / "latest.png")
    picture.draw_history(history.read(FOLDER, ROWS), list(ROWS.values()), FOLDER / "history.png")
    say(f"pictures: {FOLDER}/latest.png, {FOLDER}/history.png")
    return done


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "load average": os.getloadavg()[0],
    }
