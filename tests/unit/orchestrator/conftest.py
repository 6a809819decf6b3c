"""An orchestrator on fakes, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from imgbuilder.bus import Bus
from imgbuilder.core.builds import Build
from imgbuilder.core.workspace import WorkspaceSettings
from imgbuilder.orchestrator.building import Builder
from imgbuilder.orchestrator.endings import Endings
from imgbuilder.orchestrator.launching import Launcher
from imgbuilder.orchestrator.refcache import RefCache
from imgbuilder.orchestrator.resolving import Repositories, Resolver
from imgbuilder.orchestrator.tracker import Tracker
from imgbuilder.orchestrator.watcher import Watcher
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.telemetry.metrics import Metrics
from tests.helpers import in_own_task
from tests.unit.orchestrator.fakes import FakeImages, FakeWorkspaces, clock, new_tracker

NO_JITTER = 0.999


@dataclass(kw_only=True)
class Orchestrator:
    """One replica of the service without its borders."""

    workspaces: FakeWorkspaces
    images: FakeImages
    tracker: Tracker
    launcher: Launcher
    watcher: Watcher
    resolver: Resolver
    builder: Builder
    refcache: RefCache
    tasks: Tasks
    metrics: Metrics

    async def final(self, build_id: str) -> Build:
        """The build once it has ended."""
        with self.tracker.watch(build_id) as changes:
            build = self.tracker.get(build_id)
            assert build is not None
            while not build.state.ended:
                build = await changes.receive()
            return build


def assemble(workspaces: FakeWorkspaces, images: FakeImages, tasks: Tasks) -> Orchestrator:
    """A replica on top of *workspaces* and *images*."""
    metrics = Metrics()
    tracker = new_tracker(bus=Bus(), metrics=metrics)
    repositories = Repositories(base="registry.test/base-images", workspace="registry.test/workspace-images")
    refcache = RefCache(images=images, refs=["cached:1"], interval=3600)
    resolver = Resolver(images=images, refcache=refcache, repositories=repositories)
    launcher = Launcher(
        tracker=tracker,
        workspaces=workspaces,
        settings=WorkspaceSettings(builder_image="builder:1", pull_secret="pull"),
        tasks=tasks,
        clock=clock,
        metrics=metrics,
    )
    Endings(tracker=tracker, images=images, workspaces=workspaces, tasks=tasks, jitter=lambda: NO_JITTER)
    return Orchestrator(
        workspaces=workspaces,
        images=images,
        tracker=tracker,
        launcher=launcher,
        watcher=Watcher(
            address="wsman.test:8080",
            workspaces=workspaces,
            tracker=tracker,
            metrics=metrics,
            jitter=lambda: NO_JITTER,
        ),
        resolver=resolver,
        builder=Builder(resolver=resolver, tracker=tracker, launcher=launcher, own_credentials=images),
        refcache=refcache,
        tasks=tasks,
        metrics=metrics,
    )


@pytest.fixture
async def orchestrator() -> AsyncIterator[Orchestrator]:
    """One replica whose watcher is not running yet."""
    async with in_own_task(Tasks()) as tasks:
        yield assemble(FakeWorkspaces(), FakeImages(), tasks)
