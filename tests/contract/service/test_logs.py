"""Logs over the wire: whose, from where, until when, and what is not in them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import pytest
from grpclib.const import Status

from imgbuilder.orchestrator import launching
from imgbuilder.pb.builder import BuildRequest, BuildResponse, LogsRequest
from imgbuilder.pb.wsman import WorkspacePhase
from tests.contract.service.client import Call, Client, dockerfile, reference, refusal, statuses
from tests.contract.service.conftest import Served, serving, unobserved
from tests.world.requests import start_request
from tests.world.scripts import LINES, Stage, failing, idle, succeeding
from tests.world.world import World

CONNECTING: Final = b"Connecting to log output ...\n"
CONNECTED: Final = b"Connected to log output ...\n"
FAILED: Final = (
    b"Build log listener failed. The image build is still running, but you won't see any log output.\n"
)
OUTPUT: Final = "".join(f"{line}\r\n" for line in LINES).encode()
NOT_FOUND: Final = (Status.NOT_FOUND, "build not found")


class Build:
    """A build that runs, and whose terminal is open; the test says what it prints."""

    def __init__(self, world: World, call: Call[Any], first: BuildResponse) -> None:
        assert first.info is not None
        self.id = first.info.build_id
        self.ref = first.ref
        self.base_ref = first.base_ref
        self._world = world
        self._call = call

    def write(self, data: bytes) -> None:
        """Print *data*."""
        self._world.supervisors.write(self.id, data)

    async def end(self, code: int = 0) -> None:
        """Leave the image, and end."""
        self._world.push(self.ref)
        self._world.supervisors.exit(self.id, code)
        self._world.manager.advance(self.id, WorkspacePhase.STOPPED)
        assert statuses(await self._call.rest())[-1] == "done_success"


@asynccontextmanager
async def building(world: World, client: Client, *, heard: bool = True) -> AsyncIterator[Build]:
    """A build that runs in the block.

    :param heard: whether to wait until the service listens to it.
    """
    world.script = idle
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build = Build(world, call, await call.next())
        world.manager.advance(build.id, WorkspacePhase.RUNNING)
        world.supervisors.open_terminal(build.id)
        if heard:
            await listened_to(world, build.id)
        yield build


async def listened_to(world: World, build_id: str) -> None:
    """Wait until somebody listens to the terminal of a build."""
    await world.supervisors.until(lambda: bool(world.supervisors.workspaces[build_id].listeners))


async def read_until(call: Call[Any], end: bytes, so_far: bytes = b"") -> bytes:
    """What a call brings until it *end*s so."""
    log = so_far
    while not log.endswith(end):
        log += (await call.next()).content
    return log


# --- whose log ------------------------------------------------------------------------------------------------


async def test_a_log_is_found_by_ref_by_id_or_by_both(world: World, client: Client) -> None:
    """The same log, while the build runs and after it ended."""
    async with building(world, client) as build:
        build.write(OUTPUT)
        for request in (
            LogsRequest(build_ref=build.ref),
            LogsRequest(build_id=build.id),
            LogsRequest(build_ref=build.ref, build_id=build.id),
        ):
            async with client.open(request) as call:
                assert await read_until(call, OUTPUT) == CONNECTING + CONNECTED + OUTPUT
        await build.end()
    whole = CONNECTING + CONNECTED + OUTPUT
    assert await client.log(build_ref=build.ref) == whole
    assert await client.log(build_id=build.id) == whole
    assert await client.log(build_ref=build.ref, build_id=build.id) == whole


async def test_what_does_not_fit_is_not_found(world: World, client: Client) -> None:
    """Nothing, something unknown, or a ref and an id of different builds."""
    other = world.workspace_ref("other")
    async with building(world, client) as build:
        for fields in (
            {},
            {"build_ref": other},
            {"build_id": "other"},
            {"build_ref": other, "build_id": build.id},
            {"build_ref": build.ref, "build_id": "other"},
            {"build_ref": build.base_ref},
        ):
            assert await refusal(client.log(**fields)) == NOT_FOUND


async def test_of_several_builds_of_an_image_the_newest_is_meant(world: World, client: Client) -> None:
    """The others are still there by their ids."""
    ids, ref = [], ""
    for words in ("first", "second"):
        world.script = succeeding([words], heard=True)
        responses = await client.build(dockerfile(), force_rebuild=True)
        assert responses[-1].info is not None
        ids.append(responses[-1].info.build_id)
        ref = responses[-1].ref
    assert b"second" in await client.log(build_ref=ref)
    assert b"first" in await client.log(build_id=ids[0])


async def test_a_log_is_forgotten_some_time_after_the_end(world: World) -> None:
    """After an hour by default."""
    world.script = succeeding(heard=True)
    async with serving(unobserved(world, logs={"retention": "1s"})) as served:
        ref = (await served.client.build(dockerfile()))[-1].ref
        assert OUTPUT in await served.client.log(build_ref=ref)
        with anyio.fail_after(20):
            while True:
                try:
                    assert await refusal(served.client.log(build_ref=ref)) == NOT_FOUND
                except pytest.fail.Exception:
                    continue
                return


# --- from where, until when -----------------------------------------------------------------------------------


async def test_a_reader_follows_live(world: World, client: Client) -> None:
    """What is printed arrives before the build ends, and the stream ends with OK when it has."""
    async with building(world, client) as build, client.open(LogsRequest(build_id=build.id)) as call:
        log = await read_until(call, CONNECTING + CONNECTED)
        for line in (b"one\n", b"two\n"):
            build.write(line)
            log = await read_until(call, line, log)
        await build.end()
        log += b"".join(response.content for response in await call.rest())
    assert log == CONNECTING + CONNECTED + b"one\ntwo\n"


async def test_a_reader_may_come_before_there_is_a_workspace(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workspace manager takes its time to start one."""
    monkeypatch.setattr(launching, "PATIENCE", 0.05)
    world.script = succeeding(heard=True)
    world.manager.faults.hang("StartWorkspace")
    async with client.open(BuildRequest(source=dockerfile())) as build:
        ref = (await build.next()).ref
        async with client.open(LogsRequest(build_ref=ref)) as call:
            await world.manager.wait_for_start()
            world.manager.faults.release()
            log = b"".join(response.content for response in await call.rest())
    assert log == CONNECTING + CONNECTED + OUTPUT


