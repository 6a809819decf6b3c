"""A commit and the checkout, measured in turns: what `tests.bench.comparing` says of it is shown and kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.bench import comparing, trees
from tests.bench.comparing import Difference
from tests.bench.rows import Row
from tests.bench.running import QUICK_SECONDS, measure, scenarios, stage
from tests.bench.scenarios import Scenario
from tests.bench.stage import Stage
from tests.bench.words import say

INSIDE: Final = 2
"""How often a row is measured in each turn."""


class Turns:
    """What was measured so far, pair by pair: values by row, of the base and of the head."""

    def __init__(self, base: Stage, head: Stage) -> None:
        self._sides = (base, head)
        self._values: dict[Row, tuple[list[float], list[float]]] = {}

    def pair(self, scenario: Scenario, rows: Sequence[Row], *, swapped: bool) -> None:
        """Measure both sides. What is not measured of both is left out."""
        measured: dict[int, dict[Row, float]] = {}
        for place in (1, 0) if swapped else (0, 1):
            measured[place] = {}
            for result in measure(self._sides[place], scenario, rows):
                measured[place][result.row] = result.value
                if result.cpu is not None:
                    measured[place][result.row.cpu_row] = result.cpu
        for row, value in measured[0].items():
            if row in measured[1]:
                base, head = self._values.setdefault(row, ([], []))
                base.append(value)
                head.append(measured[1][row])

    def differences(self) -> list[Difference]:
        """Of what was measured."""
        return [Difference(row=row, base=base, head=head) for row, (base, head) in self._values.items()]


def compare(rows: Sequence[Row], base: str, *, pairs: int) -> list[Difference]:
    """Measure *rows* of the commit *base* and of the checkout in turns, *pairs* times, and show what differs.

    :raises ChildError: if there is no such commit.
    """
    head = trees.commit()
    with (
        stage(rounds=INSIDE, seconds=QUICK_SECONDS, floors=False, commit=base) as before,
        stage(rounds=INSIDE, seconds=QUICK_SECONDS, floors=False) as after,
    ):
        turns = Turns(before, after)
        for scenario, some in scenarios(rows):
            for number in range(pairs):
                turns.pair(scenario, some, swapped=number % 2 == 1)
            say(f"{pairs} pairs of {', '.join(row.name for row in some)}")
    differences = turns.differences()
    say(f"\n{base} (base) against {head} (head):\n\n{comparing.table(differences)}\n")
    return differences
