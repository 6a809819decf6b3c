"""What is measured, what is promised, and what came out: plain data that everything else here works on."""

from __future__ import annotations

import enum
import math
import statistics
from dataclasses import dataclass


class Better(enum.Enum):
    """Which way a measure should go."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measure.

    :ivar name: short, unique, for options and files.
    :ivar measure: what it is, for people.
    :ivar unit: of the value, the target, the rival's figure and the floor.
    :ivar target: what is promised.
    :ivar rival: what the system that this one replaces needs, as an order of magnitude; None: unknown, or never.
    :ivar floor: what does the least that this takes, and is measured beside it; empty: nothing is.
    """

    name: str
    measure: str
    unit: str
    target: float
    better: Better = Better.LOWER
    rival: float | None = None
    floor: str = ""

    def meets(self, value: float) -> bool:
        """Whether *value* is as promised."""
        return value >= self.target if self.better is Better.HIGHER else value <= self.target

    @property
    def cpu_row(self) -> Row:
        """What the service computes for this, as a measure that follows this one. Nothing is promised of it."""
        return Row(name=f"{self.name}-cpu", measure="... CPU of the service", unit="s", target=math.inf)


@dataclass(frozen=True, slots=True)
class Effort:
    """What a process has had of the machine, in seconds.

    :ivar cpu: it has computed.
    :ivar waited: its main thread could have computed, and others were. Where the system does not tell, 0.
    """

    cpu: float
    waited: float = 0.0

    def __add__(self, other: Effort) -> Effort:
        return Effort(self.cpu + other.cpu, self.waited + other.waited)

    def __sub__(self, other: Effort) -> Effort:
        return Effort(self.cpu - other.cpu, self.waited - other.waited)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came out for one row.

    :ivar values: one for each time it was measured.
    :ivar floors: likewise, of its floor.
    :ivar efforts: likewise, of the service.
    """

    row: Row
    values: tuple[float, ...]
    floors: tuple[float, ...] = ()
    efforts: tuple[Effort, ...] = ()

    @property
    def value(self) -> float:
        """The median: what others do on the machine moves the mean."""
        return statistics.median(self.values)

    @property
    def floor(self) -> float | None:
        """The median of the floor; None if it was not measured."""
        return statistics.median(self.floors) if self.floors else None

    @property
    def cpu(self) -> float | None:
        """What the service has computed, in the median."""
        return statistics.median(effort.cpu for effort in self.efforts) if self.efforts else None

    @property
    def waited(self) -> float | None:
        """For how long the service was kept from computing, in the median."""
        return statistics.median(effort.waited for effort in self.efforts) if self.efforts else None

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.row.meets(self.value)

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of the floor; None without one."""
        return self.value / self.floor if self.floor else None
