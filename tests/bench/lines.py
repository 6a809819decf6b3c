"""The output of builds: lines of a given size, as many as are wanted, or as time passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

END: Final = "the end\n"
"""The last line of a burst ends so."""


def burst(count: int, size: int) -> Iterator[bytes]:
    """*count* lines of *size* bytes each, the line feed included."""
    filler = b"." * size
    for number in range(count - 1):
        yield (b"line %d " % number + filler)[: size - 1] + b"\n"
    yield filler[: size - len(END)] + END.encode()


def stamped(moment: float, size: int = 100) -> bytes:
    """A line of *size* bytes that tells the Unix time *moment*."""
    return (b"@%d " % round(moment * 1e9)).ljust(size - 1, b".") + b"\n"


class Pace:
    """Which lines are due, at *rate* lines a second from the time *begin* on.

    A line's stamp is when it was due, not when it was sent: a writer that is late does not make the figures better.
    """

    def __init__(self, rate: float, begin: float) -> None:
        self._rate = rate
        self._begin = begin
        self._done = 0

    def due(self, now: float) -> list[float]:
        """When the lines that are due by *now*, and were not told before, were due."""
        until = int((now - self._begin) * self._rate)
        moments = [self._begin + number / self._rate for number in range(self._done, until)]
        self._done = max(self._done, until)
        return moments
