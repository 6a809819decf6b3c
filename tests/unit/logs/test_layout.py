"""Where the bytes of a log are, compared with a model that keeps them all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from imgbuilder.orchestrator.logs.layout import InMemory, Layout, Missing, OnDisk

HALF = 10


class Files(RuleBasedStateMachine):
    """Moves a log to a file as the layout says, and looks whether each byte is where the layout says.

    Bytes of the log are their own offsets, so a byte that was overwritten is seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layout = Layout(max_size=2 * HALF)
        self.file: dict[int, int] = {}
        self.writing: tuple[int, int] | None = None

    @rule(size=st.integers(1, 25))
    def append(self, size: int) -> None:
        """Output comes in."""
        self.layout.end += size

    @precondition(lambda self: self.writing is None and self.layout.in_memory)
    @rule(size=st.integers(1, 25))
    def begin_write(self, size: int) -> None:
        """A part is written: by now, anything may be in its place."""
        start, end = self.layout.moved, self.layout.reserve(size)
        assert start < end <= self.layout.end
        self.writing = (start, end)
        for extent in self.layout.extents(start, end):
            for position in range(extent.position, extent.position + extent.end - extent.start):
                self.file[position] = -1

    @precondition(lambda self: self.writing is not None)
    @rule(works=st.booleans())
    def end_write(self, works: bool) -> None:
        """The part is written, or that failed."""
        assert self.writing is not None
        (start, end), self.writing = self.writing, None
        for extent in self.layout.extents(start, end):
            for offset in range(extent.start, extent.end):
                self.file[extent.position + offset - extent.start] = offset if works else -2
        if self.layout.moved == start:
            self.layout.left(end)
            if not works:
                self.layout.lose(start, end)

    @precondition(lambda self: self.layout.in_memory)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """A part in memory is given up because the disk is too slow."""
        start, end = self.layout.moved, data.draw(st.integers(self.layout.moved, self.layout.end))
        self.layout.left(end)
        self.layout.lose(start, end)

    @precondition(lambda self: self.writing is None)
    @rule()
    def drop(self) -> None:
        """The file is removed."""
        self.layout.lose_file()
        self.file.clear()

    @invariant()
    def everything_is_where_it_is_said_to_be(self) -> None:
        """From the first byte to the last: on disk with the right contents, in memory, or told as missing."""
        offset = 0
        while offset < self.layout.end:
            place = self.layout.locate(offset)
            if isinstance(place, InMemory):
                assert offset >= self.layout.moved
                return
            assert offset < place.end <= self.layout.moved
            if isinstance(place, OnDisk):
                for extent in self.layout.extents(offset, place.end):
                    for index in range(extent.start, extent.end):
                        assert self.file[extent.position + index - extent.start] == index
            offset = place.end

    @invariant()
    def the_file_is_bounded(self) -> None:
        """No place beyond the maximum is ever used."""
        assert max(self.file, default=-1) < 2 * HALF
        assert self.layout.file_size <= 2 * HALF


TestFiles = Files.TestCase


def move_all(layout: Layout) -> None:
    """Move everything to disk, which works."""
    while layout.in_memory:
        layout.left(layout.reserve(HALF))


@given(length=st.integers(0, 100))
def test_the_first_and_the_last_half_are_kept(length: int) -> None:
    """Without losses, exactly the middle of a log that is too long is missing."""
    layout = Layout(max_size=2 * HALF)
    layout.end = length
    move_all(layout)
    kept = [isinstance(layout.locate(offset), OnDisk) for offset in range(length)]
    assert kept == [offset < HALF or offset >= length - HALF for offset in range(length)]
    if length > 2 * HALF:
        assert layout.locate(HALF) == Missing(length - HALF)


def test_losses_are_bounded() -> None:
    """A disk that fails again and again makes no endless list: what lies between late losses is given up."""
    layout = Layout(max_size=10_000)
    layout.end = 1000
    move_all(layout)
    for offset in range(0, 1000, 2):
        layout.lose(offset, offset + 1)
    assert layout.locate(0) == Missing(1)
    assert layout.locate(1) == OnDisk(2)
    assert layout.locate(500) == Missing(999)
