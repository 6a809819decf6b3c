"""What will happen in a run, as far as it does not depend on what the service does: drawn from the seed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tests.faults.simulation.faults import KINDS, RATES

MAXIMUM_DURATION: Final = 600.0
"""Of a build, in seconds: shorter than in real life, longer than a start can take."""

SLOT: Final = 600.0
SLOT_BEGIN: Final = 1_699_999_800.0
"""A Unix time at which a slot of the build ids begins."""

PLACES: Final = (
    None,
    None,
    None,
    ("start", "list", "describe"),
    ("subscribe", "feed", "list"),
    ("registry",),
    ("tasks", "listen"),
    ("listen", "disk"),
    ("service", "manager"),
)
"""Where faults are in a run: the first part of their names; None for anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildCalls:
    """A client that wants an image, and calls until it is told how that ended."""

    at: float
    replica: int
    image: int
    forced: bool = False
    named: bool = False
    retries: bool = False
    """Whether it wants look-ups to be tried again."""
    leaves_after: float = math.inf
    """Seconds after which it hangs up, and does not call again."""
    slowness: float = 0.0
    """Seconds it takes to read a response."""
    reads_log: bool = False
    reads_log_at: int = 0
    """Number of the replica, as soon as it is told of a build."""
    reads_log_after: float = 0.0
    leaves_log_after: float = math.inf
    attempts: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Downtime:
    """From when until when something is not there, and what (a replica's number, where it is one)."""

    begins: float
    ends: float
    replica: int = -1
    silent: bool = False
    """Whether callers get no answer at all, rather than a refusal."""
    forgets: bool = False
    """Whether stopped workspaces are forgotten meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that is drawn beforehand."""

    seed: int
    replicas: int = 1
    wall_clock: float = 1_700_000_000.0
    """The Unix time at the start."""
    skews: tuple[float, ...] = (0.0, 0.0, 0.0)
    """How far the replicas' clocks are off."""
    rates: Mapping[str, float] = field(default_factory=dict)
    calm_at: float = 0.0
    versioned: bool = True
    """Whether the workspace manager counts status versions."""
    kept: float = 0.0
    """For how many seconds it keeps workspaces that have stopped."""
    window: int = 4096
    """How many bytes a terminal remembers."""
    log_memory: int = 4096
    """How many bytes of a log are kept in memory."""
    log_size: int = 1 << 20
    """How many bytes of a log are kept in all."""
    followed: int = 256
    """How many builds are followed while nobody reads their logs."""
    endless: bool = False
    """Whether no build ever ends by itself."""
    chatty: bool = False
    """Whether builds print a lot."""
    built_before: frozenset[int] = frozenset()
    """Images that exist from the beginning."""
    calls: tuple[BuildCalls, ...] = ()
    manager_away: tuple[Downtime, ...] = ()
    replica_away: tuple[Downtime, ...] = ()
    partitions: tuple[Downtime, ...] = ()
    registry_away: tuple[Downtime, ...] = ()

    @property
    def calm(self) -> bool:
        """Whether nothing at all goes wrong."""
        return not (
            self.rates or self.manager_away or self.replica_away or self.partitions or self.registry_away
        )

    @property
    def well_from(self) -> float:
        """From when on nothing goes wrong any more."""
        away = (*self.manager_away, *self.replica_away, *self.partitions, *self.registry_away)
        return max([self.calm_at if self.rates else 0.0, *(downtime.ends for downtime in away)])


def scenario(seed: int) -> Scenario:
    """The scenario of *seed*."""
    chance = random.Random(f"scenario {seed}")
    kinds = (_anything, _rebuilding, _together, _overtime, _chatting, _asking)
    (kind,) = chance.choices(kinds, weights=(72, 8, 8, 3, 5, 4))
    return kind(chance, seed)


