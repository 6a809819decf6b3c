"""Builds through the image builder's API: what succeeds, what fails, and what its user is told."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from imgbuilder.pb.builder import BuildRequest, BuildResponse, BuildSource, LogsRequest
from imgbuilder.pb.contentservice import SnapshotInitializer, WorkspaceInitializer
from imgbuilder.pb.wsman import StopWorkspacePolicy, StopWorkspaceRequest, WorkspaceManagerStub
from imgbuilder.runtime.grpc.channel import open_channel
from tests.contract.service.client import Client, dockerfile, reference, statuses
from tests.e2e.engines.traces import gone, mounts, processes_with
from tests.e2e.standalone.conftest import Project
from tests.e2e.standalone.images import digest_of, pulled
from tests.e2e.standalone.programs import StandaloneProcess


async def build(client: Client, source: BuildSource) -> tuple[BuildResponse, str]:
    """Build *source*; how it ended, and its log."""
    responses = await client.build(source, triggered_by="tester")
    last = responses[-1]
    assert last.info is not None
    return last, (await client.log(build_id=last.info.build_id)).decode()


async def test_from_a_reference_the_image_is_the_same_under_its_new_name(
    client: Client, standalone: StandaloneProcess, base: str
) -> None:
    """Nothing is built: the base image is there as the workspace image, and asked for again it exists."""
    responses = await client.build(reference(base), triggered_by="tester")
    assert statuses(responses)[0] == "running"
    assert statuses(responses)[-1] == "done_success"
    ref = responses[-1].ref
    assert ref.startswith(f"{standalone.registry}/workspace-images:")
    assert digest_of(ref) == digest_of(base)
    assert statuses(await client.build(reference(base), triggered_by="tester")) == ["done_success"]


async def test_a_dockerfile_is_built_as_it_says(client: Client, project: Project, tmp_path: Path) -> None:
    """Steps are run, files copied, metadata kept; the log has what the steps said, from the first byte."""
    source = project.commit(
        "FROM BASE\nCOPY greeting.txt /srv/greeting\nRUN echo step-$((40+2)) && tr a-z A-Z < /srv/greeting > /loud\n"
        'ENV COLOUR=green\nCMD ["sh", "/srv/run"]\n',
        **{"greeting.txt": "hello"},
    )
    last, log = await build(client, source)
    assert last.status.name == "done_success", log
    assert log.startswith("Connecting to log output ...\nConnected to log output ...\n")
    assert "step-42" in log
    assert "making the workspace image" in log
    assert last.ref not in log
    files, config = pulled(last.ref, tmp_path / "image")
    assert files["/loud"] == b"HELLO"
    assert files["/srv/greeting"] == b"hello"
    assert "COLOUR=green" in config["config"]["Env"]
    assert config["config"]["Cmd"] == ["sh", "/srv/run"]
    assert statuses(await client.build(source, triggered_by="tester")) == ["done_success"]


async def test_a_step_that_fails_ends_the_build_with_its_status(client: Client, project: Project) -> None:
    """The message is that of the contract, and the log has what the step said before it failed."""
    source = project.commit("FROM BASE\nRUN echo about to-$((1+1)) fail && exit 7\n")
    last, log = await build(client, source)
    assert last.status.name == "done_failure"
    assert last.message == "headless task failed: exit status 7"
    assert "about to-2 fail" in log


async def test_what_is_missing_is_named(client: Client, project: Project) -> None:
    """Dockerfile, context, revision, repository: each failure says what to mend."""
    revision = project.repository.commit(readme="x")
    cases = {
        "Dockerfile not found: /workspace/Dockerfile": project.source(revision),
        "build context not found: /workspace/sub": project.source(revision, path="readme", context="sub"),
        "0123456789": project.source("0123456789" * 4),
    }
    for words, source in cases.items():
        last, _ = await build(client, source)
        assert last.status.name == "done_failure"
        assert words in last.message


async def test_a_dockerfile_may_not_read_the_machine(client: Client, project: Project) -> None:
    """A link that leads out of the clone is refused, before anything is built."""
    (project.repository.path / "Dockerfile").symlink_to("/etc/passwd")
    last, log = await build(client, project.source(project.repository.commit()))
    assert last.message == "/workspace/Dockerfile: leads out of the workspace"
    assert "root:" not in log


async def test_a_cancelled_build_leaves_nothing(
    client: Client, standalone: StandaloneProcess, project: Project
) -> None:
    """Stopped in the middle of a step, it fails with that reason; its processes, mounts and files are gone."""
    source = project.commit("FROM BASE\nRUN echo sleeping-$((1+0)) && exec sleep 3217\n")
    async with client.open(BuildRequest(source=source, triggered_by="tester")) as call:
        first = await call.next()
        build_id = first.info.build_id
        async with client.open(LogsRequest(build_id=build_id)) as log:
            said = b""
            with anyio.fail_after(20):
                while b"sleeping-1" not in said:
                    said += (await log.next()).content
        assert processes_with("sleep 3217")
        channel = open_channel("127.0.0.1", standalone.port("workspaceManager"))
        request = StopWorkspaceRequest(id=build_id, policy=StopWorkspacePolicy.NORMALLY)
        await WorkspaceManagerStub(channel).stop_workspace(request)
        channel.close()
        last = (await call.rest())[-1]
    assert last.status.name == "done_failure"
    assert last.message == "build was stopped by request"
    await gone("sleep 3217")
    with anyio.fail_after(20):
        while (standalone.data_dir / "scratch" / build_id).exists():  # noqa: ASYNC110  # nobody tells
            await anyio.sleep(0.02)
    assert not mounts(standalone.data_dir)


async def test_builds_run_at_once_and_others_wait(client: Client, project: Project) -> None:
    """Two steps that wait for one another's file can only end if both run; equal requests are one build."""
    meeting = "FROM BASE\nRUN echo {name} && sleep 1 && echo {name} done\n"
    sources = [project.commit(meeting.format(name=name)) for name in ("one", "two", "three")]
    ends: dict[int, list[BuildResponse]] = {}

    async def run(number: int, source: BuildSource) -> None:
        ends[number] = await client.build(source, triggered_by=f"user-{number % 2}")

    async with anyio.create_task_group() as group:
        for number, source in enumerate([*sources, *sources, *sources]):
            group.start_soon(run, number, source)
        with anyio.fail_after(20):
            while len(await client.builds()) < len(sources):  # noqa: ASYNC110  # it tells only those who build
                await anyio.sleep(0.02)
    assert {responses[-1].status.name for responses in ends.values()} == {"done_success"}
    ids = {responses[-1].info.build_id for responses in ends.values() if responses[-1].info}
    assert len(ids) == len(sources)
    messages = {response.message for responses in ends.values() for response in responses}
    assert any("place 1 in the queue" in message for message in messages)


@pytest.mark.parametrize("lines", [20_000])
async def test_no_byte_of_a_log_is_lost(client: Client, project: Project, lines: int) -> None:
    """Much output, written fast and right before the end, arrives whole and in order."""
    source = project.commit(f"FROM BASE\nRUN seq 1 {lines} | sed 's/.*/line & of the output/'\n")
    last, log = await build(client, source)
    assert last.status.name == "done_success", last.message
    told = [line for line in log.splitlines() if line.startswith("line ") and line.endswith(" of the output")]
    assert told == [f"line {number} of the output" for number in range(1, lines + 1)]


async def test_initializers_that_are_not_git_are_refused(client: Client, project: Project) -> None:
    """Of a Dockerfile source only git repositories have a name; the others are refused before they run."""
    source = dockerfile(source=WorkspaceInitializer(snapshot=SnapshotInitializer(snapshot="x")))
    with pytest.raises(Exception, match="unsupported context initializer"):
        await client.build(source)
