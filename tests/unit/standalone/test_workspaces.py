"""The state machine of a workspace, and what its status says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.secrets import Secret
from imgbuilder.core.workspace import seen
from imgbuilder.pb.wsman import (
    WorkspaceConditionBool,
    WorkspaceMetadata,
    WorkspacePhase,
    WorkspaceSpec,
    WorkspaceStatus,
)
from imgbuilder.standalone.workspaces import (
    STOPPED_BY_REQUEST,
    Admitted,
    CleanedUp,
    ContentAwaited,
    Ended,
    Event,
    Failed,
    IllegalEventError,
    Outcome,
    Queued,
    Stopped,
    Succeeded,
    TaskFailed,
    TimedOut,
    Working,
    Workspace,
    advance,
    exit_code,
    status_of,
)

OUTCOMES: list[Outcome] = [
    Succeeded(),
    TaskFailed(7),
    Failed("no engine"),
    TimedOut("1h0m0s"),
    Stopped(),
    Stopped(aborted=True),
]
EVENTS = st.one_of(
    st.builds(Queued, st.integers(1, 3)),
    st.just(Admitted()),
    st.just(ContentAwaited()),
    st.builds(Working, st.sampled_from(["building", "pushing"])),
    st.builds(Ended, st.sampled_from(OUTCOMES)),
    st.just(CleanedUp()),
)


def new() -> Workspace:
    """A workspace that nothing has happened to."""
    return Workspace(
        workspace_id="w",
        metadata=WorkspaceMetadata(
            owner="ann", meta_id="w", annotations={"ref": "r/w:1", "managed-by": "image-builder"}
        ),
        spec=WorkspaceSpec(url="http://127.0.0.1:1/workspace/w"),
        owner_token=Secret("token"),
        version=10,
    )


def after(*events: Event) -> Workspace:
    """A workspace that all of *events* have happened to."""
    workspace = new()
    for event in events:
        workspace = advance(workspace, event)
    return workspace


def ended(outcome: Outcome) -> WorkspaceStatus:
    """The status of a workspace that ended with *outcome* and was cleaned up."""
    return status_of(after(Admitted(), ContentAwaited(), Working("x"), Ended(outcome), CleanedUp()))


def test_a_build_goes_through_all_phases() -> None:
    """PENDING, CREATING, INITIALIZING, RUNNING, STOPPING, STOPPED, each with a message of its own."""
    workspace, phases, messages = new(), [], []
    for event in (
        Queued(2),
        Admitted(),
        ContentAwaited(),
        Working("building the Dockerfile"),
        Ended(Succeeded()),
        CleanedUp(),
    ):
        workspace = advance(workspace, event)
        phases.append(workspace.phase.name)
        messages.append(workspace.message)
    assert phases == ["PENDING", "CREATING", "INITIALIZING", "RUNNING", "STOPPING", "STOPPED"]
    assert messages == [
        "waiting for other builds to end: place 2 in the queue",
        "preparing the build",
        "fetching the content",
        "building the Dockerfile",
        "build succeeded",
        "build succeeded",
    ]


@given(st.lists(EVENTS, max_size=12))
def test_every_event_gives_a_later_state_or_a_typed_error(events: list[Event]) -> None:
    """Phases never go back, the version grows exactly with changes, and the first outcome stays."""
    workspace = new()
    for event in events:
        try:
            changed = advance(workspace, event)
        except IllegalEventError:
            continue
        assert changed.phase >= workspace.phase
        assert changed.version == workspace.version + (changed is not workspace)
        assert changed.ending == (changed.phase >= WorkspacePhase.STOPPING)
        if workspace.ending:
            assert changed.outcome == workspace.outcome
        workspace = changed


@given(st.lists(EVENTS, max_size=12))
def test_the_same_event_twice_changes_nothing(events: list[Event]) -> None:
    """What is reported again is no change, so nobody is told twice."""
    workspace = new()
    for event in events:
        try:
            workspace = advance(workspace, event)
            assert advance(workspace, event) is workspace
        except IllegalEventError:
            continue


def test_what_a_stopped_build_still_reports_does_not_bring_it_back() -> None:
    """A build that was told to stop may report a step before it ends."""
    stopped = after(Admitted(), Ended(Stopped()))
    assert advance(advance(stopped, ContentAwaited()), Working("x")) is stopped
    assert advance(stopped, Ended(Succeeded())) is stopped


def test_nothing_happens_to_a_workspace_that_is_stopped() -> None:
    """STOPPED is the end: whatever is reported then is a bug."""
    stopped = after(Ended(Succeeded()), CleanedUp())
    with pytest.raises(IllegalEventError, match="a workspace that is STOPPED can't see Ended"):
        advance(stopped, Ended(Succeeded()))


def test_a_failed_task_has_the_text_of_the_contract() -> None:
    """Clients match on how the exit status is told."""
    conditions = ended(TaskFailed(7)).conditions
    assert conditions is not None
    assert conditions.headless_task_failed == "headless task failed: exit status 7"
    assert not conditions.failed


@pytest.mark.parametrize(
    ("outcome", "failed", "timeout"),
    [
        (Succeeded(), "", ""),
        (Failed("no engine"), "no engine", ""),
        (TimedOut("1h0m0s"), *["build was stopped: it took longer than 1h0m0s"] * 2),
        (Stopped(), STOPPED_BY_REQUEST, ""),
    ],
)
def test_conditions_say_why_a_build_ended(outcome: Outcome, failed: str, timeout: str) -> None:
    """Trouble that is not the task's own is `failed`; success sets nothing."""
    conditions = ended(outcome).conditions
    assert conditions is not None
    assert (conditions.failed, conditions.timeout) == (failed, timeout)
    assert not conditions.headless_task_failed


