"""Whether something grows: a fit over the second half of a run, against thresholds that are explained here."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """How much more there may be at the end of the second half than at its beginning.

    :ivar share: of what there was.
    :ivar least: what is no growth, however little there was.
    """

    share: float
    least: float


THRESHOLDS: Final[Mapping[str, Threshold]] = {
    # An interpreter's heap is never quite still: free lists, fragments, the longest log so far. What leaks with
    # each call or build does so thousands of times in half a run, so 3 KiB each would be seen.
    "rss_mib": Threshold(share=0.05, least=3.0),
    # Counted after garbage collection has had many occasions. The load fluctuates, and objects with it.
    "objects": Threshold(share=0.05, least=5_000.0),
    # Each open connection or file is one; how many there are depends on the load of the moment only.
    "fds": Threshold(share=0.10, least=10.0),
    "tasks": Threshold(share=0.15, least=20.0),
    "open_streams": Threshold(share=0.15, least=10.0),
    "subscribers": Threshold(share=0.15, least=10.0),
    "builds_running": Threshold(share=0.25, least=8.0),
    "threads": Threshold(share=0.0, least=3.0),
    # Output of ended builds is kept for a fixed time, so this is as much as was printed in that time.
    "spool_mib": Threshold(share=0.25, least=16.0),
    # Of calls while nothing was wrong. The machine does other things, too; half as long again is no chance.
    "first_update_p99_ms": Threshold(share=0.5, least=100.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """What became of one series.

    :ivar first, second: its median in each half, the warm-up left out.
    :ivar growth: by how much it grew in the second half, on a line through it.
    """

    name: str
    first: float
    second: float
    growth: float

    @property
    def allowed(self) -> float:
        """How much it may grow."""
        threshold = THRESHOLDS[self.name]
        return max(threshold.least, threshold.share * self.second)

    @property
    def grows(self) -> bool:
        """Whether it grows: on the line, and from half to half as well, as a peak at the end would not."""
        return self.growth > self.allowed and self.second - self.first > self.allowed / 4


def trend(name: str, times: Sequence[float], values: Sequence[float]) -> Trend:
    """The trend of *values* at *times*, of which the first fifth is warm-up: caches fill, code is met first."""
    begin = times[0] + (times[-1] - times[0]) / 5
    middle = (begin + times[-1]) / 2
    first = [value for time, value in zip(times, values, strict=True) if begin <= time < middle]
    second = [(time, value) for time, value in zip(times, values, strict=True) if time >= middle]
    return Trend(
        name=name,
        first=statistics.median(first or values),
        second=statistics.median([value for _, value in second] or values),
        growth=slope(second) * (times[-1] - middle),
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """That of a line through *points* (Theil and Sen: the median of all pairs', so that peaks count little)."""
    step = max(1, len(points) // 200)
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for earlier, later in itertools.combinations(points[::step], 2)
        if later[0] > earlier[0]
    ]
    return statistics.median(slopes) if slopes else 0.0
