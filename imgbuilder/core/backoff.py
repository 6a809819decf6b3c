"""How long to wait before trying again. Chance comes in as an argument; nothing here waits."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that grow from attempt to attempt, in seconds.

    :ivar first: the longest delay before the first repetition.
    :ivar factor: by how much each is longer than the one before; 1 or more.
    :ivar limit: none is longer than that.
    """

    first: float
    factor: float
    limit: float

    def delay(self, attempt: int, jitter: float) -> float:
        """The delay after failed attempt number *attempt*, counted from 0.

        :param jitter: in [0, 1); spreads the delay over the upper half of what it may be, so that many who
            failed together do not come back together.
        """
        return self._longest(attempt) * (1 + jitter) / 2

    def _longest(self, attempt: int) -> float:
        # Compared as logarithms: the power of a late attempt does not fit into a float.
        if self.first <= 0 or self.limit <= self.first:
            return max(0.0, min(self.first, self.limit))
        if attempt * math.log(self.factor) >= math.log(self.limit / self.first):
            return self.limit
        return min(self.limit, self.first * self.factor**attempt)
