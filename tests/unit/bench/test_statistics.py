"""What the benchmark says of a few noisy numbers."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.statistics import interval, quantile, sign_test

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.2, 1), (0.5, 3), (0.99, 5), (1.0, 5)])
def test_quantiles(share: float, expected: float) -> None:
    """The least that so many do not exceed."""
    assert quantile([1, 2, 3, 4, 5], share) == expected


def test_a_quantile_of_nothing() -> None:
    """Is 0, for what has not happened."""
    assert quantile([], 0.99) == 0


@given(numbers)
def test_the_interval_is_around_the_median(values: list[float]) -> None:
    """And among the values; the same ones give the same interval."""
    low, high = interval(values, resamples=100)
    assert min(values) <= low <= high <= max(values)
    assert low <= statistics.median(values) <= high
    assert interval(values, resamples=100) == (low, high)


def test_the_interval_of_equal_values() -> None:
    """Has no width."""
    assert interval([3.0] * 6) == (3.0, 3.0)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0] * 6, 2 / 64),
        ([-1.0] * 6, 2 / 64),
        ([1.0] * 5, 2 / 32),
        ([1.0] * 7 + [-1.0], 2 * (1 + 8) / 256),
        ([1.0, -1.0], 1.0),
        ([0.0, 0.0], 1.0),
        ([], 1.0),
    ],
)
def test_the_sign_test(differences: list[float], expected: float) -> None:
    """How likely a coin is that one-sided, whichever side that is; ties do not count."""
    assert sign_test(differences) == pytest.approx(expected)
