"""The promises hold, whatever fails and whenever: many runs of the real orchestrator in a world that is made up.

``SIMULATION_SEEDS=17`` runs one seed, ``SIMULATION_SEEDS=5000-9000`` others than usual. To read what happened
in one: ``python -m tests.faults.simulation 17``.
"""

from __future__ import annotations

import os

import pytest

from tests.faults.simulation.mutations import MUTATIONS, Mutation
from tests.faults.simulation.run import run

SEEDS = os.environ.get("SIMULATION_SEEDS", "0-2000")
AT_ONCE = 100
MOST_SEEDS = 2000


def chunks() -> list[range]:
    """The seeds to run, so many to a test."""
    first, _, end = SEEDS.partition("-")
    seeds = range(int(first), int(end) if end else int(first) + 1)
    return [seeds[place : place + AT_ONCE] for place in range(0, len(seeds), AT_ONCE)]


@pytest.mark.timeout(300)  # a hundred runs, on a machine that may be busy
@pytest.mark.parametrize("seeds", chunks(), ids=lambda seeds: f"{seeds.start}-{seeds.stop}")
def test_no_promise_is_broken(seeds: range) -> None:
    """In any run; the first in which one is tells its story."""
    for seed in seeds:
        result = run(seed)
        if result.broken:
            pytest.fail(result.story(), pytrace=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mechanism_that_is_switched_off_is_missed(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some run shows it: the promises are not kept by chance, and the runs are not too easy."""
    mutation.switch_off(monkeypatch)
    for seed in (mutation.likely, *range(MOST_SEEDS)):
        broken = {fault.split(": ")[1] for fault in run(seed).broken}
        if broken & set(mutation.breaks):
            return
    pytest.fail(f"nobody noticed: {mutation.what}")


def test_a_seed_is_a_run() -> None:
    """The same seed is the same run, to the last message: what failed once can be looked at again."""
    for seed in range(20):
        assert run(seed).trace.digest() == run(seed).trace.digest()
