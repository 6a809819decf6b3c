"""The orchestrator's ports, in memory: a workspace manager and registries that do as they are told."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from imgbuilder.bus import Bus
from imgbuilder.core.builds import LogSource, WorkspaceSeen, WorkspaceStarted
from imgbuilder.core.naming import paths_of_a_reference
from imgbuilder.core.permissions import Credentials, Permissions
from imgbuilder.core.references import Reference
from imgbuilder.core.secrets import Secret
from imgbuilder.core.workspace import BuildPlan
from imgbuilder.orchestrator.tracker import Tracker, TrackerSettings
from imgbuilder.pb.wsman import StartWorkspaceRequest
from imgbuilder.registry.errors import RegistryError
from imgbuilder.telemetry.metrics import Metrics
from imgbuilder.wsman.errors import (
    WorkspaceExistsError,
    WorkspaceManagerError,
    WorkspaceManagerUnavailableError,
)

WALL_CLOCK_START = 1_700_000_000.0
DIGEST = "sha256:" + "0123456789abcdef" * 4


def clock() -> float:
    """A wall clock that goes with the event loop's."""
    return WALL_CLOCK_START + anyio.current_time()


def plan(ref: str = "registry.test/workspace-images:a") -> BuildPlan:
    """A plan to build *ref*."""
    return BuildPlan(
        ref=ref,
        base_ref=f"registry.test/base@{DIGEST}",
        paths=paths_of_a_reference(),
        initializer=None,
        additional_auth=Secret("{}"),
        triggered_by="owner",
        supervisor_ref="supervisor:1",
    )


def seen(
    build_id: str, ref: str, *, phase: str = "RUNNING", version: int = 1, failure: str = ""
) -> WorkspaceSeen:
    """A status of a workspace."""
    return WorkspaceSeen(
        build_id=build_id,
        ref=ref,
        base_ref=f"registry.test/base@{DIGEST}",
        version=version,
        phase=phase,
        ended=phase in ("STOPPING", "STOPPED"),
        stopped=phase == "STOPPED",
        failure=failure,
        message="",
        started_at=int(clock()),
        log_source=LogSource(url=f"http://workspaces.test/{build_id}", owner_token=Secret("token")),
    )


