"""Which rows there are, and which are measured."""

from __future__ import annotations

from tests.bench.running import ROWS, chosen
from tests.bench.scenarios import SCENARIOS


def test_names() -> None:
    """Are unique, so that files and options can name rows."""
    assert len(ROWS) == sum(len(scenario.ROWS) for scenario in SCENARIOS.values())


def test_all() -> None:
    """Unless something else is said."""
    assert chosen([]) == list(ROWS.values())


def test_some() -> None:
    """Those with a part of a name, their own or their scenario's."""
    assert [row.name for row in chosen(["scale-l", "rest"])] == [
        "scale-listed",
        "scale-list",
        "rest-memory",
        "rest-start",
    ]
    assert chosen(["idle-streams"]) == list(SCENARIOS["idle-streams"].ROWS)
    assert not chosen(["nothing"])
