"""Who may build next: a queue that is fair over owners, with a limit on how many build at once.

Each owner's builds start in the order they came; owners take turns, however many builds one of them has
waiting. It is start-time fair queueing: a build gets a virtual time when it comes, one after its owner's
previous one and not before the present, and the lowest starts first. Knows no clock and starts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class _Turn:
    virtual_time: int
    arrival: int


class FairQueue:
    """Holds what waits and what runs, by key.

    :param limit: how many may run at once; 1 or more.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError("the limit must be 1 or more")
        self._limit = limit
        self._waiting: dict[str, _Turn] = {}
        self._running: set[str] = set()
        self._last_of: dict[str, int] = {}
        self._now = 0
        self._arrivals = 0

    @property
    def running(self) -> frozenset[str]:
        """The keys of what was admitted and not removed."""
        return frozenset(self._running)

    def add(self, key: str, owner: str) -> None:
        """Let *key* wait for its turn among those of *owner*."""
        self._arrivals += 1
        virtual_time = max(self._now, self._last_of.get(owner, 0)) + 1
        self._last_of[owner] = virtual_time
        self._waiting[key] = _Turn(virtual_time, self._arrivals)

    def admit(self) -> list[str]:
        """The keys that run from now on, in order, as many as the limit lets."""
        free = self._limit - len(self._running)
        admitted = self.order()[: max(0, free)]
        for key in admitted:
            self._now = max(self._now, self._waiting.pop(key).virtual_time)
            self._running.add(key)
        self._forget_past_owners()
        return admitted

    def remove(self, key: str) -> None:
        """Take *key* out, whether it waits or runs. Unknown keys are fine."""
        self._running.discard(key)
        self._waiting.pop(key, None)

    def order(self) -> list[str]:
        """What waits, in the order in which it will be admitted if nothing comes or goes."""
        return sorted(self._waiting, key=self._waiting.__getitem__)

    def _forget_past_owners(self) -> None:
        # A time that has passed says no more than the present does.
        self._last_of = {owner: time for owner, time in self._last_of.items() if time > self._now}
