"""The life of workspaces: begun, queued, ended in every way, told to subscribers, and forgotten."""

from __future__ import annotations

import errno
from pathlib import Path

import anyio
import pytest

from imgbuilder.core.errors import ImgbuilderError, InvalidInputError
from imgbuilder.pb.wsman import (
    MetadataFilter,
    StopWorkspacePolicy,
    WorkspacePhase,
    WorkspaceStatus,
    WorkspaceType,
)
from imgbuilder.standalone.engines.protocol import BuildFailedError, EngineError
from imgbuilder.standalone.live import (
    ManagerClosedError,
    WorkspaceKnownError,
    WorkspaceUnknownError,
)
from imgbuilder.standalone.manager import RETENTION, SHUTDOWN
from imgbuilder.standalone.subscriptions import Mailbox
from imgbuilder.standalone.workspaces import INTERRUPTED
from tests.unit.standalone.requests import build_request, with_variable
from tests.unit.standalone.runners import NOW, managing

pytestmark = pytest.mark.looptime


async def until(mailbox: Mailbox, workspace_id: str, phase: WorkspacePhase) -> WorkspaceStatus:
    """The status in which a workspace is first told to be in *phase*."""
    with anyio.fail_after(100):
        while True:
            status = await mailbox.receive()
            assert status is not None
            if status.id == workspace_id and status.phase == phase:
                return status


def journaled(folder: Path) -> set[str]:
    """The builds that are kept for the next run."""
    return {file.stem for file in folder.glob("*.build")}


def failure(status: WorkspaceStatus) -> str:
    """Why a workspace failed, as its conditions say."""
    assert status.conditions is not None
    return status.conditions.failed or status.conditions.headless_task_failed


async def test_a_build_is_told_from_its_start_to_its_end(tmp_path: Path) -> None:
    """A subscriber gets every phase once, in growing versions; then the workspace is gone."""
    async with managing(tmp_path) as (manager, script):
        with manager.subscribe(None) as mailbox:
            workspace = manager.start(build_request("w"))
            assert workspace.spec.url == "http://127.0.0.1:1/workspace/w"
            assert workspace.owner_token.reveal() == "token-1"
            build = await script.begun("w")
            build.work()
            build.end()
            told: list[WorkspaceStatus] = []
            while not told or told[-1].phase != WorkspacePhase.STOPPED:
                status = await mailbox.receive()
                assert status is not None
                told.append(status)
    assert [status.phase.name for status in told] == [
        "PENDING",
        "CREATING",
        "INITIALIZING",
        "RUNNING",
        "STOPPING",
        "STOPPED",
    ]
    versions = [status.status_version for status in told]
    assert versions == sorted(set(versions))
    assert not failure(told[-1])
    metadata = told[0].metadata
    assert metadata is not None
    assert metadata.started_at is not None
    assert metadata.started_at.timestamp() == NOW
    assert metadata.annotations["managed-by"] == "image-builder"
    with pytest.raises(WorkspaceUnknownError):
        manager.status("w")
    assert not journaled(tmp_path)


async def test_a_known_id_is_refused_until_its_workspace_is_gone(tmp_path: Path) -> None:
    """An id is one workspace, also while that is ending."""
    async with managing(tmp_path) as (manager, script):
        with manager.subscribe(None) as mailbox:
            manager.start(build_request("w"))
            with pytest.raises(WorkspaceKnownError):
                manager.start(build_request("w"))
            (await script.begun("w")).end()
            await until(mailbox, "w", WorkspacePhase.STOPPING)
            with pytest.raises(WorkspaceKnownError):
                manager.start(build_request("w"))
            await until(mailbox, "w", WorkspacePhase.STOPPED)
            manager.start(build_request("w"))


@pytest.mark.parametrize("kind", [WorkspaceType.REGULAR, WorkspaceType.PREBUILD])
async def test_only_image_builds_are_run(tmp_path: Path, kind: WorkspaceType) -> None:
    """Other workspaces are refused with the field's name."""
    request = build_request()
    request.type = kind
    async with managing(tmp_path) as (manager, _):
        with pytest.raises(InvalidInputError, match="type"):
            manager.start(request)


@pytest.mark.parametrize("workspace_id", ["", "../x", "a/b", "-x", "x" * 129, "ä"])
async def test_ids_are_safe_for_paths(tmp_path: Path, workspace_id: str) -> None:
    """An id becomes part of folders and addresses."""
    async with managing(tmp_path) as (manager, _):
        with pytest.raises(InvalidInputError, match="id"):
            manager.start(build_request(workspace_id))


