"""The truth: workspaces and what they do, the images they push, what their terminals print.

Nothing fails here and nothing is forgotten, unless that is what really happened. What the service gets to see
of it, and when, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from imgbuilder.core.builds import LogSource, WorkspaceSeen, WorkspaceStarted
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.wsman import StartWorkspaceRequest
from imgbuilder.wsman.errors import WorkspaceExistsError
from tests.faults.simulation.scenario import Scenario
from tests.faults.simulation.trace import Trace
from tests.faults.simulation.work import OUTCOMES, Outcome, Work

ALIVE = ("PENDING", "CREATING", "INITIALIZING", "RUNNING")


class Terminal:
    """What a workspace's task prints, as far as it has."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.printed_at = 0.0
        self.opened = False
        self.ended = False
        self.gone = False
        """Whether the supervisor is: nobody can listen any more."""
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call *listener* whenever something changes."""
        self._listeners.append(listener)

    def leave(self, listener: Callable[[], None]) -> None:
        """Don't call it any more."""
        self._listeners.remove(listener)

    def tell(self) -> None:
        """Something has changed."""
        for listener in tuple(self._listeners):
            listener()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks for a workspace, and what it knows.

    :ivar listed_as_of: how old the list was that it looked at before.
    :ivar remembers: the last build of this image that it knows to have ended, if that began in this slot.
    :ivar wants_address: whether it will be told one.
    """

    replica: str
    asked_at: float
    listed_as_of: float
    remembers: str | None
    wants_address: bool


@dataclass(slots=True, kw_only=True)
class Workspace:
    """One workspace, from the moment it is started until long after it is gone."""

    status: WorkspaceSeen
    outcome: Outcome
    started_at: float
    asked_by: Asking
    number: int
    terminal: Terminal = field(default_factory=Terminal)
    pushed: bool = False
    stopping_by_request: bool = False
    gone_at: float | None = None
    """When it had stopped, or was lost."""
    known: bool = True
    """Whether the workspace manager has not forgotten it."""

    @property
    def alive(self) -> bool:
        """Whether it has not stopped."""
        return self.gone_at is None

    @property
    def building(self) -> bool:
        """Whether its task may still be at work."""
        return self.alive and self.status.phase in ALIVE


class Watching(Protocol):
    """Who wants to be told of changes: the other end of a subscription."""

    def offer(self, status: WorkspaceSeen) -> None:
        """A workspace has changed."""


class World:
    """All that is the case, and the clock that it goes by."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        self.scenario = scenario
        self.loop = asyncio.get_running_loop()
        self.trace = trace
        self.workspaces: dict[str, Workspace] = {}
        """The newest of each id, also when it is long gone."""
        self.history: list[Workspace] = []
        self.images: set[str] = set()
        self.subscribers: list[Watching] = []
        self.on_start: list[Callable[[Workspace], None]] = []
        self.past_until = 0.0
        """When the last workspace was started that is not at work any more: no build is over before the caches
        of the workspace manager have it."""
        self._moments: list[float] = []
        self._snapshots: list[tuple[WorkspaceSeen, ...]] = []
        self._short: dict[str, str] = {}

    def now(self) -> float:
        """Seconds since the start."""
        return self.loop.time()

    def wall_clock(self) -> float:
        """The Unix time."""
        return self.scenario.wall_clock + self.loop.time()

    def name(self, build_id: str) -> str:
        """A short name for a build id, for people to read."""
        return self._short.setdefault(build_id, f"b{len(self._short)}")

    # --- what the workspace manager does ---

    def of(self, build_id: str) -> list[Workspace]:
        """All workspaces there ever were of an id."""
        return [workspace for workspace in self.history if workspace.status.build_id == build_id]

    def start(self, request: StartWorkspaceRequest, by: Asking) -> WorkspaceStarted:
        """Start a workspace.

        :raises WorkspaceExistsError: if there is one of this id that is not forgotten.
        """
        former = self.workspaces.get(request.id)
        if former is not None and former.known:
            raise WorkspaceExistsError("ALREADY_EXISTS", "workspace exists")
        assert request.metadata is not None
        ref = request.metadata.annotations["ref"]
        source = LogSource(url=f"http://supervisor.test/{request.id}", owner_token=Secret("token"))
        status = WorkspaceSeen(
            build_id=request.id,
            ref=ref,
            base_ref=request.metadata.annotations["baseref"],
            version=1 if self.scenario.versioned else 0,
            phase="PENDING",
            ended=False,
            stopped=False,
            failure="",
            message="",
            started_at=int(self.wall_clock()),
            log_source=None,
        )
        number = len(self.history)
        chance = random.Random(f"workspace {self.scenario.seed} {number}")
        workspace = Workspace(
            status=status,
            outcome=Outcome.ENDLESS if self.scenario.endless else chance.choice(OUTCOMES),
            started_at=self.now(),
            asked_by=by,
            number=number,
        )
        self.workspaces[request.id] = workspace
        self.history.append(workspace)
        self.trace.note(
            "world", "started", build=self.name(request.id), by=by.replica, outcome=workspace.outcome.value
        )
        self._changed(workspace)
        Work(self, workspace, source, chance).begin()
        for observer in self.on_start:
            observer(workspace)
        return WorkspaceStarted(log_source=source if by.wants_address else None)

    def stop(self, build_id: str) -> None:
        """Stop a workspace, if there is one."""
        workspace = self.workspaces.get(build_id)
        if workspace is None or not workspace.building:
            return
        workspace.stopping_by_request = True
        self.enter(workspace, "STOPPING")
        self.later(1.0, self.stopped, workspace)

    def forget_stopped(self) -> None:
        """Remove what has stopped from the books."""
        for workspace in self.workspaces.values():
            if not workspace.alive:
                workspace.known = False
        self._note_snapshot()

    def listed(self, *, as_of: float) -> tuple[WorkspaceSeen, ...]:
        """The statuses of all workspaces that are not forgotten, as they were at some time."""
        index = bisect_right(self._moments, as_of) - 1
        return self._snapshots[index] if index >= 0 else ()

    # --- what workspaces do ---

    def later(self, delay: float, function: Callable[[Workspace], None], workspace: Workspace) -> None:
        """Do something when time has come, if the workspace is still there then."""
        self.loop.call_later(delay, lambda: function(workspace) if workspace.alive else None)

    def enter(self, workspace: Workspace, phase: str, *, failure: str = "", message: str = "") -> None:
        """Bring a workspace into another phase."""
        self.change(
            workspace,
            phase=phase,
            ended=phase in ("STOPPING", "STOPPED"),
            stopped=phase == "STOPPED",
            failure=failure or workspace.status.failure,
            message=message,
        )

    def change(self, workspace: Workspace, **values: object) -> None:
        """Change a workspace's status."""
        version = workspace.status.version + 1 if self.scenario.versioned else 0
        workspace.status = replace(workspace.status, version=version, **values)  # type: ignore[arg-type]  # fields by name
        self.trace.note(
            "world",
            f"{workspace.status.phase}",
            build=self.name(workspace.status.build_id),
            failure=workspace.status.failure,
        )
        if not workspace.building:
            self.past_until = max(self.past_until, workspace.started_at)
        self._changed(workspace)

    def push(self, workspace: Workspace) -> None:
        """The image is made."""
        workspace.pushed = True
        self.images.add(workspace.status.ref)
        self.trace.note("world", "image pushed", build=self.name(workspace.status.build_id))

    def stopped(self, workspace: Workspace, failure: str = "") -> None:
        """Nothing of a workspace is left."""
        workspace.gone_at = self.now()
        self.enter(workspace, "STOPPED", failure=failure)
        self._end_terminal(workspace)
        kept = self.scenario.kept
        if kept <= 0:
            self._forget(workspace)
        elif kept < 1e9:
            self.loop.call_later(kept, self._forget, workspace)

    def vanish(self, workspace: Workspace) -> None:
        """A workspace is lost: nobody is told, and nobody remembers it."""
        workspace.gone_at = self.now()
        workspace.known = False
        self.past_until = max(self.past_until, workspace.started_at)
        self.trace.note("world", "vanished", build=self.name(workspace.status.build_id))
        self._end_terminal(workspace)
        self._note_snapshot()

    def _forget(self, workspace: Workspace) -> None:
        workspace.known = False
        self._note_snapshot()

    def _end_terminal(self, workspace: Workspace) -> None:
        workspace.terminal.gone = True
        workspace.terminal.tell()

    def _changed(self, workspace: Workspace) -> None:
        self._note_snapshot()
        for subscriber in tuple(self.subscribers):
            subscriber.offer(workspace.status)

    def _note_snapshot(self) -> None:
        self._moments.append(self.now())
        self._snapshots.append(tuple(each.status for each in self.workspaces.values() if each.known))
