"""Where the bytes of one log are: in memory, on disk and there at which place, or nowhere any more.

A log is addressed by offsets from its first byte. Its end is in memory; what is older has been moved to a
file of bounded size. The first half of that file holds the log's beginning, the second half is a ring that
holds what is newest. Pure arithmetic: moves nothing, and does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MOST_LOSSES: Final = 64
"""How many separate parts of a log can be told as lost; of more, what lies between the last two is given up."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """From the offset in question on, everything is in memory."""


@dataclass(frozen=True, slots=True)
class OnDisk:
    """From the offset in question to *end*, the log is in the file."""

    end: int


@dataclass(frozen=True, slots=True)
class Missing:
    """From the offset in question to *end*, the log is kept nowhere."""

    end: int


Place = InMemory | OnDisk | Missing


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of the log, and its place in the file."""

    start: int
    end: int
    position: int


class Layout:
    """Keeps account of one log.

    :ivar end: how long the log is.
    :ivar moved: up to here the log has left the memory.
    """

    def __init__(self, *, max_size: int) -> None:
        self._half = max(1, max_size // 2)
        self._reserved = 0
        self._lost: list[tuple[int, int]] = []
        self.end = 0
        self.moved = 0

    @property
    def in_memory(self) -> int:
        """How many bytes are in memory."""
        return self.end - self.moved

    @property
    def file_size(self) -> int:
        """How large the file is, or is about to be."""
        return min(self._reserved, 2 * self._half)

    def reserve(self, size: int) -> int:
        """Where a part ends that begins at `moved` and may be written now, of *size* bytes at most.

        It is still in memory until it `left`; but what it takes the place of in the file is gone.
        """
        end = min(self.moved + size, self.moved + self._half, self.end)
        self._reserved = max(self._reserved, end)
        return end

    def left(self, end: int) -> None:
        """The log up to *end* has left the memory."""
        self.moved = max(self.moved, end)

    def lose(self, start: int, end: int) -> None:
        """The log from *start* to *end* is not in the file, though it left the memory or is about to."""
        if start >= end:
            return
        merged: list[tuple[int, int]] = []
        for low, high in sorted([*self._lost, (start, end)]):
            if merged and (low <= merged[-1][1] or len(merged) == MOST_LOSSES):
                merged[-1] = (merged[-1][0], max(merged[-1][1], high))
            else:
                merged.append((low, high))
        self._lost = merged

    def lose_file(self) -> None:
        """Nothing is in the file any more."""
        self.lose(0, self.moved)
        self._reserved = 0

    def locate(self, offset: int) -> Place:
        """Where the log is from *offset* on, which must be before its end."""
        end = self._missing_until(offset)
        if end > offset:
            return Missing(end)
        if offset >= self.moved:
            return InMemory()
        end = min(self._half, self.moved) if offset < self._half else self.moved
        return OnDisk(min([end, *(low for low, _ in self._lost if low > offset)]))

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        """The places in the file of the log from *start* to *end*, which must not be more than half of it."""
        while start < end:
            position, room = start, self._half - start
            if room <= 0:
                place = (start - self._half) % self._half
                position, room = self._half + place, self._half - place
            part_end = min(end, start + room)
            yield Extent(start, part_end, position)
            start = part_end

    def _missing_until(self, offset: int) -> int:
        """Up to where nothing is kept of the log from *offset* on."""
        ring_begin = self._reserved - self._half
        found = True
        while found and offset < self.moved:
            found = False
            if self._half <= offset < ring_begin:
                offset, found = ring_begin, True
            for low, high in self._lost:
                if low <= offset < high:
                    offset, found = high, True
        return offset
