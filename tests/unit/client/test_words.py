"""Durations, tables and references, as people read them."""

from __future__ import annotations

import pytest

from imgbuilder.client.documents import timestamp
from imgbuilder.client.words import duration, short_ref, table, took


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m"),
        (192, "3m12s"),
        (3600, "1h"),
        (7500, "2h5m"),
        (273600, "3d4h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    """In their two largest units."""
    assert duration(seconds) == words


def test_quick_things_take_tenths_of_seconds() -> None:
    """Others take seconds."""
    assert [took(seconds) for seconds in (-1, 0.04, 1.26, 9.96, 61)] == ["0.0s", "0.0s", "1.3s", "9s", "1m1s"]


def test_times() -> None:
    """None, and those that no calendar has, are empty."""
    assert [timestamp(seconds) for seconds in (1795504124, 0, 2**62)] == ["2026-11-24T07:08:44Z", "", ""]


def test_columns_stand_under_one_another() -> None:
    """Without blanks at the end of lines."""
    assert table(("A", "BCD"), [("long", "x")]) == ["A      BCD", "long   x"]


def test_hashes_are_cut() -> None:
    """And nothing else."""
    digest = "0123456789abcdef" * 4
    assert short_ref(f"host:5000/a@sha256:{digest}") == "host:5000/a@sha256:0123456789ab…"
    assert short_ref(f"host:5000/a:{digest}") == "host:5000/a:0123456789ab…"
    assert [short_ref(ref) for ref in ("host:5000/a:1", "a", "")] == ["host:5000/a:1", "a", ""]
