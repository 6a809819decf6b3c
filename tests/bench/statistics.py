"""What can be said of a few noisy numbers. Pure; the random numbers are the same each time."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import Final

RESAMPLES: Final = 2_000
SEED: Final = 1
CONFIDENCE: Final = 0.95


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least of *ordered* (ascending) that *share* of them do not exceed; 0 if there are none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def interval(values: Sequence[float], *, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Where the median of what *values* are a sample of lies, by bootstrap, with a confidence of 95 %."""
    chance = random.Random(SEED)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(resamples))
    outside = (1 - CONFIDENCE) / 2
    return quantile(medians, outside), quantile(medians, 1 - outside)


def sign_test(differences: Sequence[float]) -> float:
    """How likely so many *differences*, or more, have the same sign if it is a coin that decides; ties are left out."""
    positive = sum(difference > 0 for difference in differences)
    negative = sum(difference < 0 for difference in differences)
    count, fewer = positive + negative, min(positive, negative)
    tail = sum(math.comb(count, k) for k in range(fewer + 1)) * 0.5**count
    return min(1.0, 2 * tail)
