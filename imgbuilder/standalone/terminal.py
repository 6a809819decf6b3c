"""The output of a build: kept for a while, and read by any number of listeners as it comes.

Writing is synchronous and never waits. A new listener starts with the last 256 KiB. What every listener has
read is dropped, but for that backlog; a listener that lags too far is cut off rather than waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from imgbuilder.core.errors import ImgbuilderError

BACKLOG: Final = 256 * 1024
"""How many bytes a terminal remembers for whoever comes later (contract)."""

LONGEST_LAG: Final = 16 * 1024 * 1024
"""How many bytes a listener may be behind."""

BLOCK: Final = 64 * 1024
"""Output is kept in blocks of this size, and read in pieces of at most this size."""


class ListenerLagsError(ImgbuilderError):
    """A listener is so far behind that what it has to read next is gone."""

    def __init__(self, lag: int) -> None:
        super().__init__(f"listener is more than {lag} bytes behind")


class Listener:
    """Reads a terminal at its own pace, from a position of its own. Belongs to one task."""

    def __init__(self, terminal: Terminal, position: int) -> None:
        self._terminal = terminal
        self.position = position

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """What there is to read, in pieces of at most 64 KiB, until the terminal is closed and all was read.

        :raises ListenerLagsError: if the terminal has dropped what comes next.
        """
        terminal = self._terminal
        while True:
            if piece := terminal.read(self.position):
                self.position += len(piece)
                yield piece
            elif terminal.exit_code is not None:
                return
            else:
                await terminal.changed()


class Terminal:
    """What a build writes, and how it ended.

    :ivar exit_code: None until it has ended.
    :ivar listened: whether somebody has read everything, the exit code included.
    """

    def __init__(self, *, backlog: int = BACKLOG, longest_lag: int = LONGEST_LAG) -> None:
        self._backlog = backlog
        self._longest_lag = max(backlog, longest_lag)
        self._blocks: deque[bytearray] = deque()  # all full but the last
        self._start = 0  # position of the first byte that is still there; a multiple of BLOCK
        self._end = 0
        self._listeners: set[Listener] = set()
        self._change = anyio.Event()
        self.exit_code: int | None = None
        self.listened = False

    @property
    def kept(self) -> int:
        """How many bytes are in memory."""
        return self._end - self._start

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def write(self, data: bytes) -> None:
        """Append *data*. After the end it is dropped: what is left of a build has nothing to say."""
        if self.exit_code is not None or not data:
            return
        rest = memoryview(data)
        while rest:
            if self._end % BLOCK == 0:
                self._blocks.append(bytearray())
            room = BLOCK - self._end % BLOCK
            self._blocks[-1] += rest[:room]
            self._end += len(rest[:room])
            rest = rest[room:]
        self._drop_what_is_read()
        self._notify()

    def line(self, text: str) -> None:
        """Append a line of the workspace manager's own."""
        self.write(f"{text}\n".encode())

    def close(self, exit_code: int) -> None:
        """End it. Does nothing the second time."""
        if self.exit_code is None:
            self.exit_code = exit_code
            self._notify()

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """A listener that starts with the backlog. It counts as one until the block is left."""
        listener = Listener(self, max(self._start, self._end - self._backlog))
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            self._notify()

    def finished(self, listener: Listener) -> None:
        """*listener* has passed everything on, the exit code included."""
        self.listened = True
        self._listeners.discard(listener)
        self._notify()

    async def drained(self) -> None:
        """Wait until it is closed, somebody has had everything, and nobody is still reading."""
        while self.exit_code is None or self._listeners or not self.listened:
            await self.changed()

    async def changed(self) -> None:
        """Wait for the next write, end, or listener that leaves."""
        await self._change.wait()

    def read(self, position: int) -> bytes:
        """At most 64 KiB from *position* on; empty if there is nothing yet.

        :raises ListenerLagsError: if what is there is not kept any longer.
        """
        if position < self._start:
            raise ListenerLagsError(self._longest_lag)
        if position >= self._end:
            return b""
        block = self._blocks[(position - self._start) // BLOCK]
        return bytes(block[position % BLOCK :])

    def _drop_what_is_read(self) -> None:
        slowest = min((listener.position for listener in self._listeners), default=self._end)
        keep_from = max(min(slowest, self._end - self._backlog), self._end - self._longest_lag)
        while self._blocks and self._start + BLOCK <= keep_from:
            self._blocks.popleft()
            self._start += BLOCK

    def _notify(self) -> None:
        self._change.set()
        self._change = anyio.Event()
