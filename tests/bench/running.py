"""One run from the choice of rows to the files it leaves."""

from __future__ import annotations

import compileall
import datetime as dt
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench import comparing, generator, history, picture, table
from tests.bench.children import ChildError
from tests.bench.comparing import Difference
from tests.bench.history import FOLDER, Run
from tests.bench.loading import load_program
from tests.bench.rows import Measured, Row
from tests.bench.scenarios import SCENARIOS, Scenario
from tests.bench.stage import ROOT, Stage
from tests.bench.words import say

PACKAGE: Final = "imgbuilder"
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
def stage(*, quick: bool, commit: str | None = None) -> Iterator[Stage]:
    """A stage for the service as it is in the checkout now, or in *commit*.

    Either is copied, so that work may go on meanwhile.

    :raises ChildError: if there is no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        tree = Path(folder) / "tree"
        if commit is None:
            shutil.copytree(ROOT / PACKAGE, tree / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            tree.mkdir()
            archive = Path(folder) / "tree.tar"
            _git("archive", "--output", str(archive), commit, PACKAGE)
            shutil.unpack_archive(archive, tree, filter="data")
        compileall.compile_dir(tree, quiet=2)
        yield Stage(
            tree=tree,
            folder=Path(folder),
            generator=load_program(),
            rounds=QUICK_ROUNDS if quick else ROUNDS,
            seconds=QUICK_SECONDS if quick else SECONDS,
            floors=commit is None,
        )


def measure(stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
    """Measure *rows*, scenario by scenario; what fails is told, and left out."""
    for scenario, some in _scenarios(rows):
        left = list(some)
        try:
            for result in scenario.measure(stage, some):
                left.remove(result.row)
                yield result
        except (ChildError, AssertionError) as error:
            say(f"not measured: {', '.join(row.name for row in left)}: {error}")


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
    done = Run(at=at, commit=commit(), quick=quick, machine=machine, results=results)
    say(f"\n{table.table(results)}\n")
    say(f"kept in {history.write(done, FOLDER)}")
    drawn = FOLDER / "history.png"
    picture.draw(history.read(FOLDER, ROWS), list(ROWS.values()), drawn)
    say(f"all runs: {drawn}")
    return done


def compare(rows: Sequence[Row], base: str, *, pairs: int) -> list[Difference]:
    """Measure *rows* of the commit *base* and of the checkout in turns, *pairs* times, and show what differs."""
    values: dict[Row, tuple[list[float], list[float]]] = {row: ([], []) for row in rows}
    with stage(quick=True, commit=base) as before, stage(quick=True) as after:
        after.floors = False
        say(f"{base} against {commit()}, {pairs} pairs")
        for pair in range(pairs):
            for scenario, some in _scenarios(rows):
                sides = [(before, 0), (after, 1)]
                for side, place in sides if pair % 2 == 0 else reversed(sides):
                    for result in scenario.measure(side, some):
                        values[result.row][place].append(result.value)
            say(f"{pair + 1} of {pairs}")
    differences = [Difference(row=row, base=old, head=new) for row, (old, new) in values.items()]
    say(f"\n{comparing.table(differences)}\n")
    return differences


def commit() -> str:
    """The commit that is checked out, with a plus sign if it was changed."""
    text = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", PACKAGE)
    return f"{text}+" if changed else text


def _scenarios(rows: Sequence[Row]) -> Iterator[tuple[Scenario, list[Row]]]:
    """The scenarios of *rows*, each with those that are its own."""
    for scenario in SCENARIOS.values():
        some = [row for row in scenario.ROWS if row in rows]
        if some:
            yield scenario, some


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChildError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "load average": os.getloadavg()[0],
    }
