"""One build as a state machine: ``(state, observation) -> (state, effects)``, written as a table.

Whatever is learned of a build arrives as an observation: an answer of the workspace manager, a status it
streams, the result of looking for the image. The table says what each means in each state; what has to be
done about it is returned as effects. A pair that is not in the table is a bug and raises
`IllegalObservationError`. A build that has ended stays as it is, whatever is observed later.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.secrets import Secret


class BuildState(enum.Enum):
    """Where a build stands."""

    STARTING = "starting"
    """The workspace manager is being asked for a workspace."""

    RUNNING = "running"
    """There is a workspace, and it has not ended."""

    CHECKING = "checking"
    """The workspace ended without a failure: whether it left an image is being looked up."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"

    NOT_STARTED = "not started"
    """The workspace manager gave no workspace: callers get an error instead of a build's end."""

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self in ENDED


ENDED: Final = frozenset({BuildState.SUCCEEDED, BuildState.FAILED, BuildState.NOT_STARTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSource:
    """Where a workspace's supervisor is, and what it wants to see."""

    url: str
    owner_token: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """All that is known of one build.

    :ivar ref: the workspace image it makes.
    :ivar base_ref: the image that one is made from.
    :ivar started_at: Unix time in seconds.
    :ivar workspace_phase: the workspace manager's name of the phase, e.g. ``PENDING``; empty before the first.
    :ivar log_source: known as soon as the workspace manager tells an address.
    :ivar status_version: of the newest workspace status that was taken in; 0 before the first.
    :ivar unavailable: whether a build that was not started may be asked for again at once.
    """

    build_id: str
    ref: str
    base_ref: str
    state: BuildState = BuildState.STARTING
    message: str = ""
    started_at: int = 0
    workspace_phase: str = ""
    log_source: LogSource | None = None
    status_version: int = 0
    vanished: bool = False
    unavailable: bool = False


# --- observations -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceStarted:
    """The workspace manager has started the workspace; *log_source* if it told an address."""

    log_source: LogSource | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRefused:
    """The workspace manager gave no workspace, for good."""

    message: str
    unavailable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceSeen:
    """A status of the workspace, streamed or listed.

    :ivar version: grows with each change of this workspace; 0 where the workspace manager does not count.
    :ivar ended: whether the phase is STOPPING or STOPPED.
    :ivar stopped: whether the phase is STOPPED: nothing of the workspace is left.
    :ivar failure: why the build failed, as the workspace manager says it; empty for none.
    """

    build_id: str
    ref: str
    base_ref: str
    version: int
    phase: str
    ended: bool
    stopped: bool
    failure: str
    message: str
    started_at: int
    log_source: LogSource | None


@dataclass(frozen=True, slots=True)
class WorkspaceGone:
    """The workspace was known and is listed no more: it ended while nobody was told."""


@dataclass(frozen=True, slots=True)
class ImageFound:
    """The workspace image exists."""


@dataclass(frozen=True, slots=True)
class ImageMissing:
    """The workspace image does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNotChecked:
    """Whether the workspace image exists can't be found out."""

    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimitReached:
    """The build took longer than a build may: *limit*, in seconds."""

    limit: float


Observation = (
    WorkspaceStarted
    | StartRefused
    | WorkspaceSeen
    | WorkspaceGone
    | ImageFound
    | ImageMissing
    | ImageNotChecked
    | TimeLimitReached
)


# --- effects ----------------------------------------------------------------------------------------------


class Effect(enum.Enum):
    """What has to be done because of an observation."""

    CHECK_IMAGE = "look up whether the workspace image exists"
    STOP_WORKSPACE = "ask the workspace manager to stop the workspace"


@dataclass(frozen=True, slots=True)
class Transition:
    """The build after an observation, and what to do about it. *build* is the same object if nothing changed."""

    build: Build
    effects: tuple[Effect, ...] = ()


class IllegalObservationError(ImgbuilderError):
    """An observation that can't happen in the state a build is in: a bug of the observer."""

    def __init__(self, state: BuildState, observation: object) -> None:
        super().__init__(f"a build that is {state.value} can't observe {type(observation).__name__}")
        self.state = state


NO_IMAGE: Final = "image build did not produce a workspace image"
ENDED_WHILE_AWAY: Final = "build ended while the workspace manager was away"


def observe(build: Build, observation: Observation) -> Transition:
    """What *observation* makes of *build*.

    :raises IllegalObservationError: if the table has no such pair.
    """
    if build.state.ended:
        return Transition(build)
    try:
        rule = TABLE[build.state, type(observation)]
    except KeyError:
        raise IllegalObservationError(build.state, observation) from None
    return rule(build, observation)


def taken_over(seen: WorkspaceSeen) -> Transition:
    """A build that is met first through a status of its workspace: started by a replica or an earlier run."""
    build = Build(
        build_id=seen.build_id,
        ref=seen.ref,
        base_ref=seen.base_ref,
        state=BuildState.RUNNING,
        started_at=seen.started_at,
    )
    return observe(build, seen)


def _started(build: Build, observation: WorkspaceStarted) -> Transition:
    source = _newest(observation.log_source, build.log_source)
    return Transition(_changed(build, state=BuildState.RUNNING, log_source=source))


def _started_after_its_end(build: Build, observation: WorkspaceStarted) -> Transition:
    # The answer to the start was overtaken by the end. It may be all there is to find the log with.
    return Transition(_changed(build, log_source=_newest(observation.log_source, build.log_source)))


def _refused(build: Build, observation: StartRefused) -> Transition:
    return Transition(
        _changed(
            build,
            state=BuildState.NOT_STARTED,
            message=observation.message,
            unavailable=observation.unavailable,
        ),
    )


def _refused_but_seen(build: Build, _: StartRefused) -> Transition:
    # Its workspace was seen, so it was started after all, by this replica or another: what is seen counts.
    return Transition(build)


def _seen(build: Build, seen: WorkspaceSeen) -> Transition:
    if 0 < seen.version < build.status_version:
        return Transition(build)
    known: dict[str, Any] = {
        "status_version": max(seen.version, build.status_version),
        "workspace_phase": seen.phase,
        "started_at": seen.started_at or build.started_at,
        "log_source": _newest(seen.log_source, build.log_source),
    }
    if not seen.ended:
        if build.state is BuildState.CHECKING:
            # Without versions, a late status of the time before the end: it does not undo the end.
            return Transition(build)
        return Transition(_changed(build, state=BuildState.RUNNING, message=seen.message, **known))
    if seen.failure:
        return Transition(_changed(build, state=BuildState.FAILED, message=seen.failure, **known))
    if build.state is BuildState.CHECKING:
        return Transition(_changed(build, **known))
    return Transition(
        _changed(build, state=BuildState.CHECKING, message=seen.message, **known),
        (Effect.CHECK_IMAGE,),
    )


def _gone(build: Build, _: WorkspaceGone) -> Transition:
    return Transition(_changed(build, state=BuildState.CHECKING, vanished=True), (Effect.CHECK_IMAGE,))


def _unchanged(build: Build, _: object) -> Transition:
    return Transition(build)


def _image_found(build: Build, _: ImageFound) -> Transition:
    return Transition(_changed(build, state=BuildState.SUCCEEDED))


def _image_missing(build: Build, _: ImageMissing) -> Transition:
    message = f"{ENDED_WHILE_AWAY}: {NO_IMAGE}" if build.vanished else NO_IMAGE
    return Transition(_changed(build, state=BuildState.FAILED, message=message))


def _image_not_checked(build: Build, observation: ImageNotChecked) -> Transition:
    message = f"cannot check if workspace image exists after the build: {observation.fault}"
    return Transition(_changed(build, state=BuildState.FAILED, message=message))


def _duration(seconds: float) -> str:
    """In whole minutes where that is exact."""
    number, unit = (seconds / 60, "minute") if seconds % 60 == 0 else (seconds, "second")
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def _time_limit(build: Build, observation: TimeLimitReached) -> Transition:
    message = f"build was stopped: it took longer than {_duration(observation.limit)}"
    return Transition(
        _changed(build, state=BuildState.FAILED, message=message),
        (Effect.STOP_WORKSPACE,),
    )


def _newest(told: LogSource | None, known: LogSource | None) -> LogSource | None:
    """What is *told* of the address now, with what was *known* of it before where that is left out."""
    if told is None or known is None:
        return told or known
    return told if told.owner_token else replace(told, owner_token=known.owner_token)


def _changed(build: Build, **values: Any) -> Build:
    """*build* with *values*, or *build* itself where it has them already, so that "changed" is ``is not``."""
    if all(getattr(build, name) == value for name, value in values.items()):
        return build
    return replace(build, **values)


TABLE: Final[Mapping[tuple[BuildState, type[Any]], Callable[[Build, Any], Transition]]] = {
    (BuildState.STARTING, WorkspaceStarted): _started,
    (BuildState.STARTING, StartRefused): _refused,
    (BuildState.STARTING, WorkspaceSeen): _seen,
    (BuildState.STARTING, TimeLimitReached): _time_limit,
    (BuildState.RUNNING, WorkspaceStarted): _started,
    (BuildState.RUNNING, StartRefused): _refused_but_seen,
    (BuildState.RUNNING, WorkspaceSeen): _seen,
    (BuildState.RUNNING, WorkspaceGone): _gone,
    (BuildState.RUNNING, TimeLimitReached): _time_limit,
    (BuildState.CHECKING, WorkspaceStarted): _started_after_its_end,
    (BuildState.CHECKING, StartRefused): _unchanged,
    (BuildState.CHECKING, WorkspaceSeen): _seen,
    (BuildState.CHECKING, WorkspaceGone): _unchanged,
    (BuildState.CHECKING, ImageFound): _image_found,
    (BuildState.CHECKING, ImageMissing): _image_missing,
    (BuildState.CHECKING, ImageNotChecked): _image_not_checked,
    (BuildState.CHECKING, TimeLimitReached): _unchanged,  # it has ended; the check has a limit of its own
}
