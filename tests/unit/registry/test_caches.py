"""The bounded cache."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.registry.caches import BoundedCache


def test_what_was_put_is_there() -> None:
    """Until it is forgotten, or replaced."""
    cache: BoundedCache[str, int] = BoundedCache(10)
    cache.put("a", 1)
    cache.put("a", 2)
    assert cache.get("a") == 2
    cache.forget("a")
    cache.forget("a")
    assert cache.get("a") is None
    assert len(cache) == 0


def test_what_has_expired_is_gone() -> None:
    """At the very time, by the caller's clock."""
    cache: BoundedCache[str, int] = BoundedCache(10)
    cache.put("a", 1, until=100)
    assert cache.get("a", now=99.9) == 1
    assert cache.get("a", now=100) is None
    assert len(cache) == 0


def test_what_was_used_last_stays() -> None:
    """The entry that nobody asked for the longest makes room."""
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_what_is_too_heavy_is_not_kept() -> None:
    """It does not push the others out."""
    cache: BoundedCache[str, int] = BoundedCache(10)
    cache.put("a", 1, weight=5)
    cache.put("b", 2, weight=11)
    assert (cache.get("a"), cache.get("b")) == (1, None)
    cache.put("c", 3, weight=6)
    assert (cache.get("a"), cache.get("c")) == (None, 3)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 12), st.booleans())))
def test_the_weight_is_bounded(operations: list[tuple[int, int, bool]]) -> None:
    """Whatever is put and forgotten; and what was put last is there."""
    cache: BoundedCache[int, int] = BoundedCache(10)
    weights: dict[int, int] = {}
    for key, weight, keep in operations:
        weights[key] = weight
        if keep:
            cache.put(key, weight, weight=weight)
            assert (cache.get(key) == weight) is (weight <= 10)
        else:
            cache.forget(key)
        assert sum(kept for number in range(10) if (kept := cache.get(number)) is not None) <= 10
