"""Two commits, measured in turns, and which of the differences are more than noise.

The two are measured one right after the other, in pairs, and who comes first changes from pair to pair: what the
machine does meanwhile hits both alike. A difference counts when two questions are answered with yes:

- is it in the same direction in so many pairs that a coin would do that in less than one of twenty cases (a sign
  test: it assumes nothing of how the noise is distributed; six pairs that all agree are enough, fewer never are);
- is no difference outside of where the median of the differences lies with a confidence of 95 % (by bootstrap).
"""

from __future__ import annotations

import enum
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.rows import Better, Row
from tests.bench.statistics import interval, sign_test
from tests.bench.table import aligned, number

LEAST_PAIRS: Final = 6
"""With fewer pairs nothing can be said."""

UNLIKELY: Final = 0.05


class Verdict(enum.Enum):
    """What is to be said of a difference."""

    BETTER = "better"
    WORSE = "WORSE"
    NOISE = "noise"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One row of two commits: *base* and *head* are of the same pairs, in the same order."""

    row: Row
    base: Sequence[float]
    head: Sequence[float]

    @property
    def differences(self) -> list[float]:
        """Pair by pair."""
        return [head - base for base, head in zip(self.base, self.head, strict=True)]

    @property
    def change(self) -> float:
        """The median difference, as a share of the base's median; 0 where that is 0."""
        return self._share(statistics.median(self.differences))

    @property
    def bounds(self) -> tuple[float, float]:
        """Where that lies with a confidence of 95 %."""
        low, high = interval(self.differences)
        return self._share(low), self._share(high)

    @property
    def chance(self) -> float:
        """How likely a coin does this."""
        return sign_test(self.differences)

    @property
    def verdict(self) -> Verdict:
        """Whether it counts."""
        if not any(self.differences):
            return Verdict.SAME
        low, high = interval(self.differences)
        if self.chance >= UNLIKELY or low <= 0 <= high:
            return Verdict.NOISE
        grows = low > 0
        return Verdict.BETTER if grows == (self.row.better is Better.HIGHER) else Verdict.WORSE

    def _share(self, difference: float) -> float:
        base = statistics.median(self.base)
        return difference / abs(base) if base else 0.0


HEADINGS: Final = ("measure", "base", "head", "change", "95 % of it", "by chance", "verdict")


def table(differences: Sequence[Difference]) -> str:
    """A line for each of *differences*."""
    return aligned([HEADINGS, *map(_cells, differences)])


def _cells(difference: Difference) -> tuple[str, ...]:
    low, high = difference.bounds
    return (
        difference.row.measure,
        f"{number(statistics.median(difference.base))} {difference.row.unit}",
        f"{number(statistics.median(difference.head))} {difference.row.unit}",
        f"{difference.change:+.1%}",
        f"{low:+.1%} .. {high:+.1%}",
        f"{difference.chance:.2f}",
        difference.verdict.value,
    )