@pytest.mark.parametrize("aborted", [False, True])
def test_a_request_to_stop_is_told_from_an_abort(aborted: bool) -> None:
    """Both are marked as wanted, and an abort as that as well."""
    conditions = ended(Stopped(aborted=aborted)).conditions
    assert conditions is not None
    assert conditions.stopped_by_request == WorkspaceConditionBool.TRUE
    assert (conditions.aborted == WorkspaceConditionBool.TRUE) == aborted


def test_a_workspace_is_deployed_while_it_has_something() -> None:
    """Neither a waiting workspace nor a stopped one has anything on the machine."""
    told = {
        workspace.phase.name: status_of(workspace).conditions.deployed  # type: ignore[union-attr]  # always set
        for workspace in (
            new(),
            after(Admitted()),
            after(Ended(Stopped())),
            after(Ended(Stopped()), CleanedUp()),
        )
    }
    assert told == {
        "PENDING": WorkspaceConditionBool.FALSE,
        "CREATING": WorkspaceConditionBool.TRUE,
        "STOPPING": WorkspaceConditionBool.TRUE,
        "STOPPED": WorkspaceConditionBool.FALSE,
    }


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_orchestrator_reads_the_end_as_it_is_meant(outcome: Outcome) -> None:
    """What the status says of failure and success is what the image builder makes of it."""
    understood = seen(ended(outcome))
    assert understood is not None
    assert understood.ended
    assert understood.stopped
    assert bool(understood.failure) == (outcome != Succeeded())


def test_exit_codes_fit_the_outcomes() -> None:
    """The terminal tells 0 for success, the task's own status, and 1 for all other trouble."""
    assert [exit_code(outcome) for outcome in OUTCOMES] == [0, 7, 1, 1, 1, 1]


def test_the_owner_token_is_in_the_status_and_not_in_the_repr() -> None:
    """Clients need it; logs do not."""
    status = status_of(new())
    assert status.auth is not None
    assert status.auth.owner_token == "token"
    assert "token'" not in repr(new())
