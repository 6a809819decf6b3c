"""Turns: one in each round of the event loop, for each in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from imgbuilder.runtime.grpc.turns import Turns


def working(name: str, pieces: int, done: list[str]) -> Callable[[], bool]:
    """Work of so many *pieces*, which notes its *name* for each."""
    left = pieces

    def turn() -> bool:
        nonlocal left
        done.append(name)
        left -= 1
        return left > 0

    return turn


async def test_all_have_their_turns() -> None:
    """One after the other, as long as they have something to do; a later one joins in."""
    turns, done = Turns(), list[str]()
    turns.wait_for_one(working("a", 3, done))
    turns.wait_for_one(working("b", 1, done))
    await asyncio.sleep(0)
    assert done == ["a"]
    turns.wait_for_one(working("c", 2, done))
    for _ in range(10):
        await asyncio.sleep(0)
    assert done == ["a", "b", "a", "c", "a", "c"]


async def test_others_run_in_between() -> None:
    """However many have work to do."""
    turns, done = Turns(), list[str]()
    for name in "abcde":
        turns.wait_for_one(working(name, 10, done))
    rounds = 0
    while len(done) < 50:
        before = len(done)
        await asyncio.sleep(0)
        rounds += 1
        assert len(done) - before <= 1
    assert rounds >= 50


async def test_one_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of as the event loop tells of errors."""
    errors = []
    monkeypatch.setattr(
        asyncio.get_running_loop(),
        "call_exception_handler",
        lambda context: errors.append(context["exception"]),
    )
    turns, done = Turns(), list[str]()

    def fail() -> bool:
        raise KeyError

    turns.wait_for_one(fail)
    turns.wait_for_one(working("a", 2, done))
    for _ in range(5):
        await asyncio.sleep(0)
    assert done == ["a", "a"]
    assert [type(error) for error in errors] == [KeyError]
    turns.wait_for_one(working("b", 1, done))
    await asyncio.sleep(0)
    assert done[-1] == "b"
