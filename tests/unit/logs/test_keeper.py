"""The logs of builds, from supervisors over real HTTP to readers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from imgbuilder.bus import Bus
from imgbuilder.core.backoff import Backoff
from imgbuilder.core.builds import Build, BuildState, LogSource
from imgbuilder.core.errors import BuildNotFoundError
from imgbuilder.core.secrets import Secret
from imgbuilder.orchestrator.logs import LogKeeper, LogSettings
from imgbuilder.orchestrator.logs.follower import CONNECTED, CONNECTING, FAILED
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.telemetry.metrics import Metrics
from imgbuilder.wsman.supervisor import SupervisorClient
from tests.unit.logs.conftest import settled
from tests.world.supervisor import Supervisors

TOKEN = "owner-token"
REF = "registry.test/workspace-images:0123"
BASE_REF = "docker.io/library/base:latest"
HEAD = CONNECTING + CONNECTED

MOST = 4
"""How many builds are followed unasked."""


class Setting:
    """A log keeper, supervisors, and what is between them: the states of the builds."""

    def __init__(self, keeper: LogKeeper, world: Supervisors, tasks: Tasks, metrics: Metrics) -> None:
        self.keeper = keeper
        self.world = world
        self.tasks = tasks
        self.metrics = metrics
        self.builds: dict[str, Build] = {}

    def change(self, build_id: str, state: BuildState, *, source: bool = True) -> None:
        """Tell the keeper of a build."""
        build = self.builds.get(build_id) or Build(build_id=build_id, ref=REF, base_ref=BASE_REF)
        address = LogSource(url=self.world.url(build_id), owner_token=Secret(TOKEN)) if source else None
        self.builds[build_id] = replace(build, state=state, log_source=address)
        self.keeper.build_changed(self.builds[build_id])

    def start(self, build_id: str, *, open_terminal: bool = True) -> None:
        """A build has a workspace, whose task has begun."""
        self.world.add(build_id, TOKEN)
        if open_terminal:
            self.world.open_terminal(build_id)
        self.change(build_id, BuildState.RUNNING)

    def end(self, build_id: str) -> None:
        """A build has ended."""
        self.change(build_id, BuildState.SUCCEEDED)

    async def listening(self, *build_ids: str) -> None:
        """Wait until somebody listens to each of the builds."""
        await self.world.until(lambda: all(self.world.workspaces[name].listeners for name in build_ids))

    async def read_until(self, build_id: str, text: bytes) -> bytes:
        """What a new reader gets until *text* has come."""
        read = b""
        async with self.keeper.read(build_id) as reader:
            while text not in read:
                read += await anext(reader)
        return read

    async def read_all(self, build_id: str) -> bytes:
        """What a new reader gets until the log is complete."""
        async with self.keeper.read(build_id) as reader:
            return b"".join([chunk async for chunk in reader])


@asynccontextmanager
async def setting(folder: Path, **settings: object) -> AsyncIterator[Setting]:
    """Everything, from entering to leaving."""
    chosen = replace(
        LogSettings(folder=folder, memory=2000, followed=MOST, grace=5.0, retry=Backoff(0.001, 1.5, 0.05)),
        **settings,  # type: ignore[arg-type]  # the test's
    )
    metrics = Metrics()
    keeper: Callable[[Tasks], LogKeeper] = lambda tasks: LogKeeper(  # noqa: E731  # short
        bus=Bus(), supervisor=SupervisorClient(), tasks=tasks, settings=chosen, metrics=metrics
    )
    async with Supervisors() as world, Tasks() as tasks, keeper(tasks) as logs:
        yield Setting(logs, world, tasks, metrics)


async def test_a_reader_gets_the_log_of_a_build_from_its_first_byte_to_its_end(tmp_path: Path) -> None:
    """The log grows with the output, and is complete when the build has ended."""
    async with setting(tmp_path) as it:
        it.start("b")
        await it.listening("b")
        it.world.write("b", b"one\r\n")
        assert await it.read_until("b", b"one") == HEAD + b"one\r\n"
        it.world.write("b", b"two\r\n")
        it.world.exit("b", 0)
        it.end("b")
        assert await it.read_all("b") == HEAD + b"one\r\ntwo\r\n"
        assert await it.read_all("b") == HEAD + b"one\r\ntwo\r\n"


async def test_a_log_is_not_complete_before_the_build_has_ended(tmp_path: Path) -> None:
    """The exit code ends the output; readers wait for the end of the build, whichever comes first."""
    async with setting(tmp_path) as it:
        it.start("b")
        await it.listening("b")
        async with it.keeper.read("b") as reader:
            it.world.exit("b", 0)
            read = b""
            while read != HEAD:
                read += await anext(reader)
            await it.world.until(lambda: not it.world.workspaces["b"].listeners)
            with anyio.move_on_after(0.01) as scope:
                await anext(reader)
            assert scope.cancelled_caught
            it.end("b")
            with pytest.raises(StopAsyncIteration):
                await anext(reader)


async def test_a_workspace_that_comes_up_slowly_is_asked_until_it_is_there(tmp_path: Path) -> None:
    """No workspace, no supervisor, no terminal: all of that is waited for."""
    async with setting(tmp_path) as it:
        it.change("b", BuildState.STARTING, source=False)
        it.change("b", BuildState.RUNNING)
        world = it.world
        await world.until(lambda: len(world.requests) > 1)  # not found
        world.add("b", TOKEN)
        seen = len(world.requests)
        await world.until(lambda: len(world.requests) > seen + 1)  # not now
        world.come_up("b")
        seen = len(world.requests)
        await world.until(lambda: len(world.requests) > seen + 1)  # no terminal
        world.open_terminal("b")
        world.write("b", b"early\n")
        assert await it.read_until("b", b"early") == HEAD + b"early\n"


async def test_breaks_leave_no_trace_in_the_log(tmp_path: Path) -> None:
    """Streams that are cut, end or fail, and a supervisor that is away: each byte is there once."""
    async with setting(tmp_path) as it:
        it.start("b")
        world, expected = it.world, b""
        for number in range(60):
            await it.listening("b")
            line = b"%04d " % number + b"x" * (number * 400) + b"\r\n"
            expected += line
            world.write("b", line)
            match number % 6:
                case 0:
                    world.break_streams("b")
                case 1:
                    world.end_streams("b")
                case 2:
                    world.fail("b", "gone")
                case 3:
                    await world.stop()
                    await world.start()
                case 4:
                    world.send("b", b'<html>\n{"result":\n{"result": {"data": "?"}}\n')
                case _:
                    pass
        await it.listening("b")
        world.exit("b", 1)
        it.end("b")
        assert await it.read_all("b") == HEAD + expected
        assert it.metrics.registry.get_sample_value("imgbuilder_log_skipped_lines_total") == 30


async def test_references_do_not_get_into_logs(tmp_path: Path) -> None:
    """Neither of a build that was started here, nor of one that was taken over."""
    async with setting(tmp_path) as it:
        it.start("b")
        await it.listening("b")
        for byte in f"pushing {REF} from {BASE_REF} to registry.test/workspace-images.\n".encode():
            it.world.write("b", bytes([byte]))
        it.world.exit("b", 0)
        it.end("b")
        assert await it.read_all("b") == HEAD + b"pushing  from  to .\n"


async def test_a_log_that_can_not_be_had_says_so(tmp_path: Path) -> None:
    """The build ends while its supervisor never answered, or nobody ever knew where it is."""
    async with setting(tmp_path) as it:
        it.start("b", open_terminal=False)
        await it.world.until(lambda: len(it.world.requests) > 1)
        it.end("b")
        assert await it.read_all("b") == CONNECTING + FAILED
        it.change("unknown", BuildState.FAILED, source=False)
        assert await it.read_all("unknown") == FAILED
        it.change("refused", BuildState.NOT_STARTED, source=False)
        assert await it.read_all("refused") == b""


async def test_a_build_that_is_unknown_or_forgotten_has_no_log(tmp_path: Path) -> None:
    """A reader that is there when a log is forgotten comes to an end."""
    async with setting(tmp_path) as it:
        with pytest.raises(BuildNotFoundError):
            it.keeper.read("b")
        it.start("b")
        await it.read_until("b", HEAD)
        async with it.keeper.read("b") as reader:
            it.keeper.forget("b")
            async for _ in reader:
                pass
        with pytest.raises(BuildNotFoundError):
            it.keeper.read("b")
        await it.world.until(lambda: not it.world.workspaces["b"].listeners)
        it.keeper.forget("b")


async def test_so_many_builds_are_followed_unasked_and_the_others_when_somebody_asks(tmp_path: Path) -> None:
    """A reader starts a follower; one that is done makes room for the next build."""
    async with setting(tmp_path) as it:
        names = [f"b{number}" for number in range(MOST + 3)]
        for name in names:
            it.start(name)
            it.world.write(name, name.encode())
        await it.listening(*names[:MOST])
        assert not any(it.world.workspaces[name].listeners for name in names[MOST:])
        assert await it.read_until(names[-1], b"b6") == HEAD + b"b6"
        assert not any(it.world.workspaces[name].listeners for name in names[MOST:-1])
        it.world.exit(names[0], 0)
        it.world.exit(names[1], 0)
        await it.listening(names[MOST])


async def test_builds_that_start_at_once_are_followed_in_turn(tmp_path: Path) -> None:
    """The first at once, the others when there is time; who asks does not wait."""
    names = [f"b{number}" for number in range(20)]
    async with setting(tmp_path, followed=100) as it:
        for name in names:
            it.start(name)
        assert it.keeper._following == 1
        it.keeper.read(names[-1])
        assert it.keeper._following == 2
        await it.listening(*names)
        assert it.keeper._following == len(names)


async def test_builds_that_ended_unfollowed_are_asked_once_in_their_turn(tmp_path: Path) -> None:
    """What their supervisors still know is kept; where that is nothing, the log says so."""
    async with setting(tmp_path, followed=1) as it:
        for name in ("a", "b", "c"):
            it.start(name)
        it.world.write("b", b"of b")
        it.world.exit("b", 0)
        it.world.remove("c")
        for name in ("b", "c"):
            it.end(name)
        await it.listening("a")
        assert await it.read_all("b") == HEAD + b"of b"
        it.world.exit("a", 0)
        assert await it.read_all("c") == CONNECTING + FAILED


async def test_slow_and_late_readers_get_what_the_fast_ones_got(tmp_path: Path) -> None:
    """Each reads at its own pace, from memory or from disk."""
    async with setting(tmp_path) as it:
        it.start("b")
        await it.listening("b")
        lines = [b"%06d " % number + b"y" * 90 + b"\r\n" for number in range(5000)]
        expected = HEAD + b"".join(lines)
        results: dict[str, bytes] = {}

        async def read(name: str, pause: float) -> None:
            async with it.keeper.read("b") as reader:
                chunks = []
                async for chunk in reader:
                    chunks.append(chunk)
                    await anyio.sleep(pause)
                results[name] = b"".join(chunks)

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(read, f"fast {number}", 0)
            group.start_soon(read, "slow", 0.01)
            for start in range(0, len(lines), 50):
                it.world.write("b", b"".join(lines[start : start + 50]))
                await it.world.drain("b")
                if start == 2500:
                    group.start_soon(read, "late", 0)
            it.world.exit("b", 0)
            it.end("b")
        results["after the end"] = await it.read_all("b")
        assert {name for name, result in results.items() if result != expected} == set()
        assert len(results) == 13


async def test_of_too_many_logs_the_oldest_go_from_disk(tmp_path: Path) -> None:
    """What is kept on disk in all is bounded; the newest logs stay."""
    async with setting(tmp_path, max_total=100_000) as it:
        for name in ("a", "b", "c"):
            it.start(name)
            await it.listening(name)
            it.world.write(name, name.encode() * 45_000)
            it.world.exit(name, 0)
            it.end(name)
            await it.read_all(name)
            await settled(it.tasks)
        full = len(HEAD) + 45_000
        assert await it.read_all("a") == b"\n[... %d bytes of output are left out here ...]\n" % full
        assert await it.read_all("b") == HEAD + b"b" * 45_000
        assert await it.read_all("c") == HEAD + b"c" * 45_000
        assert _sample(it.metrics, "imgbuilder_log_spool_bytes") == 2 * full


def _sample(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(name)


async def test_many_builds_at_once(tmp_path: Path) -> None:
    """Hundreds of builds, each with its reader, each with its own log."""
    async with setting(tmp_path, followed=100) as it:
        names = [f"b{number}" for number in range(300)]
        results: dict[str, bytes] = {}

        async def read(name: str) -> None:
            results[name] = await it.read_all(name)

        async with anyio.create_task_group() as group:
            for name in names:
                it.start(name)
                it.world.write(name, f"output of {name}\n".encode() * 100)
                group.start_soon(read, name)
            await it.listening(*names)
            for name in names:
                it.world.exit(name, 0)
                it.end(name)
        assert results == {name: HEAD + f"output of {name}\n".encode() * 100 for name in names}


async def test_nothing_is_left_when_the_keeper_is_left(tmp_path: Path) -> None:
    """Builds that still run are followed no longer, and the folder is empty."""
    async with setting(tmp_path) as it:
        it.start("b")
        await it.listening("b")
        it.world.write("b", b"x" * 10_000)
        await it.read_until("b", b"x" * 10_000)
    assert not _contents(tmp_path)


def _contents(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_changes_after_the_end_are_ignored(tmp_path: Path) -> None:
    """While the service is taken down, builds may still change."""
    async with setting(tmp_path) as it:
        pass
    it.change("b", BuildState.RUNNING)
    with pytest.raises(BuildNotFoundError):
        it.keeper.read("b")


async def test_without_a_folder_logs_are_kept_in_memory(tmp_path: Path) -> None:
    """The build goes on, and the end of its log can be read."""
    (tmp_path / "logs").write_bytes(b"")
    async with setting(tmp_path / "logs") as it:
        it.start("b")
        await it.listening("b")
        it.world.write("b", b"a" * 9000 + b"b" * 1000)
        it.world.exit("b", 0)
        it.end("b")
        await it.read_all("b")
        await settled(it.tasks)
        late = await it.read_all("b")
        assert b"bytes of output are left out here" in late
        assert late.endswith(b"b" * 1000)
