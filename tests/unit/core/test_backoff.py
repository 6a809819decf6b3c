"""Delay schedules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.backoff import Backoff

seconds = st.floats(min_value=0.001, max_value=1_000)
factors = st.floats(min_value=1, max_value=1e6)
jitters = st.floats(min_value=0, max_value=1, exclude_max=True)
attempts = st.integers(min_value=0, max_value=10_000)


@given(first=seconds, factor=factors, limit=seconds, attempt=attempts, jitter=jitters)
def test_a_delay_is_bounded(first: float, factor: float, limit: float, attempt: int, jitter: float) -> None:
    """However late the attempt, and whatever chance says."""
    assert 0 < Backoff(first, factor, limit).delay(attempt, jitter) <= limit


@given(first=seconds, factor=factors, limit=seconds, attempt=attempts, jitter=jitters)
def test_delays_never_get_shorter(
    first: float,
    factor: float,
    limit: float,
    attempt: int,
    jitter: float,
) -> None:
    """With the same jitter, each is at least as long as the one before."""
    backoff = Backoff(first, factor, limit)
    assert backoff.delay(attempt, jitter) <= backoff.delay(attempt + 1, jitter)


def test_a_schedule() -> None:
    """Doubling from the first to the limit; jitter takes up to half of it away."""
    backoff = Backoff(first=1, factor=2, limit=6)
    assert [backoff.delay(attempt, 0) for attempt in range(5)] == [0.5, 1, 2, 3, 3]
    assert backoff.delay(0, 0.5) == 0.75


def test_no_delay_at_all() -> None:
    """A schedule of zeros is one."""
    assert Backoff(first=0, factor=2, limit=6).delay(3, 0.5) == 0
    assert Backoff(first=1, factor=2, limit=0).delay(3, 0.5) == 0
