"""Whose turn it is."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.standalone.scheduling import FairQueue


def test_builds_of_one_owner_start_in_order() -> None:
    """Who has the machine to himself gets what he asked for, first things first."""
    queue = FairQueue(2)
    for key in ("a", "b", "c", "d"):
        queue.add(key, "ann")
    assert queue.admit() == ["a", "b"]
    assert queue.order() == ["c", "d"]
    queue.remove("a")
    assert queue.admit() == ["c"]


def test_owners_take_turns() -> None:
    """Who comes later does not wait for everything that another one has waiting."""
    queue = FairQueue(1)
    for key in ("a1", "a2", "a3"):
        queue.add(key, "ann")
    assert queue.admit() == ["a1"]
    queue.add("b1", "bob")
    queue.add("b2", "bob")
    assert queue.order() == ["a2", "b1", "a3", "b2"]


def test_a_place_is_where_one_stands_in_the_order() -> None:
    """The order is that of the starts to come."""
    queue = FairQueue(1)
    for key, owner in (("a1", "ann"), ("a2", "ann"), ("b1", "bob"), ("c1", "cid")):
        queue.add(key, owner)
    foretold = queue.order()
    started = []
    while queue.order():
        started += queue.admit()
        queue.remove(started[-1])
    assert started == foretold


def test_what_left_the_queue_does_not_start() -> None:
    """A build that is stopped while it waits gives its place to the next."""
    queue = FairQueue(1)
    for key in ("a", "b", "c"):
        queue.add(key, "ann")
    queue.admit()
    queue.remove("b")
    queue.remove("a")
    assert queue.admit() == ["c"]
    queue.remove("unknown")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_lets_something_run(limit: int) -> None:
    """A queue that would never move is refused."""
    with pytest.raises(ValueError, match="1 or more"):
        FairQueue(limit)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["add", "admit", "remove"]), st.sampled_from("abc"), st.integers(0, 30)),
    max_size=60,
)


@given(st.integers(1, 3), OPERATIONS)
def test_laws_of_the_queue(limit: int, operations: list[tuple[str, str, int]]) -> None:
    """Never more than the limit runs, no place stays empty, nothing is lost, nobody overtakes himself."""
    queue = FairQueue(limit)
    owners: dict[str, str] = {}
    started: list[str] = []
    present: set[str] = set()
    for number, (operation, owner, choice) in enumerate(operations):
        if operation == "add":
            key = f"{number:03}"
            owners[key] = owner
            present.add(key)
            queue.add(key, owner)
        elif operation == "admit":
            started += queue.admit()
            assert len(queue.running) == limit or not queue.order()
        elif present:
            key = sorted(present)[choice % len(present)]
            present.discard(key)
            queue.remove(key)
        assert len(queue.running) <= limit
        assert queue.running | set(queue.order()) == present
    for owner in "abc":
        own = [key for key in started if owners[key] == owner]
        assert own == sorted(own)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40))
def test_nobody_waits_for_more_than_a_turn_of_the_others(arrivals: list[str]) -> None:
    """Between two starts of an owner who has builds waiting, no other starts more than once."""
    queue = FairQueue(1)
    waiting = Counter(arrivals)
    owners = {str(number): owner for number, owner in enumerate(arrivals)}
    for key, owner in owners.items():
        queue.add(key, owner)
    since: dict[str, Counter[str]] = {owner: Counter() for owner in waiting}
    while admitted := queue.admit():
        queue.remove(admitted[0])
        owner = owners[admitted[0]]
        waiting[owner] -= 1
        since[owner].clear()
        for other, seen in since.items():
            if other != owner and waiting[other]:
                seen[owner] += 1
                assert seen[owner] <= 2  # once for this turn, once for the one before or after