async def test_a_request_that_can_not_be_done_starts_nothing(tmp_path: Path) -> None:
    """What is wrong with the variables is said at once."""
    async with managing(tmp_path) as (manager, _):
        request = with_variable(build_request(), "WORKSPACEKIT_BOBPROXY_TARGETREF", None)
        with pytest.raises(InvalidInputError):
            manager.start(request)
        assert not manager.matching(None)
        assert not journaled(tmp_path)


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (BuildFailedError(7, "RUN false"), "headless task failed: exit status 7", 7),
        (EngineError("no space left"), "no space left", 1),
        (ImgbuilderError("clone refused"), "clone refused", 1),
        (OSError(errno.ENOSPC, "x"), "no space left on the disk of the workspace manager", 1),
        (OSError(errno.EIO, "I/O error"), "the workspace manager's machine is at fault: I/O error", 1),
        (RuntimeError("b0g"), "internal error of the workspace manager; its log says more", 1),
    ],
)
async def test_every_failure_ends_that_build_and_says_why(
    tmp_path: Path, error: Exception, text: str, code: int
) -> None:
    """Whatever goes wrong with a build is told to its user, in status and terminal; another one goes on."""
    async with managing(tmp_path) as (manager, script):
        with manager.subscribe(None) as mailbox:
            manager.start(build_request("bad"))
            manager.start(build_request("good"))
            bad, good = await script.begun("bad"), await script.begun("good")
            bad.work()
            bad.end(error)
            assert failure(await until(mailbox, "bad", WorkspacePhase.STOPPING)) == text
            assert bad.terminal.exit_code == code
            good.end()
            assert not failure(await until(mailbox, "good", WorkspacePhase.STOPPED))
    if code == 1:
        assert bad.terminal.read(0).decode().endswith(f"{text}\n")


async def test_a_build_has_a_time_limit(tmp_path: Path) -> None:
    """Its time is counted from when it may run; then it is ended, and fails with that reason."""
    async with managing(tmp_path) as (manager, script):
        with manager.subscribe(None) as mailbox:
            request = build_request("w")
            assert request.spec is not None
            request.spec.timeout = "90s"
            started = anyio.current_time()
            manager.start(request)
            build = await script.begun("w")
            status = await until(mailbox, "w", WorkspacePhase.STOPPING)
    assert build.cancelled
    assert anyio.current_time() - started >= 90
    assert failure(status) == "build was stopped: it took longer than 90s"


@pytest.mark.parametrize("policy", list(StopWorkspacePolicy))
async def test_stopping_ends_what_runs(tmp_path: Path, policy: StopWorkspacePolicy) -> None:
    """It is STOPPING at once, and STOPPED when nothing of the build is left."""
    async with managing(tmp_path) as (manager, script):
        script.tidying = 3.0
        with manager.subscribe(None) as mailbox:
            manager.start(build_request("w"))
            build = await script.begun("w")
            manager.stop("w", policy)
            status = await until(mailbox, "w", WorkspacePhase.STOPPING)
            assert not build.tidied.is_set()
            manager.stop("w", policy)
            await until(mailbox, "w", WorkspacePhase.STOPPED)
            assert build.tidied.is_set()
    assert build.cancelled
    assert failure(status) == "build was stopped by request"
    assert build.terminal.exit_code == 1
    with pytest.raises(WorkspaceUnknownError):
        manager.stop("w", policy)


async def test_builds_beyond_the_limit_wait_and_know_their_place(tmp_path: Path) -> None:
    """The message tells the place; it is told anew whenever it changes."""
    async with managing(tmp_path, concurrency=1) as (manager, script):
        for name in ("one", "two", "three"):
            manager.start(build_request(name))
        assert [status.message for status in manager.matching(None)][1:] == [
            "waiting for other builds to end: place 1 in the queue",
            "waiting for other builds to end: place 2 in the queue",
        ]
        with manager.subscribe(None) as mailbox:
            (await script.begun("one")).end()
            await script.begun("two")
            status = await until(mailbox, "three", WorkspacePhase.PENDING)
        assert status.message == "waiting for other builds to end: place 1 in the queue"
        assert "three" not in script.builds


async def test_a_waiting_build_can_be_stopped(tmp_path: Path) -> None:
    """It never runs, those behind it move up, and its terminal is closed."""
    async with managing(tmp_path, concurrency=1) as (manager, script):
        with manager.subscribe(None) as mailbox:
            for name in ("one", "two", "three"):
                manager.start(build_request(name))
            terminal = manager.get("two").terminal
            manager.stop("two", StopWorkspacePolicy.NORMALLY)
            assert manager.status("three").message == "waiting for other builds to end: place 1 in the queue"
            await until(mailbox, "two", WorkspacePhase.STOPPED)
            assert terminal.exit_code == 1
            (await script.begun("one")).end()
            await script.begun("three")
            assert "two" not in script.builds


