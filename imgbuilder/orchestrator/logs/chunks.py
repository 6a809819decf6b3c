"""Chunks of a log that were read a moment ago, for other readers at the same place."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

LARGEST: Final = 64 * 1024
"""Bytes of a chunk at most: larger messages get dearer, and hold up the others on a connection."""

KEPT: Final = 8


class Chunks:
    """The last few chunks of one log, by where they begin.

    Readers who are told together read the same object, which therefore can be encoded once for all of them.
    """

    def __init__(self) -> None:
        self._chunks: OrderedDict[int, bytes] = OrderedDict()

    def find(self, start: int, available: int) -> bytes | None:
        """A chunk that begins at *start*, where *available* bytes could be read.

        Not one that is much smaller than what could be had: a reader who is behind shall catch up.
        """
        chunk = self._chunks.get(start)
        if chunk is not None and 2 * len(chunk) >= min(available, LARGEST):
            return chunk
        return None

    def add(self, start: int, chunk: bytes) -> None:
        """Keep *chunk*, which begins at *start*."""
        self._chunks[start] = chunk
        self._chunks.move_to_end(start)
        if len(self._chunks) > KEPT:
            self._chunks.popitem(last=False)

    def clear(self) -> None:
        """Keep nothing."""
        self._chunks.clear()