@dataclass
class FakeWorkspaces:
    """A workspace manager. It changes nothing by itself: tests say what happens."""

    workspaces: dict[str, WorkspaceSeen] = field(default_factory=dict)
    start_errors: list[Exception] = field(default_factory=list)
    start_delay: float = 0.0
    down: bool = False
    lists_fail: bool = False
    list_delay: float = 0.001
    unlisted: set[str] = field(default_factory=set)
    starts: list[StartWorkspaceRequest] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    listings: int = 0
    most_running: dict[str, int] = field(default_factory=dict)
    subscribers: list[MemoryObjectSendStream[WorkspaceSeen]] = field(default_factory=list)

    def update(self, build_id: str, phase: str, failure: str = "", *, silent: bool = False) -> None:
        """Bring a workspace into *phase* and tell subscribers, unless *silent*. Stopped, it is forgotten."""
        old = self.workspaces[build_id]
        status = seen(build_id, old.ref, phase=phase, version=old.version + 1, failure=failure)
        self.workspaces[build_id] = status
        if status.stopped:
            del self.workspaces[build_id]
        if not silent:
            self.tell(status)

    def tell(self, status: WorkspaceSeen) -> None:
        """Send *status* to all subscribers."""
        for stream in self.subscribers:
            stream.send_nowait(status)

    def add(self, build_id: str, ref: str, phase: str = "RUNNING") -> None:
        """Another replica's workspace."""
        self.workspaces[build_id] = seen(build_id, ref, phase=phase)

    def break_subscriptions(self) -> None:
        """End all subscriptions with an error."""
        for stream in list(self.subscribers):
            stream.close()

    async def start(self, request: StartWorkspaceRequest) -> WorkspaceStarted:
        """Start one, or fail as told."""
        self.starts.append(request)
        await anyio.sleep(self.start_delay)
        self._check()
        if self.start_errors:
            raise self.start_errors.pop(0)
        if request.id in self.workspaces:
            raise WorkspaceExistsError("ALREADY_EXISTS", "exists")
        assert request.metadata is not None
        ref = request.metadata.annotations["ref"]
        self.workspaces[request.id] = replace(seen(request.id, ref, phase="PENDING"))
        alive = sum(workspace.ref == ref and not workspace.stopped for workspace in self.workspaces.values())
        self.most_running[ref] = max(alive, self.most_running.get(ref, 0))
        return WorkspaceStarted(log_source=self.workspaces[request.id].log_source)

    async def stop(self, workspace_id: str) -> None:
        """Note it."""
        self._check()
        self.stops.append(workspace_id)

    async def describe(self, workspace_id: str) -> WorkspaceSeen | None:
        """Tell what there is."""
        self._check()
        return self.workspaces.get(workspace_id)

    async def list(self, *, ref: str | None = None) -> list[WorkspaceSeen]:
        """List what there is."""
        self.listings += 1
        await anyio.sleep(self.list_delay)
        self._check()
        if self.lists_fail:
            raise WorkspaceManagerError("INTERNAL", "cannot list")
        return [
            workspace
            for workspace in self.workspaces.values()
            if ref in (None, workspace.ref) and workspace.build_id not in self.unlisted
        ]

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[WorkspaceSeen]]:
        """Stream what is told."""
        self._check()
        send, receive = anyio.create_memory_object_stream[WorkspaceSeen](math.inf)
        self.subscribers.append(send)

        async def changes() -> AsyncIterator[WorkspaceSeen]:
            async for status in receive:
                yield status
            raise WorkspaceManagerUnavailableError("UNAVAILABLE", "connection lost")

        stream = changes()
        try:
            yield stream
        finally:
            self.subscribers.remove(send)
            send.close()
            receive.close()

    def _check(self) -> None:
        if self.down:
            raise WorkspaceManagerUnavailableError("UNAVAILABLE", "connection refused")


@dataclass
class FakeImages:
    """Registries: a set of references that exist, and errors to raise instead of answering."""

    existing: set[str] = field(default_factory=set)
    digests: dict[str, str] = field(default_factory=dict)
    errors: list[RegistryError] = field(default_factory=list)
    broken: RegistryError | None = None
    delay: float = 0.0
    requests: list[str] = field(default_factory=list)
    permissions: list[Permissions] = field(default_factory=list)
    own: dict[str, Credentials] = field(default_factory=dict)

    async def resolve(self, reference: Reference, permissions: Permissions, *, retry: bool) -> Reference:
        """The digest form."""
        await self._answer(f"resolve {reference}", permissions)
        return reference.with_digest(self.digests.get(str(reference), DIGEST))

    async def exists(self, reference: Reference, permissions: Permissions, *, retry: bool) -> bool:
        """Whether it is there."""
        found = str(reference) in self.existing  # as of when it was asked
        await self._answer(f"exists {reference}", permissions)
        return found

    async def credentials(self, registry: str) -> Credentials | None:
        """The service's own."""
        return self.own.get(registry)

    async def _answer(self, request: str, permissions: Permissions) -> None:
        self.requests.append(request)
        self.permissions.append(permissions)
        await anyio.sleep(self.delay)
        if self.broken is not None:
            raise self.broken
        if self.errors:
            raise self.errors.pop(0)


def new_tracker(
    *,
    bus: Bus | None = None,
    settings: TrackerSettings | None = None,
    metrics: Metrics | None = None,
) -> Tracker:
    """A tracker on the event loop's time."""
    return Tracker(
        bus=bus or Bus(),
        clock=clock,
        settings=settings or TrackerSettings(),
        metrics=metrics or Metrics(),
    )
