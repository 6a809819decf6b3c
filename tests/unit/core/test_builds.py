"""The state machine of one build."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.builds import (
    ENDED_WHILE_AWAY,
    NO_IMAGE,
    TABLE,
    Build,
    BuildState,
    Effect,
    IllegalObservationError,
    ImageFound,
    ImageMissing,
    ImageNotChecked,
    LogSource,
    Observation,
    StartRefused,
    TimeLimitReached,
    WorkspaceGone,
    WorkspaceSeen,
    WorkspaceStarted,
    observe,
    taken_over,
)
from imgbuilder.core.secrets import Secret

SOURCE = LogSource(url="http://workspace", owner_token=Secret("token"))
NEW = Build(build_id="b", ref="r", base_ref="base")


def seen(
    *,
    phase: str = "RUNNING",
    version: int = 1,
    failure: str = "",
    message: str = "",
    log_source: LogSource | None = None,
    started_at: int = 0,
) -> WorkspaceSeen:
    """A status of the workspace of `NEW`."""
    return WorkspaceSeen(
        build_id="b",
        ref="r",
        base_ref="base",
        version=version,
        phase=phase,
        ended=phase in ("STOPPING", "STOPPED"),
        stopped=phase == "STOPPED",
        failure=failure,
        message=message,
        started_at=started_at,
        log_source=log_source,
    )


def after(*observations: Observation) -> Build:
    """`NEW` after *observations*."""
    build = NEW
    for observation in observations:
        build = observe(build, observation).build
    return build


STATUSES = st.builds(
    seen,
    phase=st.sampled_from(
        ["UNKNOWN", "PENDING", "CREATING", "RUNNING", "INTERRUPTED", "STOPPING", "STOPPED"]
    ),
    version=st.integers(0, 6),
    failure=st.sampled_from(["", "", "headless task failed: exit status 1"]),
    message=st.sampled_from(["", "pulling"]),
    log_source=st.sampled_from([None, SOURCE]),
)
OBSERVATIONS: st.SearchStrategy[Observation] = st.one_of(
    STATUSES,
    st.builds(WorkspaceStarted, log_source=st.sampled_from([None, SOURCE])),
    st.builds(StartRefused, message=st.just("no"), unavailable=st.booleans()),
    st.just(WorkspaceGone()),
    st.just(ImageFound()),
    st.just(ImageMissing()),
    st.builds(ImageNotChecked, fault=st.just("registry down")),
    st.just(TimeLimitReached(limit=3600)),
)


def test_a_build_runs_once_its_workspace_was_started() -> None:
    """The answer to the start brings the address of the log."""
    build = after(WorkspaceStarted(log_source=SOURCE))
    assert build.state is BuildState.RUNNING
    assert build.log_source == SOURCE


def test_an_end_without_failure_asks_for_the_image() -> None:
    """Whether the build succeeded is not the workspace manager's to say."""
    transition = observe(after(WorkspaceStarted(log_source=SOURCE)), seen(phase="STOPPING"))
    assert transition.build.state is BuildState.CHECKING
    assert transition.effects == (Effect.CHECK_IMAGE,)


def test_the_image_is_asked_for_once() -> None:
    """STOPPING and STOPPED are one end."""
    build = after(seen(phase="STOPPING", version=1))
    transition = observe(build, seen(phase="STOPPED", version=2))
    assert transition.effects == ()
    assert transition.build.state is BuildState.CHECKING


@pytest.mark.parametrize(
    ("observation", "state", "message"),
    [
        (ImageFound(), BuildState.SUCCEEDED, ""),
        (ImageMissing(), BuildState.FAILED, NO_IMAGE),
        (
            ImageNotChecked(fault="registry down"),
            BuildState.FAILED,
            "cannot check if workspace image exists after the build: registry down",
        ),
    ],
)
def test_the_image_decides_after_an_end_without_failure(
    observation: Observation,
    state: BuildState,
    message: str,
) -> None:
    """Never success without an image."""
    build = after(seen(phase="STOPPED"), observation)
    assert (build.state, build.message) == (state, message)


def test_a_failure_is_passed_on_unchanged() -> None:
    """Clients read what the workspace manager says."""
    build = after(seen(phase="STOPPED", failure="headless task failed: exit status 2"))
    assert (build.state, build.message) == (BuildState.FAILED, "headless task failed: exit status 2")


def test_a_failure_that_is_told_late_still_counts() -> None:
    """STOPPING may come without the reason that STOPPED has."""
    build = after(seen(phase="STOPPING", version=1), seen(phase="STOPPED", version=2, failure="out of disk"))
    assert (build.state, build.message) == (BuildState.FAILED, "out of disk")


def test_a_build_that_vanished_is_decided_by_its_image() -> None:
    """It ended while nobody looked: the image tells how, and the message says so."""
    running = after(WorkspaceStarted(log_source=SOURCE))
    transition = observe(running, WorkspaceGone())
    assert transition.effects == (Effect.CHECK_IMAGE,)
    assert observe(transition.build, ImageFound()).build.state is BuildState.SUCCEEDED
    failed = observe(transition.build, ImageMissing()).build
    assert failed.message == f"{ENDED_WHILE_AWAY}: {NO_IMAGE}"


