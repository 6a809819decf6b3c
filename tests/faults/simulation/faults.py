"""What can become of a message, and how often it does in a run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

KINDS: Final = (
    # right after something happened: see `replica.Life` and `manager.Manager`
    "service.killed",
    "manager.restarted",
    # calls of the workspace manager: see `manager.Link`
    *(
        f"{method}.{fault}"
        for method in ("start", "list", "describe", "stop", "subscribe")
        for fault in ("refused", "unheard", "unanswered", "slow", "internal")
    ),
    "start.late",
    "start.internal-after",
    "start.no-address",
    "list.stale",
    "describe.stale",
    # subscriptions: see `manager.Feed`
    "subscribe.late",
    "feed.cut",
    "feed.end",
    "feed.lag",
    "feed.half-open",
    "feed.deaf",
    "feed.drop",
    "feed.duplicate",
    "feed.delay",
    "feed.reorder",
    # registries: see `registry.Link`
    "registry.slow",
    "registry.unreachable",
    "registry.silent",
    "registry.fault",
    "registry.limited",
    # supervisors: see `supervisor.Link`
    "tasks.status",
    "tasks.silent",
    "tasks.none",
    "tasks.slow",
    "tasks.denied",
    "listen.refused",
    "listen.cut",
    "listen.end",
    "listen.error",
    "listen.silent",
    "listen.garbage",
    "listen.slow",
    "listen.pieces",
    "listen.no-exit",
    # the disk: see `disk.Disk`
    "disk.full",
    "disk.slow",
)

RATES: Final = (0.02, 0.1, 0.3, 0.7)


class Faults:
    """Decides by chance, at given rates, until everything is well again.

    :param rates: of each kind of fault, how many of the messages meet it that can.
    :param calm_at: the loop's time from which nothing fails any more.
    """

    def __init__(
        self,
        chance: random.Random,
        rates: Mapping[str, float],
        *,
        calm_at: float,
        time: Callable[[], float],
    ) -> None:
        self.chance = chance
        self._rates = rates
        self._calm_at = calm_at
        self._time = time
        self.struck: dict[str, int] = {}

    def strikes(self, kind: str) -> bool:
        """Whether the message at hand meets a fault of this kind."""
        rate = self._rates.get(kind, 0.0)
        if not rate or self._time() >= self._calm_at or self.chance.random() >= rate:
            return False
        self.struck[kind] = self.struck.get(kind, 0) + 1
        return True

    def first(self, *kinds: str) -> str | None:
        """The first of *kinds* that strikes."""
        return next((kind for kind in kinds if self.strikes(kind)), None)

    def latency(self) -> float:
        """What a message takes when nothing is wrong."""
        return self.chance.uniform(0.0005, 0.01)

    def between(self, shortest: float, longest: float) -> float:
        """A time span."""
        return self.chance.uniform(shortest, longest)