async def test_the_reader_of_a_build_that_is_not_started_is_let_go(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was known for a while; there will be nothing to read."""
    monkeypatch.setattr(launching, "PATIENCE", 0.05)
    world.manager.faults.fail("StartWorkspace", Status.UNAVAILABLE)
    world.manager.faults.fail("StartWorkspace", Status.INVALID_ARGUMENT, "no such image")
    async with client.open(BuildRequest(source=dockerfile())) as build:
        first = await build.next()
        async with client.open(LogsRequest(build_ref=first.ref)) as call:
            assert await refusal(build.rest()) == (Status.INTERNAL, "cannot start build: no such image")
            assert await call.rest() == []
    assert await refusal(client.log(build_ref=first.ref)) == NOT_FOUND
    assert await client.builds() == []


async def test_a_late_reader_gets_the_log_from_its_first_byte(world: World, client: Client) -> None:
    """More than the terminal of the workspace remembers, and more than is kept in memory; order and count are right."""
    output = random.Random(7).randbytes(1_500_000)
    async with building(world, client) as build:
        for start in range(0, len(output), 50_000):
            build.write(output[start : start + 50_000])
            await world.supervisors.drain(build.id)
        async with client.open(LogsRequest(build_id=build.id)) as call:
            early = await read_until(call, output[-100:])
        await build.end()
    assert early == CONNECTING + CONNECTED + output
    assert await client.log(build_id=build.id) == early


async def test_a_slow_reader_costs_others_nothing(world: World, client: Client) -> None:
    """One that reads nothing at all; in the end it gets everything, too."""
    output = random.Random(8).randbytes(3_000_000)
    async with building(world, client) as build, client.open(LogsRequest(build_id=build.id)) as slow:
        await slow.next()
        for start in range(0, len(output), 100_000):
            build.write(output[start : start + 100_000])
            await world.supervisors.drain(build.id)
        async with client.open(LogsRequest(build_id=build.id)) as fast:
            assert len(await read_until(fast, output[-100:])) == len(CONNECTING + CONNECTED + output)
        await build.end()
        rest = b"".join(response.content for response in await slow.rest())
    assert (CONNECTING + CONNECTED + output).endswith(rest)
    assert len(rest) >= len(output)


async def test_the_log_of_a_build_that_fails(world: World, client: Client) -> None:
    """It is complete as well."""
    world.script = failing(heard=True)
    end = (await client.build(dockerfile()))[-1]
    log = await client.log(build_ref=end.ref)
    assert log == CONNECTING + CONNECTED + f"{LINES[0]}\r\n{LINES[1]}\r\n".encode()


async def test_an_exit_code_ends_the_log(world: World, client: Client) -> None:
    """What a task's terminal says after that is not the task's."""
    async with building(world, client) as build:
        build.write(b"last words\n")
        await build.end(3)
    assert await client.log(build_id=build.id) == CONNECTING + CONNECTED + b"last words\n"


# --- a supervisor that has its troubles -----------------------------------------------------------------------


async def test_a_supervisor_that_is_not_up_yet_is_asked_again(world: World, client: Client) -> None:
    """Also while its task has no terminal. Each request shows the owner token."""
    world.script = idle
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build = Build(world, call, await call.next())
        supervisors = world.supervisors
        await supervisors.until(lambda: len(supervisors.requests) >= 1)
        supervisors.come_up(build.id)
        asked = len(supervisors.requests)
        await supervisors.until(lambda: len(supervisors.requests) > asked)
        supervisors.open_terminal(build.id)
        await listened_to(world, build.id)
        build.write(OUTPUT)
        token = world.manager.workspaces[build.id].owner_token
        await build.end()
    assert await client.log(build_id=build.id) == CONNECTING + CONNECTED + OUTPUT
    assert {request.headers["x-gitpod-owner-token"] for request in supervisors.requests} == {token}
    assert {request.path for request in supervisors.requests[:-1]} == {"/_supervisor/v1/status/tasks"}
    assert supervisors.requests[-1].path == "/_supervisor/v1/terminal/listen/1b2c3d"


async def test_a_slash_at_the_end_of_an_address_is_dropped(world: World, client: Client) -> None:
    """The supervisor is asked for the same paths; clients are told the address as it is."""
    world.manager.place = lambda build_id, token: f"{world.supervisors.add(build_id, token)}/"
    world.script = succeeding(heard=True)
    end = (await client.build(dockerfile()))[-1]
    assert OUTPUT in await client.log(build_ref=end.ref)
    assert not [request for request in world.supervisors.requests if "//" in request.path]
    assert end.info is not None
    assert end.info.log_info is not None
    assert end.info.log_info.url.endswith("/")


async def test_a_stream_that_breaks_is_taken_up_again(world: World, client: Client) -> None:
    """What the terminal repeats is not written twice."""
    async with building(world, client) as build:
        build.write(b"before\n")
        async with client.open(LogsRequest(build_id=build.id)) as call:
            await read_until(call, b"before\n")
        world.supervisors.break_streams(build.id)
        build.write(b"meanwhile\n")
        await world.supervisors.until(lambda: not world.supervisors.workspaces[build.id].listeners)
        await listened_to(world, build.id)
        build.write(b"after\n")
        await build.end()
    assert await client.log(build_id=build.id) == CONNECTING + CONNECTED + b"before\nmeanwhile\nafter\n"


async def test_what_is_no_output_is_skipped(world: World, client: Client) -> None:
    """Titles, what is no JSON, and what has another shape."""
    async with building(world, client) as build:
        build.write(b"one\n")
        world.supervisors.set_title(build.id, "bob")
        for line in (b"no JSON\n", b'{"result": 5}\n', b'{"result": {"data": 7}}\n', b"\n"):
            world.supervisors.send(build.id, line)
        build.write(b"two\n")
        await build.end()
    assert await client.log(build_id=build.id) == CONNECTING + CONNECTED + b"one\ntwo\n"


async def test_a_log_that_can_not_be_had(world: World, client: Client) -> None:
    """Its reader is told so, in the words of the contract; the build is not concerned."""
    world.script = idle
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build = Build(world, call, await call.next())
        await build.end()
    assert await client.log(build_id=build.id) == CONNECTING + FAILED


# --- what is not in it ----------------------------------------------------------------------------------------


def secret_words(build: Any) -> list[bytes]:
    """What must not be in the log of a build: its refs, and their repositories."""
    repositories = [build.ref.rpartition(":")[0], build.base_ref.partition("@")[0].rpartition(":")[0]]
    return [word.encode() for word in (build.ref, build.base_ref, *repositories)]


@pytest.mark.parametrize("censored", [True, False])
async def test_names_of_images_are_censored(world: World, client: Client, censored: bool) -> None:
    """Whatever the request says of it; also where they come in pieces, byte by byte."""
    async with building(world, client) as build:
        for word in secret_words(build):
            build.write(b"<" + word + b">")
            for byte in b"[" + word + b"]":
                build.write(bytes([byte]))
        await build.end()
    responses = await client.call(LogsRequest(build_id=build.id, censored=censored))
    log = b"".join(response.content for response in responses)
    assert log == CONNECTING + CONNECTED + b"<>[]" * 4


async def test_a_resolved_base_image_is_censored(world: World, client: Client) -> None:
    """Its repository without the digest, too; the host with its port is no tag."""
    ref = world.seed_base_image()
    host = world.registry.host

    async def script(stage: Stage) -> None:
        stage.advance(WorkspacePhase.RUNNING)
        await stage.heard()
        stage.write(f"FROM {host}/base as {host}/other\n")
        await succeeding([])(stage)

    world.script = script
    end = (await client.build(reference(ref)))[-1]
    log = await client.log(build_ref=end.ref)
    assert log == CONNECTING + CONNECTED + f"FROM  as {host}/other\n".encode()


async def test_builds_that_were_taken_over_are_censored(world: World, served: Served) -> None:
    """The words come from what the workspace manager says of them."""
    world.script = idle
    ref = world.workspace_ref("1")
    workspace = world.start(start_request("earlier", ref=ref, base_ref="registry.test/base@sha256:0"))
    world.supervisors.open_terminal(workspace.id)
    await listened_to(world, workspace.id)
    world.supervisors.write(
        workspace.id, f"<{ref}> <registry.test/base@sha256:0> <registry.test/base>".encode()
    )
    world.supervisors.exit(workspace.id, 0)
    world.manager.advance(workspace.id, WorkspacePhase.STOPPED, failed="failed")
    assert await served.client.log(build_ref=ref) == CONNECTING + CONNECTED + b"<> <> <>"


# --- how much is kept -----------------------------------------------------------------------------------------


async def test_of_a_very_long_log_the_middle_is_dropped(world: World) -> None:
    """With a line that says how much."""
    logs = {"maxSize": "64KiB", "memory": "4KiB"}
    async with serving(unobserved(world, logs=logs)) as served, building(world, served.client) as build:
        for number in range(4000):
            build.write(f"line {number:06} of a very long log\n".encode())
            if number % 100 == 0:
                await world.supervisors.drain(build.id)
        await build.end()
        log, notes = "", list[str]()
        # while the log is still moving to disk, a reader meets no note or two, or more than will be kept
        while len(notes) != 1 or len(log) > 75_000:
            log = (await served.client.log(build_id=build.id)).decode()
            notes = [line for line in log.splitlines() if line.startswith("[")]
    assert log.startswith((CONNECTING + CONNECTED).decode() + "line 000000")
    assert log.endswith("line 003999 of a very long log\n")
    note = notes[0]
    assert any(character.isdigit() for character in note)
    assert len(log) > 60_000


async def test_what_an_earlier_run_left_on_disk_is_removed(world: World) -> None:
    """And the folder is empty when the service has ended."""
    leftover = world.folder / "logs" / "run-of-earlier" / "log"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("of a process that was killed")
    world.script = succeeding(["x" * 100] * 100, heard=True)
    async with serving(unobserved(world, logs={"memory": "1KiB"})) as served:
        assert not leftover.exists()
        ref = (await served.client.build(dockerfile()))[-1].ref
        assert len(await served.client.log(build_ref=ref)) > 10_000
    assert not list((world.folder / "logs").iterdir())
