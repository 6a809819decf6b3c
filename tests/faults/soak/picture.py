"""Draws what was seen in a soak."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.faults.soak.growth import Trend

LATENCY: Final = "Build to first update (ms, last two minutes)"
PANELS: Final[Sequence[tuple[str, Sequence[tuple[str, str]]]]] = (
    ("resident memory (MiB)", [("rss_mib", "resident")]),
    ("objects in the interpreter", [("objects", "objects")]),
    ("file descriptors and threads", [("fds", "descriptors"), ("threads", "threads")]),
    (
        "tasks, calls, builds",
        [("tasks", "tasks"), ("open_streams", "open calls"), ("builds_running", "builds")],
    ),
    (
        LATENCY,
        [
            ("first_update_p99_with_faults_ms", "p99, faults and all"),
            ("first_update_p99_ms", "p99 while nothing was wrong"),
            ("first_update_p50_ms", "median of these"),
        ],
    ),
    ("build output on disk (MiB)", [("spool_mib", "spool")]),
)


def draw(
    file: Path,
    title: str,
    samples: Sequence[dict[str, float]],
    faults: Sequence[tuple[float, str]],
    trends: Sequence[Trend],
) -> None:
    """Write a picture of *samples* into *file*, faults as marks below, with the trends of what has one."""
    mpl.use("Agg")
    figure = Figure(figsize=(12, 10), layout="constrained")
    figure.suptitle(title)
    grid: Any = figure.subplots(3, 2, sharex=True)
    minutes = [sample["time"] / 60 for sample in samples]
    by_name = {trend.name: trend for trend in trends}
    for axes, (words, lines) in zip(grid.flat, PANELS, strict=True):
        for name, label in lines:
            trend = by_name.get(name)
            growth = f" ({trend.growth:+.3g} in the 2nd half)" if trend else ""
            values = [max(sample[name], 1.0) if words == LATENCY else sample[name] for sample in samples]
            axes.plot(minutes, values, label=label + growth, linewidth=1)
        axes.set_title(words, fontsize=10)
        if words == LATENCY:
            axes.set_yscale("log")
            axes.set_ylim(bottom=1)
        else:
            axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8, loc="lower right")
        for when, _ in faults:
            axes.axvline(when / 60, ymax=0.03, color="tab:red", linewidth=1)
    for axes in grid[-1]:
        axes.set_xlabel("minutes (red: something was made to fail)")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)
