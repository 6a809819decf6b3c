"""Takes up a stream again that repeats its last part at each new beginning: what was had before is left out.

A terminal remembers its last bytes, up to a window, and sends a new listener these first. Whoever listens
again after a break has seen some of them, usually all. Where in the repetition the new part begins is not
told; it is found by comparing with what came before. Never does I/O and never waits: each byte that is new
is known to be new by the time that it arrives, or a few bytes later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WINDOW: Final = 256 * 1024
"""Bytes that the supervisor's terminal remembers."""


LEAST_OVERLAP: Final = 32
"""Bytes that a repetition must share with what came before, to be taken for one. Fewer may be the same by chance,
a line feed most of all, and would hide a gap; that a true overlap is so short is most unlikely."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The repetition begins after what came before: what lies between is lost, and nobody knows how much."""


class Splicer:
    """Joins the streams of one terminal into what the terminal printed.

    Where several overlaps fit, the longest is taken: nothing is told twice, and something would be lost only
    if the terminal printed the same over and over. The result does not depend on how the streams are cut.

    :param least_overlap: bytes of an overlap at least, unless it is all that the terminal had printed. A
        shorter one counts as a gap, after which it is told again.
    """

    def __init__(self, *, window: int = WINDOW, least_overlap: int = LEAST_OVERLAP) -> None:
        self._window = window
        self._least_overlap = least_overlap
        self._before = bytearray()
        self._after_gap = False
        # While a stream repeats: all of it is self._before[self._start:self._place], and no earlier start fits.
        self._repeating = False
        self._start = 0
        self._place = 0

    def restart(self) -> None:
        """A new stream begins."""
        del self._before[: -self._window]
        self._repeating = bool(self._before)
        self._start = self._place = 0

    def feed(self, data: bytes) -> list[bytes | Gap]:
        """What is new in *data*, in order."""
        if not self._repeating:
            return self._new(data)
        expected = self._before[self._place : self._place + len(data)]
        if data.startswith(expected):
            return self._repeated(len(expected), data)
        # It starts at a later place, or in the midst of this data.
        repeated = bytes(self._before[self._start : self._place]) + data
        start = self._before.find(repeated, self._start + 1)
        if start >= 0:
            self._start, self._place = start, start
            return self._repeated(len(repeated), repeated)
        return self._after_overlap(longest_overlap(bytes(self._before), repeated), repeated)

    def _repeated(self, length: int, data: bytes) -> list[bytes | Gap]:
        """The first *length* bytes of *data* came before; there are more only if that was all that came before."""
        self._place += length
        if self._place < len(self._before):
            return []
        overlap = len(self._before) - self._start
        return self._after_overlap(overlap, bytes(self._before[self._start :]) + data[length:])

    def _after_overlap(self, overlap: int, repeated: bytes) -> list[bytes | Gap]:
        """The stream begins with *repeated*, of which the first *overlap* bytes came before, last of all."""
        self._repeating = False
        # The little that a terminal had printed in all is repeated in all.
        whole = overlap == len(self._before) and not self._after_gap
        if overlap >= self._least_overlap or whole:
            return self._new(repeated[overlap:])
        self._after_gap = True
        self._before.clear()
        return [Gap(), *self._new(repeated)]

    def _new(self, data: bytes) -> list[bytes | Gap]:
        if not data:
            return []
        self._before += data
        if len(self._before) > self._window + self._window // 4:
            del self._before[: -self._window]
        return [data]


def longest_overlap(before: bytes, after: bytes) -> int:
    """The length of the longest end of *before* that *after* begins with.

    Takes time in proportion to the length, whatever the contents, and spends it in the interpreter's own
    search and comparison: well under a millisecond for what a terminal remembers.
    """
    longest = min(len(before), len(after))
    while longest:
        # Overlaps of n to 2n - 1 bytes all show where the first n bytes of *after* occur in a text shorter
        # than two times n. That leaves little room for false hits: see _longest_of_octave.
        shortest = 1 << (longest.bit_length() - 1)
        overlap = _longest_of_octave(before[-longest:], after, shortest)
        if overlap:
            return overlap
        longest = shortest - 1
    return 0


def _longest_of_octave(text: bytes, after: bytes, shortest: int) -> int:
    """The longest end of *text*, of *shortest* bytes at least, that *after* begins with; 0 if there is none.

    *text* must be shorter than twice *shortest*. Where the head occurs three times or more in so short a
    text, it is periodic, and it occurs at each period as far as the text keeps to it. So of all its places
    but the first two, at most one can be the right one: the first from which *after* is periodic for as long
    as the text is.
    """
    head = after[:shortest]
    first = text.find(head)
    if first < 0:
        return 0
    if after.startswith(text[first:]):
        return len(text) - first
    second = text.find(head, first + 1)
    if second < 0:
        return 0
    period = second - first
    text_keeps = first + period + common_prefix(text[first:], text[second:])
    after_keeps = period + common_prefix(after, after[period:])
    if text_keeps == len(text):
        # The end of the text is periodic, so the overlap must be too: the longest that *after* keeps up.
        too_long = len(text) - second - after_keeps
        place = second + max(0, -(-too_long // period)) * period
    else:
        # The text breaks the period, so *after* must break it at the same place.
        place = text_keeps - after_keeps
    if second <= place <= len(text) - shortest and after.startswith(text[place:]):
        return len(text) - place
    return 0


def common_prefix(left: bytes, right: bytes) -> int:
    """How many bytes *left* and *right* begin with that are the same."""
    same, most = 0, min(len(left), len(right))
    while same < most:
        middle = (same + most + 1) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same