def test_an_older_status_never_overrides_a_newer_one() -> None:
    """Listings and streams overtake each other."""
    build = after(seen(version=5, message="new"))
    assert observe(build, seen(version=4, message="old", phase="STOPPED")).build is build


def test_statuses_without_version_are_taken_as_they_come() -> None:
    """A workspace manager that does not count versions is believed."""
    build = after(seen(version=0, message="a"), seen(version=0, message="b"))
    assert build.message == "b"


def test_an_unversioned_straggler_does_not_undo_the_end() -> None:
    """Once a workspace is stopping it does not run again."""
    build = after(seen(phase="STOPPING", version=0), seen(phase="RUNNING", version=0))
    assert build.state is BuildState.CHECKING


def test_a_refused_start_ends_without_state_for_clients() -> None:
    """They get an error instead."""
    build = after(StartRefused(message="no", unavailable=True))
    assert (build.state, build.message, build.unavailable) == (BuildState.NOT_STARTED, "no", True)


def test_a_refusal_does_not_count_once_the_workspace_was_seen() -> None:
    """It was started after all, by this replica or another."""
    assert after(seen(), StartRefused(message="no", unavailable=True)).state is BuildState.RUNNING


@pytest.mark.parametrize(
    ("limit", "told"),
    [(3600, "60 minutes"), (60, "1 minute"), (90, "90 seconds"), (1, "1 second"), (0.5, "0.5 seconds")],
)
def test_a_build_over_its_time_is_stopped(limit: float, told: str) -> None:
    """The client is told why."""
    transition = observe(after(seen()), TimeLimitReached(limit=limit))
    assert transition.build.state is BuildState.FAILED
    assert transition.build.message == f"build was stopped: it took longer than {told}"
    assert transition.effects == (Effect.STOP_WORKSPACE,)


def test_a_build_met_through_its_status_is_taken_over() -> None:
    """After a restart, and from other replicas."""
    transition = taken_over(seen(phase="RUNNING", log_source=SOURCE, started_at=42, message="m"))
    assert transition.build == replace(
        NEW,
        state=BuildState.RUNNING,
        log_source=SOURCE,
        started_at=42,
        message="m",
        workspace_phase="RUNNING",
        status_version=1,
    )
    assert taken_over(seen(phase="STOPPED")).effects == (Effect.CHECK_IMAGE,)


def test_a_status_without_token_does_not_take_the_token_away() -> None:
    """The answer to the start had it, and not every status repeats it."""
    without = LogSource(url="http://elsewhere", owner_token=Secret(""))
    build = after(WorkspaceStarted(log_source=SOURCE), seen(log_source=without))
    assert build.log_source == LogSource(url="http://elsewhere", owner_token=Secret("token"))
    assert after(seen(log_source=without), WorkspaceStarted(log_source=SOURCE)).log_source == SOURCE


def test_the_answer_to_a_start_counts_after_the_end_too() -> None:
    """It may be all there is to find the log with."""
    build = after(seen(phase="STOPPING"), WorkspaceStarted(log_source=SOURCE))
    assert (build.state, build.log_source) == (BuildState.CHECKING, SOURCE)


def test_the_time_limit_is_for_builds_that_go_on() -> None:
    """One that has ended is decided by its image."""
    ended = after(seen(phase="STOPPING"))
    assert observe(ended, TimeLimitReached(limit=3600)).build is ended


def test_an_impossible_observation_is_a_typed_error() -> None:
    """A bug is not swallowed."""
    with pytest.raises(IllegalObservationError, match="running can't observe ImageFound"):
        observe(after(seen()), ImageFound())


def test_every_pair_of_the_table_gives_a_legal_state() -> None:
    """And no ended state is in it: ended absorbs."""
    assert not {state for state, _ in TABLE if state.ended}


@given(st.lists(OBSERVATIONS, max_size=20))
def test_ended_absorbs_and_there_is_one_end(observations: list[Observation]) -> None:
    """Whatever is observed in whatever order: a legal state or a typed error, and one end at most."""
    build = NEW
    for observation in observations:
        before = build
        try:
            transition = observe(build, observation)
        except IllegalObservationError:
            assert (before.state, type(observation)) not in TABLE
            continue
        build = transition.build
        if before.state.ended:
            assert build is before
            assert transition.effects == ()


@given(st.lists(OBSERVATIONS, max_size=10), STATUSES)
def test_the_same_status_twice_changes_nothing(
    observations: list[Observation], status: WorkspaceSeen
) -> None:
    """Listing again is harmless."""
    build = NEW
    for observation in observations:
        try:
            build = observe(build, observation).build
        except IllegalObservationError:
            continue
    once = observe(build, status).build
    again = observe(once, status)
    assert again.build is once
    assert again.effects == ()
