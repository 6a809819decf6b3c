"""Where log lines go: written by a thread of its own, so that nobody who logs ever waits for a reader.

A pipe whose reader has stopped would otherwise stop the event loop. Lines that find no room are dropped, and
how many is told as soon as there is room again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

ROOM: Final = 10_000
"""Lines that wait at most."""

GATHERING: Final = 0.005
"""Seconds that a line waits for others: to wake the thread for each would hold up whoever logs many."""


class Sink:
    """Writes lines to *stream*, in order.

    :param lost: makes the line that says how many were dropped.
    """

    def __init__(self, stream: TextIO, lost: Callable[[int], str], *, room: int = ROOM) -> None:
        self._stream = stream
        self._lost = lost
        self._room = room
        self._dropped = 0
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Have *line* written, without its line feed. Never waits, never raises."""
        if self._lines.qsize() >= self._room:
            self._dropped += 1
        else:
            self._lines.put(line)

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most *timeout* seconds; later lines are lost. Does nothing the second time."""
        self._lines.put(None)
        self._thread.join(timeout)

    def _write_all(self) -> None:
        ended = False
        while not ended:
            lines = [self._lines.get()]
            if lines[0] is not None:
                time.sleep(GATHERING)
            while not self._lines.empty():
                lines.append(self._lines.get())
            if None in lines:
                ended = True
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                lines.append(self._lost(dropped))
            text = "".join(f"{line}\n" for line in lines if line is not None)
            # Whatever is wrong with the stream (closed, full, of another encoding), the next line may get through.
            with suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()