def _together(chance: random.Random, seed: int) -> Scenario:
    """All replicas are asked for the same at the same time, and the workspace manager's answers go astray."""
    replicas = chance.choice((2, 3))
    moments = (0.5, chance.uniform(5.0, 60.0))
    return Scenario(
        seed=seed,
        replicas=replicas,
        rates={
            "describe.stale": 0.7,
            **_thinned(chance, _rates(chance, places=("start", "list", "describe", "feed"))),
        },
        calm_at=chance.uniform(1.0, 100.0),
        kept=chance.choice((0.0, 5.0)),
        calls=tuple(
            replace(_call(chance, moment + chance.uniform(0.0, 0.02), 1, 1), replica=replica)
            for moment in moments
            for replica in range(replicas)
        ),
    )


def _overtime(chance: random.Random, seed: int) -> Scenario:
    """A build never ends, and when its time is over the workspace manager is away."""
    begins = MAXIMUM_DURATION - chance.uniform(0.0, 60.0)
    away = Downtime(begins=begins, ends=begins + chance.uniform(1.0, 200.0), silent=chance.random() < 0.5)
    return Scenario(
        seed=seed,
        replicas=chance.choice((1, 2)),
        rates=_rates(chance, places=("stop", "feed")),
        calm_at=chance.uniform(MAXIMUM_DURATION, MAXIMUM_DURATION + 100.0),
        calls=(_call(chance, chance.uniform(0.0, 5.0), 1, 1),),
        manager_away=(away,),
        endless=True,
    )


def _rebuilding(chance: random.Random, seed: int) -> Scenario:
    """An image is built again after a replica was restarted, by several replicas at the same time."""
    replicas = chance.choice((2, 3))
    again_at = chance.uniform(100.0, 200.0)
    restarts_at = chance.uniform(0.0, again_at)
    border_at = chance.uniform(-100.0, again_at + 100.0)
    first = replace(_call(chance, chance.uniform(0.0, 5.0), replicas, 1), forced=True)
    restart = Downtime(begins=restarts_at, ends=restarts_at + 0.01, replica=chance.randrange(replicas))
    return Scenario(
        seed=seed,
        replicas=replicas,
        wall_clock=SLOT_BEGIN + SLOT - border_at,
        rates=_thinned(chance, _rates(chance)),
        calm_at=chance.uniform(0.0, 300.0),
        kept=chance.choice((0.0, 5.0)),
        calls=(
            first,
            *(
                replace(
                    _call(chance, again_at + chance.uniform(0.0, 0.02), 1, 1), replica=replica, forced=True
                )
                for replica in range(replicas)
            ),
        ),
        replica_away=(restart,),
    )


def _chatting(chance: random.Random, seed: int) -> Scenario:
    """A build prints more than its terminal remembers, and the streams of its output break."""
    return Scenario(
        seed=seed,
        rates={"listen.cut": 0.7, **_rates(chance, places=("tasks", "listen"))},
        calm_at=math.inf,
        window=chance.choice((64, 512)),
        chatty=True,
        calls=tuple(
            replace(_call(chance, chance.uniform(0.0, 20.0), 1, 1), reads_log=True, forced=True)
            for _ in range(2)
        ),
    )


def _asking(chance: random.Random, seed: int) -> Scenario:
    """Again and again clients want an image that is being built, and the registry takes its time."""
    return Scenario(
        seed=seed,
        replicas=chance.choice((1, 2)),
        rates={**_thinned(chance, _rates(chance)), "registry.slow": 0.5},
        calm_at=chance.uniform(20.0, 60.0),
        calls=tuple(
            replace(_call(chance, chance.uniform(0.0, 15.0), 1, 1), forced=False, retries=True)
            for _ in range(12)
        ),
    )