async def test_a_slot_is_free_when_the_build_has_ended(tmp_path: Path) -> None:
    """The next one does not wait for those who read the output of the last one."""
    async with managing(tmp_path, concurrency=1) as (manager, script):
        manager.start(build_request("one"))
        manager.start(build_request("two"))
        with (await script.begun("one")).terminal.listen():
            script.builds["one"].end()
            await script.begun("two")
            assert manager.status("one").phase == WorkspacePhase.STOPPING


async def test_the_output_waits_for_somebody_to_fetch_it(tmp_path: Path) -> None:
    """A build that ends before anybody listened is known a while longer, but not for ever."""
    async with managing(tmp_path) as (manager, script):
        with manager.subscribe(None) as mailbox:
            manager.start(build_request("w"))
            build = await script.begun("w")
            build.terminal.write(b"output")
            build.end()
            await until(mailbox, "w", WorkspacePhase.STOPPING)
            ended = anyio.current_time()
            await anyio.sleep(2)
            with manager.get("w").terminal.listen() as listener:
                assert [piece async for piece in listener] == [b"output"]
                build.terminal.finished(listener)
            await until(mailbox, "w", WorkspacePhase.STOPPED)
            assert anyio.current_time() - ended == pytest.approx(2)
            manager.start(build_request("unheard"))
            (await script.begun("unheard")).end()
            await until(mailbox, "unheard", WorkspacePhase.STOPPED)
            assert anyio.current_time() - ended == pytest.approx(7)


async def test_filters_choose_by_owner_id_and_annotations(tmp_path: Path) -> None:
    """All that is set must match."""
    async with managing(tmp_path) as (manager, _):
        manager.start(build_request("a", owner="ann", target="r.example/x:1"))
        manager.start(build_request("b", owner="bob", target="r.example/x:2"))

        def found(**wanted: object) -> list[str]:
            return [status.id for status in manager.matching(MetadataFilter(**wanted))]  # type: ignore[arg-type]  # of several types

        assert found() == ["a", "b"]
        assert found(owner="bob") == ["b"]
        assert found(meta_id="a") == ["a"]
        assert found(annotations={"ref": "r.example/x:2"}) == ["b"]
        assert found(owner="ann", annotations={"ref": "r.example/x:2"}) == []
        with manager.subscribe(MetadataFilter(owner="bob")) as mailbox:
            manager.stop("a", StopWorkspacePolicy.NORMALLY)
            manager.stop("b", StopWorkspacePolicy.NORMALLY)
            status = await mailbox.receive()
            assert status is not None
            assert status.id == "b"


async def test_closing_ends_everything_and_says_so(tmp_path: Path) -> None:
    """Running and waiting builds fail; they stay in the journal for the next run to report."""
    async with managing(tmp_path, concurrency=1) as (manager, script):
        with manager.subscribe(None) as mailbox:
            manager.start(build_request("running"))
            manager.start(build_request("waiting"))
            build = await script.begun("running")
            await manager.close()
            assert build.cancelled
            ends = {}
            while (status := await mailbox.receive()) is not None:
                ends[status.id] = (status.phase, failure(status))
        stopped = (WorkspacePhase.STOPPED, SHUTDOWN.fault)
        assert ends == {"running": stopped, "waiting": stopped}
        with pytest.raises(ManagerClosedError):
            manager.start(build_request("late"))
    assert journaled(tmp_path) == {"running", "waiting"}


async def test_builds_of_a_killed_run_are_reported_as_failed_and_then_forgotten(tmp_path: Path) -> None:
    """Both who lists and who subscribes learns of them, in newer versions; then they are gone for good."""
    async with managing(tmp_path) as (manager, _):
        told = manager.start(build_request("w"))
        await manager.close()
    async with managing(tmp_path, run=2) as (manager, _):
        with pytest.raises(WorkspaceKnownError):
            manager.start(build_request("w"))
        await anyio.sleep(10 * RETENTION)
        with manager.subscribe(None) as mailbox:
            status = await mailbox.receive()
        assert status is not None
        assert status.phase == WorkspacePhase.STOPPED
        assert failure(status) == INTERRUPTED.fault
        assert status.status_version > told.version + 1000
        assert [listed.id for listed in manager.matching(None)] == ["w"]
        with manager.subscribe(MetadataFilter(owner="somebody else")) as other:
            with anyio.move_on_after(1) as nothing:
                await other.receive()
            assert nothing.cancelled_caught
        await anyio.sleep(RETENTION)
        assert not manager.matching(None)
        manager.start(build_request("w"))
        await manager.close()
    async with managing(tmp_path, run=3) as (manager, _):
        assert [listed.id for listed in manager.matching(None)] == ["w"]
