"""The log of one build: appended to by its follower, read by anybody from any offset.

Appending is synchronous and never waits. What has been in memory long enough is moved to disk by a task of
its own; where that fails, that part of the log is missing for whoever has not read it yet, and nothing else
changes. Decides nothing about what is written into a log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from imgbuilder.bus import Bus, Subscription, Topic
from imgbuilder.orchestrator.logs.chunks import LARGEST, Chunks
from imgbuilder.orchestrator.logs.layout import InMemory, Layout, Missing, OnDisk
from imgbuilder.orchestrator.logs.pulse import Pulse
from imgbuilder.orchestrator.logs.settings import LogSettings
from imgbuilder.orchestrator.logs.spool import Outcome, SpoolFolder
from imgbuilder.runtime.tasks import Tasks

SMALL: Final = 4 * 1024
"""A log that ends with no more than this in memory, and nothing on disk, is not worth a file."""

BATCH: Final = 1024 * 1024
"""Bytes that are moved to disk at once, at most."""

READ_AHEAD: Final = 256 * 1024
"""Bytes that are read from disk at once: handing them to a thread and back takes as long as reading them."""

WAITING: Final = 4 * 1024 * 1024
"""Bytes that may wait for a disk that is slow; of more, the oldest are not kept."""


class BuildLog:
    """The log of one build.

    :param on_moved: is called whenever a part of it got to disk.
    :ivar length: how much of it readers may read. Grows a moment after what is appended, so that readers
        find much at once.
    :ivar closed: whether nothing will be appended any more.
    """

    def __init__(
        self,
        build_id: str,
        *,
        bus: Bus,
        tasks: Tasks,
        spool: SpoolFolder,
        settings: LogSettings,
        on_moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._topic: Topic[int] = Topic("log", build_id)
        self._bus = bus
        self._tasks = tasks
        self._on_moved = on_moved
        self._memory_size = settings.memory
        self._layout = Layout(max_size=settings.max_size)
        self._file = spool.file()
        self._memory = bytearray()
        self._chunks = Chunks()
        self._pulse = Pulse(self._tell, gather=settings.gather)
        self._reading = anyio.Lock()
        self._moving = False
        self._discarded = False
        self.length = 0
        self.closed = False

    @property
    def file_size(self) -> int:
        """Bytes on disk."""
        return self._file.size

    # --- writing ----------------------------------------------------------------------------------------

    def append(self, data: bytes) -> None:
        """Add *data* to the end. Does nothing once the log is closed."""
        if not data or self.closed:
            return
        self._memory += data
        self._layout.end += len(data)
        if self._layout.end - self.length >= LARGEST:
            self._pulse.now()
        else:
            self._pulse.beat()
        if self._layout.in_memory > self._memory_size:
            self._move()

    def close(self) -> None:
        """Nothing follows. Does nothing the second time."""
        if self.closed:
            return
        self.closed = True
        self._pulse.now()
        if self._layout.moved or self._layout.in_memory > SMALL:
            self._move()

    def discard(self) -> None:
        """Nobody needs the log any more: remove it. A reader finds the rest of it missing."""
        self.close()
        self._pulse.end()
        self._discarded = True
        self._forget_memory(self._layout.end)
        self.drop_file()

    def drop_file(self) -> None:
        """Remove what is on disk."""
        self._layout.lose_file()
        self._chunks.clear()
        if self._file.size:
            self._file.resize(0)
            self._tasks.spawn(self._file.remove, name="remove a build log")

    def _tell(self) -> None:
        self.length = self._layout.end
        self._bus.publish(self._topic, self.length)

    # --- moving to disk ---------------------------------------------------------------------------------

    def _move(self) -> None:
        """See to it that what has been in memory long enough gets to disk."""
        self._forget_memory(self._layout.end - self._memory_size - WAITING)
        if not self._moving:
            self._moving = True
            self._tasks.spawn(self._move_to_disk, name="move a build log to disk")

    async def _move_to_disk(self) -> None:
        try:
            while excess := self._excess():
                start, end = self._layout.moved, self._layout.reserve(min(excess, BATCH))
                parts = [
                    (extent.position, self._from_memory(extent.start, extent.end))
                    for extent in self._layout.extents(start, end)
                ]
                self._file.resize(self._layout.file_size)
                outcome = await self._file.write(parts)
                if self._discarded:
                    await self._file.remove()
                elif outcome is Outcome.LOST:
                    self._layout.lose_file()
                elif self._layout.moved > start:
                    # It took so long that this part was given up in the meantime.
                    continue
                elif outcome is Outcome.WRITTEN:
                    self._leave_memory(end)
                    self._on_moved()
                elif self._layout.in_memory > self._memory_size:
                    self._forget_memory(self._layout.end - self._memory_size)
                else:
                    # The log has ended: what there is of it may as well stay in memory.
                    return
        finally:
            self._moving = False

    def _excess(self) -> int:
        """How much should not be in memory any longer. Half of what may stay does, so that moves are large."""
        if self.closed:
            return self._layout.in_memory
        if self._layout.in_memory <= self._memory_size:
            return 0
        return self._layout.in_memory - self._memory_size // 2

    def _forget_memory(self, end: int) -> None:
        """Keep the log up to *end* in memory no longer, nor anywhere else."""
        start = self._layout.moved
        if start < end:
            self._leave_memory(end)
            self._layout.lose(start, end)

    def _leave_memory(self, end: int) -> None:
        del self._memory[: end - self._layout.moved]
        self._layout.left(end)

    # --- reading ----------------------------------------------------------------------------------------

    def subscribe(self) -> Subscription[int]:
        """A mailbox for `length`, for whenever it changes or the log is closed."""
        return self._bus.subscribe(self._topic)

    def unsubscribe(self, subscription: Subscription[int]) -> None:
        """A reader needs its mailbox no longer."""
        subscription.close()
        if not self._bus.subscribers(self._topic):
            self._chunks.clear()

    async def read(self, offset: int) -> tuple[bytes, int]:
        """A chunk of what is in the log from *offset* on, which must be before `length`, and where to go on.

        What is kept nowhere is replaced by a line that says so. The chunk may be empty: then try again.
        """
        chunk = self._chunks.find(offset, self.length - offset)
        if chunk is not None:
            return chunk, offset + len(chunk)
        match self._layout.locate(offset):
            case Missing(end):
                return b"\n[... %d bytes of output are left out here ...]\n" % (end - offset), end
            case OnDisk():
                chunk = await self._read_disk(offset)
            case InMemory():
                chunk = self._from_memory(offset, min(self.length, offset + LARGEST))
                self._chunks.add(offset, chunk)
        return chunk, offset + len(chunk)

    async def _read_disk(self, offset: int) -> bytes:
        # One at a time: whoever waited finds what the other has read.
        async with self._reading:
            chunk = self._chunks.find(offset, self.length - offset)
            place = self._layout.locate(offset)
            if chunk is not None or not isinstance(place, OnDisk):
                return chunk or b""
            end = min(place.end, offset + READ_AHEAD)
            extents = self._layout.extents(offset, end)
            data = await self._file.read([(extent.position, extent.end - extent.start) for extent in extents])
            if not isinstance(self._layout.locate(offset), OnDisk):
                # While it was read, something newer may have taken its place.
                return b""
            if offset + len(data) < end:
                self._layout.lose(offset + len(data), end)
            chunks = [data[start : start + LARGEST] for start in range(0, len(data), LARGEST)]
            for number, chunk in enumerate(chunks):
                self._chunks.add(offset + number * LARGEST, chunk)
            return chunks[0] if chunks else b""

    def _from_memory(self, start: int, end: int) -> bytes:
        begin = self._layout.moved
        return bytes(memoryview(self._memory)[start - begin : end - begin])
