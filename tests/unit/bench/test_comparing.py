"""Which differences between two commits are more than noise."""

from __future__ import annotations

import random

import pytest

from tests.bench.comparing import LEAST_PAIRS, UNLIKELY, Difference, Verdict, table
from tests.bench.rows import Better, Row

SLOW = Row(name="seconds", measure="how long it takes", unit="s", target=1)
FAST = Row(name="rate", measure="how much it does", unit="MiB/s", target=1, better=Better.HIGHER)
BASE = [10.0, 11.0, 9.0, 10.5, 9.5, 10.0]


def changed(row: Row, *, by: float) -> Difference:
    """*row* of a commit that has changed *by* that share, measured on a machine that others use, too."""
    return Difference(row=row, base=BASE, head=[value * (1 + by) for value in BASE])


@pytest.mark.parametrize(
    ("row", "by", "verdict"),
    [
        (SLOW, 0.1, Verdict.WORSE),
        (SLOW, -0.1, Verdict.BETTER),
        (FAST, 0.1, Verdict.BETTER),
        (FAST, -0.1, Verdict.WORSE),
        (FAST, 0.0, Verdict.SAME),
    ],
)
def test_all_pairs_agree(row: Row, by: float, verdict: Verdict) -> None:
    """Whether that is good depends on which way the row should go."""
    difference = changed(row, by=by)
    assert difference.verdict is verdict
    assert difference.change == pytest.approx(by, abs=0.01)


def test_pairs_that_disagree() -> None:
    """What goes up and down is noise, however much it is."""
    head = [20.0, 5.0, 18.0, 4.0, 19.0, 6.0]
    assert Difference(row=SLOW, base=BASE, head=head).verdict is Verdict.NOISE


def test_a_few_pairs_are_not_enough() -> None:
    """One less than the least can all agree by chance."""
    few = LEAST_PAIRS - 1
    difference = Difference(row=SLOW, base=BASE[:few], head=[value * 2 for value in BASE[:few]])
    assert difference.verdict is Verdict.NOISE
    assert Difference(row=SLOW, base=[1.0] * LEAST_PAIRS, head=[2.0] * LEAST_PAIRS).chance < UNLIKELY


def test_differences_around_zero() -> None:
    """A row whose values may be negative, or 0, is compared as well."""
    difference = Difference(row=SLOW, base=[0.0] * 6, head=[0.5, 0.6, 0.4, 0.5, 0.6, 0.4])
    assert difference.verdict is Verdict.WORSE
    assert difference.change == 0


def test_noise_is_seldom_taken_for_a_difference() -> None:
    """Of many comparisons of a commit with itself, not more than the test promises and a few."""
    chance = random.Random(1)

    def noisy() -> list[float]:
        return [chance.lognormvariate(0, 0.3) for _ in range(8)]

    verdicts = [Difference(row=SLOW, base=noisy(), head=noisy()).verdict for _ in range(60)]
    assert sum(verdict is not Verdict.NOISE for verdict in verdicts) <= 60 * UNLIKELY * 2


def test_the_table() -> None:
    """Has a line for each difference, and what is to be said of it."""
    lines = table([changed(SLOW, by=0.1), changed(FAST, by=0.1)]).splitlines()
    assert len(lines) == 4
    assert "| 10 s " in lines[2]
    assert "+10.0%" in lines[2]
    assert lines[2].endswith("WORSE   |")
    assert lines[3].endswith("better  |")
