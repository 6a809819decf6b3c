"""The workspaces: their sole owner. Starts and stops them, runs their builds, tells subscribers of changes.

All state changes are synchronous. A build runs in a task of the service, never in that of a call, and ends
in a way that its user is told: whatever goes wrong with one is no other's business.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import anyio
import structlog

from imgbuilder.core.errors import InvalidInputError
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.wsman import (
    MetadataFilter,
    StartWorkspaceRequest,
    StartWorkspaceSpec,
    StopWorkspacePolicy,
    WorkspaceMetadata,
    WorkspacePhase,
    WorkspaceSpec,
    WorkspaceStatus,
    WorkspaceType,
)
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.standalone.buildtask import read_build_task
from imgbuilder.standalone.executing import Runner, execute
from imgbuilder.standalone.live import Live, ManagerClosedError, WorkspaceKnownError, WorkspaceUnknownError
from imgbuilder.standalone.scheduling import FairQueue
from imgbuilder.standalone.state import Journal
from imgbuilder.standalone.subscriptions import Mailbox, Subscriptions, matches
from imgbuilder.standalone.workspaces import (
    Admitted,
    CleanedUp,
    Ended,
    Event,
    Failed,
    Outcome,
    Queued,
    Stopped,
    Succeeded,
    TaskFailed,
    Workspace,
    advance,
    describe,
    exit_code,
    status_of,
)

log = structlog.get_logger(__name__)

LISTENERS_GRACE: Final = 5.0
"""Seconds that the last output and the exit code of an ended build wait for somebody to fetch them."""

RETENTION: Final = 60.0
"""Seconds that an interrupted build of an earlier run is known after it was reported for the first time."""

SHUTDOWN: Final = Failed("build was interrupted: the workspace manager was stopped")

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerSettings:
    """
    :ivar concurrency: how many builds run at once.
    :ivar listeners_grace: see `LISTENERS_GRACE`.
    """  # noqa: D205, D212  # only variables to describe

    concurrency: int
    listeners_grace: float = LISTENERS_GRACE


class Manager:
    """Owns the workspaces that run, and for a moment those that have ended."""

    def __init__(
        self,
        *,
        runner: Runner,
        journal: Journal,
        tasks: Tasks,
        settings: ManagerSettings,
        address_of: Callable[[str], str],
        clock: Callable[[], float],
        new_token: Callable[[], str] = lambda: secrets.token_urlsafe(32),
    ) -> None:
        """
        :param tasks: where builds run.
        :param address_of: where the supervisor of a workspace is, by the workspace's id.
        :param clock: the Unix time in seconds.
        :param new_token: makes owner tokens.
        """  # noqa: D205, D212  # only parameters to describe
        self._runner = runner
        self._journal = journal
        self._tasks = tasks
        self._settings = settings
        self._address_of = address_of
        self._clock = clock
        self._new_token = new_token
        self._queue = FairQueue(settings.concurrency)
        self._subscriptions = Subscriptions()
        self._closed = False
        self._none_running = anyio.Event()
        self._running = 0
        left_behind = journal.left_behind()
        self._live = {found.workspace_id: Live(workspace=found) for found in left_behind}
        self._unreported = {found.workspace_id for found in left_behind}

    # --- what the calls do ---

    def start(self, request: StartWorkspaceRequest) -> Workspace:
        """Start a workspace: at once if there is room, else when it is its turn.

        :raises InvalidInputError: if it is no image build, or not described properly.
        :raises WorkspaceKnownError: if there is one of this id.
        :raises ManagerClosedError: if nothing is started any more.
        :raises DataFolderError: if it can't be kept.
        """
        if self._closed:
            raise ManagerClosedError
        if request.type != WorkspaceType.IMAGEBUILD:
            raise InvalidInputError("type", "must be IMAGEBUILD: other workspaces are not run here")
        if not _ID.fullmatch(request.id):
            raise InvalidInputError("id", "must be of letters, digits, dots, dashes and underscores")
        if request.id in self._live:
            raise WorkspaceKnownError(request.id)
        task = read_build_task(request)
        workspace = self._workspace_for(request)
        self._journal.add(workspace)
        live = Live(workspace=workspace, task=task)
        self._live[request.id] = live
        self._queue.add(request.id, workspace.metadata.owner)
        log.info("workspace started", workspace_id=request.id, build_base=task.build_base)
        self._publish(live)
        self._admit()
        return live.workspace

    def stop(self, workspace_id: str, policy: StopWorkspacePolicy) -> None:
        """End a workspace; does nothing if it is ending. What it runs is ended in the background.

        NORMALLY waits for those who read its output; the other policies do not.

        :raises WorkspaceUnknownError: if there is none of this id.
        """
        live = self.get(workspace_id)
        log.info("workspace is to stop", workspace_id=workspace_id, policy=policy.name)
        if policy != StopWorkspacePolicy.NORMALLY:
            live.lingering.cancel()
        if not live.workspace.ending:
            self._end(live, Stopped(aborted=policy == StopWorkspacePolicy.ABORT))

    def get(self, workspace_id: str) -> Live:
        """The workspace of this id.

        :raises WorkspaceUnknownError: if there is none.
        """
        try:
            return self._live[workspace_id]
        except KeyError:
            raise WorkspaceUnknownError(workspace_id) from None

    def status(self, workspace_id: str) -> WorkspaceStatus:
        """The status of one workspace.

        :raises WorkspaceUnknownError: if there is none of this id.
        """
        return status_of(self.get(workspace_id).workspace)

    def matching(self, wanted: MetadataFilter | None) -> list[WorkspaceStatus]:
        """The workspaces that have what is set in *wanted*."""
        found = [live.workspace for live in self._live.values() if matches(wanted, live.workspace.metadata)]
        self._reported(found)
        return [status_of(workspace) for workspace in found]

    @contextmanager
    def subscribe(self, wanted: MetadataFilter | None) -> Iterator[Mailbox]:
        """A mailbox for every change from now on, and for the builds of earlier runs that were interrupted."""
        interrupted = [live.workspace for live in self._live.values() if live.task is None]
        found = [workspace for workspace in interrupted if matches(wanted, workspace.metadata)]
        with self._subscriptions.subscribe(wanted, map(status_of, found)) as mailbox:
            self._reported(found)
            yield mailbox

    async def close(self) -> None:
        """End all builds, and return when nothing of them is left. They stay in the journal."""
        self._closed = True
        for live in list(self._live.values()):
            live.lingering.cancel()
            if not live.workspace.ending:
                self._end(live, SHUTDOWN)
        while self._running:
            self._none_running = anyio.Event()
            await self._none_running.wait()
        self._subscriptions.end()

    # --- the life of a workspace ---

    def _workspace_for(self, request: StartWorkspaceRequest) -> Workspace:
        given = WorkspaceMetadata() if request.metadata is None else request.metadata
        spec = StartWorkspaceSpec() if request.spec is None else request.spec
        return Workspace(
            workspace_id=request.id,
            metadata=WorkspaceMetadata(
                owner=given.owner,
                meta_id=given.meta_id,
                annotations=dict(given.annotations),
                team=given.team,
                project=given.project,
                started_at=datetime.fromtimestamp(self._clock(), UTC),
            ),
            spec=WorkspaceSpec(
                workspace_image=spec.workspace_image,
                headless=True,
                url=self._address_of(request.id),
                type=request.type,
                timeout=spec.timeout,
                ide_image=spec.ide_image,
                class_=spec.class_,
            ),
            owner_token=Secret(self._new_token()),
            version=self._journal.first_version,
        )

    def _admit(self) -> None:
        """Run what there is room for, and tell the others their places."""
        if self._closed:
            return
        for workspace_id in self._queue.admit():
            live = self._live[workspace_id]
            self._apply(live, Admitted())
            self._spawn(live)
        for place, workspace_id in enumerate(self._queue.order(), 1):
            self._apply(self._live[workspace_id], Queued(place))

    def _spawn(self, live: Live) -> None:
        self._running += 1
        self._tasks.spawn(self._run, live, name=f"build {live.workspace.workspace_id}")

    def _end(self, live: Live, outcome: Outcome) -> None:
        waiting = live.workspace.phase == WorkspacePhase.PENDING
        self._apply(live, Ended(outcome))
        live.scope.cancel()
        if waiting:
            self._queue.remove(live.workspace.workspace_id)
            self._spawn(live)  # only to clean up
            self._admit()

    async def _run(self, live: Live) -> None:
        workspace_id = live.workspace.workspace_id
        try:
            self._finish(live, await execute(live, self._runner, lambda event: self._apply(live, event)))
            self._queue.remove(workspace_id)
            self._admit()
            with live.lingering, anyio.move_on_after(self._settings.listeners_grace):
                await live.terminal.drained()
            self._apply(live, CleanedUp())
            del self._live[workspace_id]
            if live.workspace.outcome != SHUTDOWN:
                self._journal.remove(workspace_id)
        finally:
            self._running -= 1
            self._none_running.set()

    def _finish(self, live: Live, outcome: Outcome) -> None:
        """Close the terminal, then say that the build has ended: whoever hears that can read all of it."""
        outcome = live.workspace.outcome or outcome
        if not isinstance(outcome, Succeeded | TaskFailed):
            live.terminal.line(describe(outcome))
        live.terminal.close(exit_code(outcome))
        log.info(
            "build ended",
            build_id=live.workspace.workspace_id,
            outcome=type(outcome).__name__,
            reason=describe(outcome),
        )
        self._apply(live, Ended(outcome))

    def _apply(self, live: Live, event: Event) -> None:
        changed = advance(live.workspace, event)
        if changed is not live.workspace:
            live.workspace = changed
            self._publish(live)

    def _publish(self, live: Live) -> None:
        self._subscriptions.publish(status_of(live.workspace))

    # --- builds of earlier runs ---

    def _reported(self, found: list[Workspace]) -> None:
        """Forget those of *found* that are from earlier runs, when everybody had time to hear of them."""
        for workspace in found:
            if workspace.workspace_id in self._unreported:
                self._unreported.discard(workspace.workspace_id)
                self._tasks.spawn(self._forget_later, workspace.workspace_id, name="forget a build")

    async def _forget_later(self, workspace_id: str) -> None:
        self._journal.remove(workspace_id)
        await anyio.sleep(RETENTION)
        self._live.pop(workspace_id, None)
