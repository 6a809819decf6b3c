"""One workspace as a state machine: ``(phase, event) -> phase``, written as a table, and its contract's status.

Decides what happens to a workspace and how clients are told of it. It runs nothing and knows no clock.
A workspace goes PENDING, CREATING, INITIALIZING, RUNNING, STOPPING, STOPPED; it may leave out what is between
its present phase and STOPPING. Why it ended is known from STOPPING on, and the first reason stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.wsman import (
    AdmissionLevel,
    WorkspaceAuthentication,
    WorkspaceConditionBool,
    WorkspaceConditions,
    WorkspaceMetadata,
    WorkspacePhase,
    WorkspaceRuntimeInfo,
    WorkspaceSpec,
    WorkspaceStatus,
)

# --- why a workspace ended --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The workspace image is where it belongs."""


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The Dockerfile build ended with this exit status: what was to be built is at fault."""

    exit_status: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The build could not be done; *fault* is for its user."""

    fault: str


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The build was ended because it took longer than *limit*, a duration as people write it."""

    limit: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Somebody asked for the build's end; *aborted* if by the policy ABORT."""

    aborted: bool = False


Outcome = Succeeded | TaskFailed | Failed | TimedOut | Stopped

STOPPED_BY_REQUEST: Final = "build was stopped by request"
INTERRUPTED: Final = Failed("build was interrupted: the workspace manager was restarted")
"""What became of builds that a workspace manager which is gone has left behind."""


# --- what happens to it -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Queued:
    """It is the *place*-th to get a slot, counted from 1."""

    place: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """It has a slot: its folders are being made."""


@dataclass(frozen=True, slots=True)
class ContentAwaited:
    """Its content is being fetched."""


@dataclass(frozen=True, slots=True)
class Working:
    """Its content is there, and the build does *what*."""

    what: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The build has its outcome; what is left of it is being cleaned up."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """Nothing of it is left."""


Event = Queued | Admitted | ContentAwaited | Working | Ended | CleanedUp


class IllegalEventError(ImgbuilderError):
    """An event that can't happen in the phase a workspace is in: a bug of who reports it."""

    def __init__(self, phase: WorkspacePhase, event: object) -> None:
        super().__init__(f"a workspace that is {phase.name} can't see {type(event).__name__}")
        self.phase = phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """All that is known of one workspace.

    :ivar metadata: as the start request gave it, with the time of the start.
    :ivar spec: what its status tells of it, its address included.
    :ivar owner_token: what its supervisor wants to see.
    :ivar message: what it does, for people.
    :ivar version: grows with every change; where it starts is the caller's choice.
    :ivar outcome: known from STOPPING on.
    """

    workspace_id: str
    metadata: WorkspaceMetadata
    spec: WorkspaceSpec
    owner_token: Secret
    phase: WorkspacePhase = WorkspacePhase.PENDING
    message: str = ""
    version: int = 1
    outcome: Outcome | None = None

    @property
    def ending(self) -> bool:
        """Whether its outcome is known."""
        return self.outcome is not None


TABLE: Final[Mapping[tuple[WorkspacePhase, type[object]], WorkspacePhase]] = {
    (WorkspacePhase.PENDING, Queued): WorkspacePhase.PENDING,
    (WorkspacePhase.PENDING, Admitted): WorkspacePhase.CREATING,
    (WorkspacePhase.PENDING, Ended): WorkspacePhase.STOPPING,
    (WorkspacePhase.CREATING, ContentAwaited): WorkspacePhase.INITIALIZING,
    (WorkspacePhase.CREATING, Ended): WorkspacePhase.STOPPING,
    (WorkspacePhase.INITIALIZING, Working): WorkspacePhase.RUNNING,
    (WorkspacePhase.INITIALIZING, Ended): WorkspacePhase.STOPPING,
    (WorkspacePhase.RUNNING, Working): WorkspacePhase.RUNNING,
    (WorkspacePhase.RUNNING, Ended): WorkspacePhase.STOPPING,
    (WorkspacePhase.STOPPING, ContentAwaited): WorkspacePhase.STOPPING,  # told to stop, and not there yet
    (WorkspacePhase.STOPPING, Working): WorkspacePhase.STOPPING,
    (WorkspacePhase.STOPPING, Ended): WorkspacePhase.STOPPING,
    (WorkspacePhase.STOPPING, CleanedUp): WorkspacePhase.STOPPED,
}


def advance(workspace: Workspace, event: Event) -> Workspace:
    """What *event* makes of *workspace*: the same object if nothing, else one of a higher version.

    :raises IllegalEventError: if the table has no such pair.
    """
    try:
        phase = TABLE[workspace.phase, type(event)]
    except KeyError:
        raise IllegalEventError(workspace.phase, event) from None
    outcome = workspace.outcome or (event.outcome if isinstance(event, Ended) else None)
    message = describe(outcome) if outcome else _doing(event)
    if (phase, message, outcome) == (workspace.phase, workspace.message, workspace.outcome):
        return workspace
    return replace(
        workspace,
        phase=phase,
        message=message,
        outcome=outcome,
        version=workspace.version + 1,
    )


def describe(outcome: Outcome) -> str:
    """*outcome* as its user is told. The text of a failed task is part of the contract."""
    match outcome:
        case Succeeded():
            return "build succeeded"
        case TaskFailed(exit_status):
            return f"headless task failed: exit status {exit_status}"
        case Failed(fault):
            return fault
        case TimedOut(limit):
            return f"build was stopped: it took longer than {limit}"
        case Stopped():
            return STOPPED_BY_REQUEST


def exit_code(outcome: Outcome) -> int:
    """With what the task of a workspace ends, as its terminal tells it."""
    match outcome:
        case Succeeded():
            return 0
        case TaskFailed(exit_status):
            return exit_status
        case _:
            return 1


def status_of(workspace: Workspace) -> WorkspaceStatus:
    """*workspace* as the contract's message."""
    return WorkspaceStatus(
        id=workspace.workspace_id,
        metadata=workspace.metadata,
        spec=workspace.spec,
        phase=workspace.phase,
        conditions=_conditions(workspace),
        message=workspace.message,
        runtime=WorkspaceRuntimeInfo(node_name="standalone", pod_name=f"imagebuild-{workspace.workspace_id}"),
        auth=WorkspaceAuthentication(
            admission=AdmissionLevel.ADMIT_OWNER_ONLY,
            owner_token=workspace.owner_token.reveal(),
        ),
        status_version=workspace.version,
    )


def _doing(event: Event) -> str:
    match event:
        case Queued(place):
            return f"waiting for other builds to end: place {place} in the queue"
        case Admitted():
            return "preparing the build"
        case ContentAwaited():
            return "fetching the content"
        case Working(what):
            return what
        case _:
            return ""


def _conditions(workspace: Workspace) -> WorkspaceConditions:
    nothing_there = workspace.phase in (WorkspacePhase.PENDING, WorkspacePhase.STOPPED)
    conditions = WorkspaceConditions(
        deployed=WorkspaceConditionBool.FALSE if nothing_there else WorkspaceConditionBool.TRUE,
    )
    if workspace.outcome is None:
        return conditions
    text = describe(workspace.outcome)
    match workspace.outcome:
        case Succeeded():
            pass
        case TaskFailed():
            conditions.headless_task_failed = text
        case Failed():
            conditions.failed = text
        case TimedOut():
            conditions.failed = conditions.timeout = text
        case Stopped(aborted):
            conditions.failed = text
            conditions.stopped_by_request = WorkspaceConditionBool.TRUE
            if aborted:
                conditions.aborted = WorkspaceConditionBool.TRUE
    return conditions
