"""A cache whose size is bounded, for everything the registry layer remembers. It reads no clock."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Keeps what was used last, up to a total weight.

    Times are those of the event loop's clock, in seconds; the caller reads it.
    """

    def __init__(self, capacity: int) -> None:
        """:param capacity: the total weight that is kept."""
        self._capacity = capacity
        self._weight = 0
        self._entries: OrderedDict[K, tuple[V, float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, *, now: float = 0.0) -> V | None:
        """What was put under *key*, unless it expired or was pushed out."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, until, _ = entry
        if until <= now:
            self.forget(key)
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, *, until: float = math.inf, weight: int = 1) -> None:
        """Keep *value* until the time *until*. What weighs more than the whole capacity is not kept."""
        self.forget(key)
        if weight > self._capacity:
            return
        self._entries[key] = value, until, weight
        self._weight += weight
        while self._weight > self._capacity:
            _, (_, _, freed) = self._entries.popitem(last=False)
            self._weight -= freed

    def forget(self, key: K) -> None:
        """Drop what is kept under *key*, if anything is."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._weight -= entry[2]