def _anything(chance: random.Random, seed: int) -> Scenario:
    replicas = chance.choice((1, 1, 2, 2, 3))
    images = chance.choice((1, 1, 2))
    length = chance.choice((20.0, 60.0, 240.0))
    peaceful = chance.random() < 0.05
    calm_at = math.inf if chance.random() < 0.15 else chance.uniform(0.5, 2.0) * length
    rates = _rates(chance)
    calls = _calls(chance, length, replicas, images)
    wanted = 0.0 if peaceful else 0.3
    # Now and then the slot of the build ids ends in the midst of it all, or just when something is asked for.
    border_at = chance.choice(
        (-500.0, chance.uniform(0.0, length), chance.choice(calls).at + chance.uniform(-0.02, 0.05)),
    )
    return Scenario(
        seed=seed,
        replicas=replicas,
        wall_clock=SLOT_BEGIN + SLOT - border_at,
        skews=tuple(chance.choice((0.0, chance.uniform(-0.5, 0.5))) for _ in range(3)),
        rates={} if peaceful else rates,
        calm_at=calm_at,
        versioned=chance.random() < 0.9,
        kept=chance.choice((0.0, 0.0, 5.0, 60.0, math.inf)),
        window=chance.choice((64, 512, 1 << 18)),
        log_memory=chance.choice((16, 200, 4096)),
        log_size=chance.choice((100, 2000, 1 << 20, 1 << 20)),
        followed=chance.choice((0, 1, 256, 256)),
        built_before=frozenset(image for image in range(images) if chance.random() < 0.2),
        calls=calls,
        manager_away=_downtimes(chance, length, wanted, longest=90.0),
        replica_away=_downtimes(chance, length, wanted, longest=20.0, replicas=replicas),
        partitions=_downtimes(chance, length, wanted, longest=90.0, replicas=replicas),
        registry_away=_downtimes(chance, length, wanted, longest=60.0),
    )


def _rates(chance: random.Random, *, places: Sequence[str] | None = None) -> dict[str, float]:
    """Everywhere a few kinds of fault, or many in one place: each hides what the other would show."""
    places = places or chance.choice(PLACES)
    share = chance.choice((0.1, 0.25, 0.5)) if places is None else 0.6
    return {
        kind: chance.choice(RATES)
        for kind in KINDS
        if (places is None or kind.partition(".")[0] in places) and chance.random() < share
    }


def _thinned(chance: random.Random, rates: Mapping[str, float]) -> dict[str, float]:
    return {kind: rate for kind, rate in rates.items() if chance.random() < 0.2}


def _calls(chance: random.Random, length: float, replicas: int, images: int) -> tuple[BuildCalls, ...]:
    """Some at the same time: that is when races happen."""
    moments = [chance.uniform(0.0, length) for _ in range(chance.randint(1, 3))]
    if chance.random() < 0.2:
        moments.append(0.0)
    calls = []
    for moment in moments:
        calls += [
            _call(
                chance,
                moment + chance.choice((0.0, 0.001, chance.uniform(0, 0.05), chance.uniform(0, 2))),
                replicas,
                images,
            )
            for _ in range(chance.choice((1, 1, 2, 3)))
        ]
    return tuple(calls)


def _call(chance: random.Random, at: float, replicas: int, images: int) -> BuildCalls:
    return BuildCalls(
        at=at,
        replica=chance.randrange(replicas),
        image=chance.randrange(images),
        forced=chance.random() < 0.4,
        named=chance.random() < 0.2,
        retries=chance.random() < 0.5,
        leaves_after=chance.uniform(0, 30) if chance.random() < 0.15 else math.inf,
        slowness=chance.choice((0.1, 3.0)) if chance.random() < 0.1 else 0.0,
        reads_log=chance.random() < 0.5,
        reads_log_at=chance.randrange(replicas),
        reads_log_after=chance.choice((0.0, 0.0, chance.uniform(0, 60))),
        leaves_log_after=chance.uniform(0, 60) if chance.random() < 0.15 else math.inf,
        attempts=chance.choice((1, 4)),
    )


def _downtimes(
    chance: random.Random, length: float, wanted: float, *, longest: float, replicas: int = 0
) -> tuple[Downtime, ...]:
    downtimes = []
    while chance.random() < wanted:
        begins = chance.uniform(0.0, length)
        downtimes.append(
            Downtime(
                begins=begins,
                ends=begins + chance.choice((0.01, 1.0, chance.uniform(0.01, longest))),
                replica=chance.randrange(replicas) if replicas else -1,
                silent=chance.random() < 0.5,
                forgets=chance.random() < 0.5,
            ),
        )
    return tuple(downtimes)
