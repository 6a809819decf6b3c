"""What the soak, which is not run with the tests, takes for growth."""

from __future__ import annotations

import random

from tests.faults.soak.growth import trend

TIMES = [5.0 * number for number in range(360)]


def noisy(*, per_second: float = 0.0) -> list[float]:
    """Memory as it fluctuates, with peaks, and grows by so much."""
    chance = random.Random(1)
    return [80.0 + chance.uniform(0, 3) + 40 * (chance.random() < 0.02) + per_second * time for time in TIMES]


def test_a_leak_is_noticed() -> None:
    """One of a MiB in two minutes."""
    assert trend("rss_mib", TIMES, noisy(per_second=1 / 120)).grows


def test_what_fluctuates_does_not_grow() -> None:
    """Neither what has peaks, nor what is lower in the end."""
    assert not trend("rss_mib", TIMES, noisy()).grows
    assert not trend("rss_mib", TIMES, noisy(per_second=-0.01)).grows


def test_what_fills_first_does_not_grow() -> None:
    """A cache that is full after a while."""
    assert not trend("rss_mib", TIMES, [80.0 + min(time, 200.0) / 10 for time in TIMES]).grows
