"""One run: a seed, everything that happens because of it, and which promises were broken."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import structlog

from imgbuilder.core.naming import workspace_image_ref
from tests.faults.simulation import manager, registry
from tests.faults.simulation.clients import BuildClient
from tests.faults.simulation.faults import Faults
from tests.faults.simulation.invariants import BUILD_LIMIT, OVERDUE, Judge
from tests.faults.simulation.loop import VirtualLoop
from tests.faults.simulation.replica import REPOSITORIES, Replica
from tests.faults.simulation.scenario import MAXIMUM_DURATION, Downtime, Scenario, scenario
from tests.faults.simulation.trace import Trace
from tests.faults.simulation.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a run."""

    scenario: Scenario
    broken: tuple[str, ...]
    trace: Trace
    faults: Mapping[str, int]
    """How many messages met each kind of fault."""
    races: Mapping[str, int]
    """What nobody could have known: see `docs/guarantees.md`."""
    builds: int
    """How many workspaces were started."""
    lasted: float

    def story(self) -> str:
        """The run, to be read by people."""
        broken = "\n".join(self.broken) or "no promise was broken"
        command = f"python -m tests.faults.simulation {self.scenario.seed}"
        return f"{self.scenario}\n\n{self.trace}\n\n{broken}\nAgain: {command}"


def run(seed: int) -> Result:
    """Run a seed."""
    return play(scenario(seed))


def play(drawn: Scenario) -> Result:
    """Run a scenario."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        trace = Trace(loop.time)
        bugs: list[str] = []
        with _log_into(trace, bugs):
            return runner.run(_Run(drawn, trace, bugs).run())


class _Run:
    def __init__(self, drawn: Scenario, trace: Trace, bugs: list[str]) -> None:
        self._scenario = drawn
        self._trace = trace
        self._bugs = bugs

    async def run(self) -> Result:
        drawn, trace = self._scenario, self._trace
        loop = asyncio.get_running_loop()
        world = World(drawn, trace)
        judge = Judge(world, trace)
        faults = Faults(
            random.Random(f"faults {drawn.seed}"), drawn.rates, calm_at=drawn.calm_at, time=loop.time
        )
        world.images.update(_image(number) for number in drawn.built_before)
        self._manager = manager.Manager(world, faults)
        self._registry = registry.Registry(trace)
        self._replicas = [
            Replica(
                number,
                world=world,
                workspace_manager=self._manager,
                the_registry=self._registry,
                faults=faults,
                judge=judge,
            )
            for number in range(drawn.replicas)
        ]
        loop.set_exception_handler(lambda _, context: judge.broken("no error goes unseen", str(context)))
        async with anyio.create_task_group() as group:
            self._group = group
            for replica in self._replicas:
                replica.start(group)
            self._schedule()
            async with anyio.create_task_group() as clients:
                for number, plan in enumerate(drawn.calls):
                    client = BuildClient(number, plan, world=world, replicas=self._replicas, judge=judge)
                    clients.start_soon(client.run)
            await self._settle(world)
            for replica in self._replicas:
                if replica.life is not None:
                    judge.over(replica.life)
            judge.all_over()
            group.cancel_scope.cancel()
        for bug in self._bugs:
            judge.broken("no task fails", bug)
        return Result(
            scenario=drawn,
            broken=tuple(judge.faults),
            trace=trace,
            faults=faults.struck,
            races=judge.races,
            builds=len(world.history),
            lasted=loop.time(),
        )

    def _schedule(self) -> None:
        drawn, at = self._scenario, asyncio.get_running_loop().call_at
        for away in drawn.manager_away:
            at(away.begins, partial(self._manager.go, silent=away.silent, forgets=away.forgets))
            at(away.ends, self._manager.come)
        for away in drawn.replica_away:
            self._group.start_soon(self._restart, self._replicas[away.replica], away)
        for away in drawn.partitions:
            link = self._replicas[away.replica].manager
            at(away.begins, partial(link.partition, silent=away.silent))
            at(away.ends, link.heal)
        for away in drawn.registry_away:
            at(away.begins, partial(self._registry.go, silent=away.silent))
            at(away.ends, self._registry.come)

    async def _restart(self, replica: Replica, away: Downtime) -> None:
        await anyio.sleep_until(away.begins)
        replica.kill()
        await anyio.sleep_until(away.ends)
        replica.start(self._group)

    async def _settle(self, world: World) -> None:
        """Wait until nobody has anything to do any more."""
        with anyio.move_on_after(BUILD_LIMIT):
            while any(  # noqa: ASYNC110  # nobody tells, and virtual time costs nothing
                replica.life is None or not replica.life.idle or replica.life.tracker.running()
                for replica in self._replicas
            ):
                await anyio.sleep(5.0)
        for workspace in world.history:
            if workspace.building and self._scenario.well_from < math.inf:
                # What nobody waits for any more must be stopped all the same.
                overdue_at = max(workspace.started_at + MAXIMUM_DURATION, self._scenario.well_from) + OVERDUE
                await anyio.sleep(max(0.0, overdue_at + 1.0 - world.now()))


def _image(number: int) -> str:
    base = f"registry.test/base@{registry.DIGEST}"
    return workspace_image_ref(base, repository=REPOSITORIES.workspace)


@contextlib.contextmanager
def _log_into(trace: Trace, bugs: list[str]) -> Iterator[None]:
    """Let the service's log be a part of the trace."""

    def note(_: object, level: str, event: MutableMapping[str, Any]) -> str:
        trace.note("log", f"{level}: {event.pop('event')}", **event)
        if "exc_info" in event:
            bugs.append(traceback.format_exc())
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[note], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
