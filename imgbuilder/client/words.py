"""Durations and tables, as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """A duration in its two largest units: ``7s``, ``3m12s``, ``2h5m``, ``3d4h``."""
    whole = max(0, int(seconds))
    for large, small, unit, of in ((86400, 3600, "d", "h"), (3600, 60, "h", "m"), (60, 1, "m", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large}{unit}" + (f"{rest}{of}" if rest else "")
    return f"{whole}s"


def took(seconds: float) -> str:
    """How long something took that may be quick: ``0.4s``, else as `duration` has it."""
    return f"{max(0.0, seconds):.1f}s" if seconds < 9.95 else duration(seconds)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, with its columns under one another."""
    every = [header, *rows]
    widths = [max(len(row[column]) for row in every) for column in range(len(header))]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]


def short_ref(ref: str) -> str:
    """*ref* with the middle of a hash in it left out, for tables."""
    name, separator, rest = ref.rpartition("@sha256:" if "@sha256:" in ref else ":")
    return f"{name}{separator}{rest[:12]}…" if separator and len(rest) == 64 else ref
