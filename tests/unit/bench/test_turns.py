"""Two sides, measured in turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from tests.bench.children import ChildError
from tests.bench.rows import Effort, Measured, Row
from tests.bench.stage import Stage
from tests.bench.turns import Turns

TIME = Row(name="time", measure="how long", unit="s", target=1)
SIZE = Row(name="size", measure="how much", unit="MiB", target=1)
BASE, HEAD = cast("Stage", "base"), cast("Stage", "head")


class Scripted:
    """A scenario whose results, or failures, are known; it takes down who is measured."""

    ROWS = (TIME, SIZE)

    def __init__(self, **results: Any) -> None:
        self.measured: list[Any] = []
        self._results = {side: iter(values) for side, values in results.items()}

    def measure(self, stage: Stage, rows: Sequence[Row]) -> Iterator[Measured]:
        """Measure *rows*: the first as scripted, the others 1."""
        self.measured.append(stage)
        first, *others = rows
        value = next(self._results[str(stage)])
        if value is None:
            raise ChildError("it failed")
        yield Measured(row=first, values=(value,), efforts=(Effort(value / 2),))
        for row in others:
            yield Measured(row=row, values=(1.0,))


def test_who_comes_first_changes() -> None:
    """And the values of a pair stay together."""
    scenario = Scripted(base=[1.0, 2.0], head=[3.0, 5.0])
    turns = Turns(BASE, HEAD)
    turns.pair(scenario, scenario.ROWS, swapped=False)
    turns.pair(scenario, scenario.ROWS, swapped=True)
    assert scenario.measured == [BASE, HEAD, HEAD, BASE]
    times, cpu, sizes = turns.differences()
    assert (times.row, times.base, times.head) == (TIME, [1.0, 2.0], [3.0, 5.0])
    assert (cpu.row.name, cpu.differences) == ("time-cpu", [1.0, 1.5])
    assert (sizes.row, sizes.differences) == (SIZE, [0.0, 0.0])


def test_a_side_that_fails() -> None:
    """Its pair is left out."""
    scenario = Scripted(base=[1.0, 2.0], head=[None, 5.0])
    turns = Turns(BASE, HEAD)
    for _ in range(2):
        turns.pair(scenario, [TIME], swapped=False)
    times, _ = turns.differences()
    assert (times.base, times.head) == ([2.0], [5.0])
