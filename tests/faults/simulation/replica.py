"""One replica of the service: the real one, less its borders. It can be killed, and begins again with nothing."""

from __future__ import annotations

import random
from functools import partial
from typing import Final

import anyio
from anyio.abc import TaskGroup

from imgbuilder.api.imagebuilder import ImageBuilder
from imgbuilder.bus import Bus
from imgbuilder.core.builds import Build, BuildState
from imgbuilder.core.workspace import WorkspaceSettings
from imgbuilder.orchestrator.building import Builder
from imgbuilder.orchestrator.endings import Endings
from imgbuilder.orchestrator.launching import Launcher
from imgbuilder.orchestrator.logs import LogKeeper, LogSettings
from imgbuilder.orchestrator.refcache import RefCache
from imgbuilder.orchestrator.resolving import Repositories, Resolver
from imgbuilder.orchestrator.tracker import Tracker, TrackerSettings
from imgbuilder.orchestrator.watcher import Watcher
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.telemetry.metrics import Metrics
from tests.faults.simulation import manager, registry, supervisor
from tests.faults.simulation.disk import Disk
from tests.faults.simulation.faults import Faults
from tests.faults.simulation.invariants import Judge
from tests.faults.simulation.scenario import MAXIMUM_DURATION
from tests.faults.simulation.world import World

REPOSITORIES: Final = Repositories(
    base="registry.test/base-images", workspace="registry.test/workspace-images"
)
MOST_KILLS: Final = 3
SERVICE_TASKS: Final = 2
"""Those that run for as long as the service does: the watcher's and the tracker's."""


class Replica:
    """One process of the service, and the ones that take its place."""

    def __init__(
        self,
        number: int,
        *,
        world: World,
        workspace_manager: manager.Manager,
        the_registry: registry.Registry,
        faults: Faults,
        judge: Judge,
    ) -> None:
        self.number = number
        self.name = f"replica {number}"
        self.world = world
        self.manager = manager.Link(workspace_manager, faults, self.name)
        self.images = registry.Link(the_registry, world, faults, self.name)
        self._faults = faults
        self._judge = judge
        self._skew = world.scenario.skews[number]
        self.lives = 0
        self.life: Life | None = None
        self._kills = 0

    def kill_soon(self) -> None:
        """End within a moment, and begin again."""
        if self._kills < MOST_KILLS:
            self._kills += 1
            self._group.start_soon(
                self._restart, self._faults.between(0.0, 0.02), self._faults.between(0.0, 3.0)
            )

    async def _restart(self, soon: float, later: float) -> None:
        await anyio.sleep(soon)
        self.kill()
        await anyio.sleep(later)
        self.start(self._group)

    def start(self, group: TaskGroup) -> None:
        """Begin to serve, unless it does."""
        self._group = group
        if self.life is None:
            self.lives += 1
            self.world.trace.note(self.name, "starts", life=self.lives)
            self.life = Life(self, self._faults, self._judge, self.lives)
            group.start_soon(self.life.run)

    def kill(self) -> None:
        """End without a word: whoever is being served hears that the connection is lost."""
        if self.life is not None:
            self.world.trace.note(self.name, "killed")
            self.life.end()
            self.life = None

    def clock(self) -> float:
        """The Unix time as this replica's machine has it."""
        return self.world.wall_clock() + self._skew


class Life:
    """One process of the service, from start to end."""

    def __init__(self, replica: Replica, faults: Faults, judge: Judge, number: int) -> None:
        self.name = f"{replica.name}.{number}"
        self.replica = replica
        self._judge = judge
        self._faults = faults
        self._chance = random.Random(f"jitter {replica.world.scenario.seed} {self.name}")
        self._scope = anyio.CancelScope()
        self.calls: dict[anyio.CancelScope, None] = {}
        self.killed = False
        self.ended_builds: dict[str, Build] = {}
        """The builds this process saw end, as they ended."""
        self.began = replica.world.now()
        self.phases: dict[str, int] = {}
        """How far each build has come, as far as it was told."""
        self.ended_at: dict[str, float] = {}
        self.forgotten: dict[str, None] = {}
        self.known_since: dict[str, float] = {}
        self.checking_since: dict[str, float] = {}
        replica.manager.on_start = partial(judge.asked, self)
        metrics = Metrics()
        self.bus = Bus()
        self.tracker = Tracker(
            bus=self.bus,
            clock=replica.clock,
            settings=TrackerSettings(maximum_duration=MAXIMUM_DURATION),
            metrics=metrics,
        )
        self.tasks = Tasks()
        self.supervisor = supervisor.Link(replica.world, faults, replica.name)
        self._logs = LogKeeper(
            bus=self.bus,
            supervisor=self.supervisor,
            tasks=self.tasks,
            settings=LogSettings(
                memory=replica.world.scenario.log_memory,
                max_size=replica.world.scenario.log_size,
                followed=replica.world.scenario.followed,
            ),
            metrics=metrics,
            jitter=self._chance.random,
        )
        self._logs._spool = Disk(faults)
        self.tracker.on_change(self._logs.build_changed)
        self.tracker.on_change(self._changed)
        self.tracker.on_forget(self._logs.forget)
        self.tracker.on_forget(lambda build_id: self.forgotten.update({build_id: None}))
        refcache = RefCache(images=replica.images, refs=[], interval=3600.0)
        resolver = Resolver(images=replica.images, refcache=refcache, repositories=REPOSITORIES)
        self.launcher = Launcher(
            tracker=self.tracker,
            workspaces=replica.manager,
            settings=WorkspaceSettings(builder_image="builder:1", pull_secret="pull"),
            tasks=self.tasks,
            clock=replica.clock,
            metrics=metrics,
        )
        Endings(
            tracker=self.tracker,
            images=replica.images,
            workspaces=replica.manager,
            tasks=self.tasks,
            jitter=self._chance.random,
        )
        self._watcher = Watcher(
            address="ws-manager",
            workspaces=replica.manager,
            tracker=self.tracker,
            metrics=metrics,
            jitter=self._chance.random,
        )
        builder = Builder(
            resolver=resolver,
            tracker=self.tracker,
            launcher=self.launcher,
            own_credentials=replica.images,
        )
        self.api = ImageBuilder(resolver=resolver, builder=builder, tracker=self.tracker, logs=self._logs)

    async def run(self) -> None:
        """Serve until the end."""
        with self._scope:
            async with self.tasks, self._logs:
                self.tasks.spawn(self._watcher.run, name="watcher")
                self.tasks.spawn(self.tracker.run, name="tracker")
                await anyio.sleep_forever()

    def end(self) -> None:
        """Stop everything at once."""
        self.killed = True
        for scope in self.calls:
            scope.cancel()
        self._scope.cancel()

    @property
    def idle(self) -> bool:
        """Whether nothing is being done but what is always being done."""
        return self.tasks.running <= SERVICE_TASKS

    def _changed(self, build: Build) -> None:
        world = self.replica.world
        world.trace.note(
            self.replica.name, build.state.value, build=world.name(build.build_id), message=build.message
        )
        self.known_since.setdefault(build.build_id, world.now())
        if build.state is BuildState.CHECKING:
            self.checking_since.setdefault(build.build_id, world.now())
        self._judge.build_changed(self, build)
        if build.state.ended and build.state is not BuildState.NOT_STARTED:
            self.ended_builds[build.build_id] = build
        if self._faults.strikes("service.killed"):
            self.replica.kill_soon()
        if build.state.ended:
            self.ended_at.setdefault(build.build_id, world.now())
