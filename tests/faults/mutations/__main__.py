"""Switches mechanisms off, one at a time, and tells who misses them."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.faults.mutations import bounds, logs, promises, secrecy
from tests.faults.mutations.mutation import MUTATIONS, Mutation, SwitchOff
from tests.faults.simulation import mutations as simulated
from tests.faults.simulation.run import run

KINDS: Final = (bounds, logs, promises, secrecy)
"""They list their mutations when they are imported."""

PAGE: Final = Path(__file__).parents[3] / "docs" / "guarantees.md"
BEGIN: Final = "<!-- begin of the mutations -->\n"
END: Final = "<!-- end of the mutations -->\n"
MOST_SEEDS: Final = 2000
SECONDS: Final = 20

PROMISES: Final = {
    "one workspace per image": 3,
    "a later build has another id": 3,
    "a Build call has an end": 1,
    "lost news is made up for in time": 1,
    "errors say what is wrong": 1,
    "a build that takes too long is stopped": 1,
    "nothing is left over": 6,
    "a log is what was printed": 4,
    "a log is complete where the supervisor could be asked for long enough": 4,
    "a log has an end": 4,
}
"""Which promises those of the simulation are; all others are the second: the truth is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A mechanism, and who missed it; nobody if *caught* is empty."""

    promise: int
    name: str
    what: str
    caught: str


class _SwitchedOff:
    """A plugin of pytest that switches a mechanism off for each test, and remembers which failed."""

    def __init__(self, switch_off: SwitchOff) -> None:
        self._switch_off = switch_off
        self.failed: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Run the test, with its fixtures, without the mechanism."""
        with pytest.MonkeyPatch.context() as patch:
            self._switch_off(patch)
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what failed; a fixture that does is no test that does."""
        if report.when == "call" and report.failed:
            self.failed.append(report.nodeid)


def by_test(mutation: Mutation) -> Row:
    """Run the test of a mutation."""
    plugin = _SwitchedOff(mutation.switch_off)
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(
            [
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                # what an earlier one left to the garbage collector is not the test's
                "-p",
                "no:unraisableexception",
                "--assert=plain",
                "-o",
                f"timeout={SECONDS}",
                mutation.test,
            ],
            plugins=[plugin],
        )
    caught = f"`{plugin.failed[0].partition('[')[0]}`" if plugin.failed else ""
    return Row(promise=mutation.promise, name=mutation.name, what=mutation.what, caught=caught)


def by_simulation(mutation: simulated.Mutation) -> Row:
    """Look for the first seed that misses the mechanism."""
    caught, promise = "", PROMISES.get(mutation.breaks[0], 2)
    with pytest.MonkeyPatch.context() as patch:
        mutation.switch_off(patch)
        for seed in (mutation.likely, *range(MOST_SEEDS)):
            broken = {fault.split(": ")[1] for fault in run(seed).broken}
            if found := sorted(broken & set(mutation.breaks)):
                caught = f"simulation, seed {seed}: {found[0]}"
                break
    if mutation.name == "no_censoring":
        promise = 5
    return Row(promise=promise, name=mutation.name, what=mutation.what, caught=caught)


def table(rows: Sequence[Row]) -> str:
    """The rows as a page shows them."""
    lines = ["| Promise | Switched off | Caught by |", "|---|---|---|"]
    lines += [f"| {row.promise} | `{row.name}`: {row.what} | {row.caught} |" for row in rows]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Switch off what is named, or everything; 1 if something is missed by nobody."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", help="those to try; all, unless some are named")
    parser.add_argument("--write", action="store_true", help="write the table into docs/guarantees.md")
    chosen = parser.parse_args(arguments)
    rows = []
    every: list[Mutation | simulated.Mutation] = [*simulated.MUTATIONS, *MUTATIONS]
    unknown = set(chosen.names) - {mutation.name for mutation in every}
    if unknown:
        parser.error(f"there is no mutation {', '.join(sorted(unknown))}")
    for mutation in every:
        if chosen.names and mutation.name not in chosen.names:
            continue
        row = by_test(mutation) if isinstance(mutation, Mutation) else by_simulation(mutation)
        sys.stdout.write(f"{row.promise} {row.name}: {row.caught or 'NOBODY MISSES IT'}\n")
        sys.stdout.flush()
        rows.append(row)
    rows.sort(key=lambda row: row.promise)
    if chosen.write and not chosen.names:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}")
    return 0 if all(row.caught for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
