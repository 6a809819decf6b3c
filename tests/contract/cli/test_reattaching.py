"""Watching a build over connections that break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace

import anyio
import pytest

from imgbuilder.client.absence import FAILED
from imgbuilder.client.building import Patience, follow_build, output_of
from imgbuilder.client.connection import Connection, Replies
from imgbuilder.client.endpoints import Endpoint, parse_host
from imgbuilder.client.errors import ConnectionLostError, OutcomeUnknownError
from imgbuilder.client.imagebuilder import ImageBuilderClient
from imgbuilder.client.loglines import LogLines
from imgbuilder.pb.builder import BuildRequest, BuildResponse, BuildStatus, LogsResponse
from imgbuilder.pb.wsman import WorkspacePhase
from tests.contract.service.client import reference
from tests.contract.service.conftest import Served
from tests.world.proxy import TcpProxy
from tests.world.scripts import FAILURE, LINES, Script, Stage, succeeding
from tests.world.world import World

NEWS = "nearly done"
LOG = ["Connecting to log output ...", "Connected to log output ..."]


class Watcher:
    """Remembers what it is told, and can be waited with."""

    def __init__(self) -> None:
        self.responses: list[BuildResponse] = []
        self.lines: list[str] = []
        self.notices: list[str] = []
        self._told = anyio.Event()

    def changed(self, response: BuildResponse) -> None:
        """See `BuildWatcher`."""
        self.responses.append(response)
        self._told.set()

    def said(self, line: str) -> None:
        """See `BuildWatcher`."""
        self.lines.append(line)
        self._told.set()

    def noticed(self, text: str) -> None:
        """See `BuildWatcher`."""
        self.notices.append(text)
        self._told.set()

    async def until(self, lines: int = 0, notices: int = 0, message: str = "") -> None:
        """Wait until it has been told so many, and *message* as how the build stands."""
        with anyio.fail_after(30):
            while (
                len(self.lines) < lines
                or len(self.notices) < notices
                or (message and self.responses[-1].message != message)
            ):
                self._told = anyio.Event()
                await self._told.wait()


def in_two_halves(second: anyio.Event, message: anyio.Event | None = None) -> Script:
    """A build that writes *LINES*, and a last line when *second* is set; says `NEWS` of itself when *message* is."""

    async def script(stage: Stage) -> None:
        stage.advance(WorkspacePhase.RUNNING)
        for line in LINES:
            stage.write(f"{line}\r\n")
        if message is not None:
            await message.wait()
            stage.advance(WorkspacePhase.RUNNING, message=NEWS)
        await second.wait()
        stage.write("the end\r\n")
        stage.push()
        stage.exit(0)
        stage.advance(WorkspacePhase.STOPPED)

    return script


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[ImageBuilderClient]:
    """A client of the service on *port*."""
    async with Connection(Endpoint(address=parse_host(f"127.0.0.1:{port}"))) as connection:
        yield ImageBuilderClient(connection)


@asynccontextmanager
async def following(
    proxy: TcpProxy, request: BuildRequest, watcher: Watcher
) -> AsyncIterator[list[BuildResponse]]:
    """Follow the build of *request* through *proxy*, until it has ended; how it did is there after the block."""
    ends: list[BuildResponse] = []

    async def follow() -> None:
        ends.append(await follow_build(client, request, watcher, lines=LogLines()))

    async with client_of(proxy.port) as client, anyio.create_task_group() as group:
        group.start_soon(follow)
        yield ends


@contextmanager
def nobody_there(proxy: TcpProxy) -> Iterator[None]:
    """Cut *proxy*, and let it reach nobody inside the block."""
    port, proxy.target_port = proxy.target_port, 1
    proxy.cut()
    yield
    proxy.target_port = port


async def test_nothing_is_lost_or_shown_twice(world: World, served: Served) -> None:
    """A connection that breaks is made again: one build, each line once, also if it was to be forced."""
    message, second = anyio.Event(), anyio.Event()
    world.script = in_two_halves(second, message)
    request = BuildRequest(source=reference(world.seed_base_image()), force_rebuild=True)
    watcher = Watcher()
    async with (
        TcpProxy(served.running.address.port) as proxy,
        following(proxy, request, watcher) as ends,
    ):
        await watcher.until(lines=len(LOG) + len(LINES))
        proxy.cut()
        await watcher.until(notices=1)
        message.set()
        await watcher.until(message=NEWS)  # attached again
        second.set()
    assert watcher.lines == [*LOG, *LINES, "the end"]
    assert ends[0].status == BuildStatus.done_success
    assert len(world.manager.received("StartWorkspace")) == 1
    assert all("attaching to the build again" in notice for notice in watcher.notices)


async def test_a_build_that_ends_while_nobody_watches(world: World, served: Served) -> None:
    """Is told as the build that it was, not as an image that was there already; with all of its output."""
    second = anyio.Event()
    world.script = in_two_halves(second)
    request = BuildRequest(source=reference(world.seed_base_image()))
    watcher = Watcher()
    async with (
        TcpProxy(served.running.address.port) as proxy,
        client_of(served.running.address.port) as another,
        following(proxy, request, watcher) as ends,
    ):
        await watcher.until(lines=len(LOG) + len(LINES))
        with nobody_there(proxy):
            second.set()
            async with another.build(request) as replies:
                assert [reply async for reply in replies][-1].status == BuildStatus.done_success
    assert ends[0].status == BuildStatus.done_success
    assert ends[0].info is not None
    assert watcher.responses[0].info is not None
    assert ends[0].info.build_id == watcher.responses[0].info.build_id
    assert watcher.lines == [*LOG, *LINES, "the end"]
    assert len([notice for notice in watcher.notices if "attaching" in notice]) == 1


def failing_later(second: anyio.Event) -> Script:
    """A build that writes *LINES*, and fails when *second* is set."""

    async def script(stage: Stage) -> None:
        stage.advance(WorkspacePhase.RUNNING)
        for line in LINES:
            stage.write(f"{line}\r\n")
        await second.wait()
        stage.exit(1)
        stage.advance(WorkspacePhase.STOPPED, headless_task_failed=FAILURE)

    return script


async def fail_unseen(
    client: ImageBuilderClient, proxy: TcpProxy, request: BuildRequest, watcher: Watcher, second: anyio.Event
) -> None:
    """Cut *proxy* once *watcher* has heard the output, and let the build fail before it is mended."""
    await watcher.until(lines=len(LOG) + len(LINES))
    async with client.build(replace(request, force_rebuild=False)) as replies:
        await anext(replies)
        with nobody_there(proxy):
            second.set()
            assert [reply async for reply in replies][-1].status == BuildStatus.done_failure


async def test_a_build_that_fails_while_nobody_watches(world: World, served: Served) -> None:
    """Is told as failed, and not built again."""
    second = anyio.Event()
    world.script = failing_later(second)
    request = BuildRequest(source=reference(world.seed_base_image()))
    watcher = Watcher()
    async with (
        TcpProxy(served.running.address.port) as proxy,
        client_of(served.running.address.port) as another,
        following(proxy, request, watcher) as ends,
    ):
        await fail_unseen(another, proxy, request, watcher, second)
    assert (ends[0].status, ends[0].message) == (BuildStatus.done_failure, FAILED)
    assert watcher.responses[-1] == ends[0]
    assert watcher.lines == [*LOG, *LINES]
    assert len(world.manager.received("StartWorkspace")) == 1


async def test_a_forced_build_that_ends_while_nobody_watches(world: World, served: Served) -> None:
    """Is not taken for built because of the image that was there before."""
    request = BuildRequest(source=reference(world.seed_base_image()))
    second, watcher = anyio.Event(), Watcher()
    async with client_of(served.running.address.port) as another:
        async with another.build(request) as replies:
            assert [reply async for reply in replies][-1].status == BuildStatus.done_success
        world.script = failing_later(second)
        request = replace(request, force_rebuild=True)

        async def follow(client: ImageBuilderClient) -> None:
            with pytest.raises(OutcomeUnknownError):
                await follow_build(client, request, watcher, lines=LogLines())

        async with (
            TcpProxy(served.running.address.port) as proxy,
            client_of(proxy.port) as client,
            anyio.create_task_group() as group,
        ):
            group.start_soon(follow, client)
            await watcher.until(lines=len(LOG) + len(LINES))
            with nobody_there(proxy):
                second.set()
                info = watcher.responses[-1].info
                assert info is not None
                async with another.logs(build_id=info.build_id) as logs:
                    _ = [reply async for reply in logs]  # until it has ended
    assert watcher.responses[-1].status == BuildStatus.running


class Forgetful(ImageBuilderClient):
    """A client of a service that no longer knows the build it is asked for, as another one would not."""

    forgotten = ""

    def logs(
        self, *, build_ref: str = "", build_id: str = ""
    ) -> AbstractAsyncContextManager[Replies[LogsResponse]]:
        """See `ImageBuilderClient.logs`."""
        return super().logs(
            build_ref=build_ref, build_id="nobody" if build_id == self.forgotten else build_id
        )


async def test_another_build_is_said_to_be_one(world: World, served: Served) -> None:
    """If nothing is known of the build that was watched, what decides then is told, and its output."""
    second = anyio.Event()
    world.script = failing_later(second)
    request = BuildRequest(source=reference(world.seed_base_image()))
    watcher, ends = Watcher(), list[BuildResponse]()

    async def follow(client: ImageBuilderClient) -> None:
        ends.append(await follow_build(client, request, watcher, lines=LogLines()))

    async with (
        TcpProxy(served.running.address.port) as proxy,
        Connection(Endpoint(address=parse_host(f"127.0.0.1:{proxy.port}"))) as connection,
        client_of(served.running.address.port) as another,
        anyio.create_task_group() as group,
    ):
        client = Forgetful(connection)
        group.start_soon(follow, client)
        await watcher.until(lines=len(LOG) + len(LINES))
        world.script = succeeding(["of another"])
        client.forgotten = watcher.responses[0].info.build_id if watcher.responses[0].info else ""
        await fail_unseen(another, proxy, request, watcher, second)
    assert ends[0].status == BuildStatus.done_success
    assert ends[0].info is not None
    (notice,) = [notice for notice in watcher.notices if "this is another" in notice]
    assert client.forgotten in notice
    assert notice.endswith(ends[0].info.build_id)
    assert watcher.lines[-1] == "of another"


async def test_output_is_read_on(world: World, served: Served) -> None:
    """Whoever reads only that gets each byte once, too."""
    second = anyio.Event()
    world.script = in_two_halves(second)
    request = BuildRequest(source=reference(world.seed_base_image()))
    async with (
        TcpProxy(served.running.address.port) as proxy,
        client_of(proxy.port) as client,
        client_of(served.running.address.port) as another,
        another.build(request) as replies,
    ):
        info = (await anext(replies)).info
        assert info is not None
        text = ""
        async with aclosing(output_of(client, build_id=info.build_id, patience=Patience())) as output:
            async for data in output:
                text += data.decode()
                if text.endswith(f"{LINES[-1]}\r\n"):
                    proxy.cut()
                    second.set()
    assert text.splitlines() == [*LOG, *LINES, "the end"]


async def test_patience_has_an_end(world: World, served: Served) -> None:
    """A connection that stays away is given up, with the reason."""
    world.script = in_two_halves(anyio.Event())
    request = BuildRequest(source=reference(world.seed_base_image()))
    watcher = Watcher()

    async def follow(client: ImageBuilderClient) -> None:
        with pytest.raises(ConnectionLostError, match="lost the connection to 127"):
            await follow_build(client, request, watcher, lines=LogLines(), patience=0.2)

    async with (
        TcpProxy(served.running.address.port) as proxy,
        client_of(proxy.port) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(follow, client)
        await watcher.until(lines=len(LOG))
        proxy.target_port = 1  # nobody is there
        proxy.cut()
    assert watcher.responses[-1].status == BuildStatus.running


async def test_leaving_stops_nothing(world: World, served: Served) -> None:
    """Whoever stops watching leaves the build running."""
    world.script = in_two_halves(anyio.Event())
    request = BuildRequest(source=reference(world.seed_base_image()))
    watcher = Watcher()
    async with client_of(served.running.address.port) as client, anyio.create_task_group() as group:

        async def follow() -> None:
            await follow_build(client, request, watcher, lines=LogLines())

        group.start_soon(follow)
        await watcher.until(lines=1)
        group.cancel_scope.cancel()
    (build,) = await served.client.builds()
    assert build.status == BuildStatus.running
    assert not world.manager.received("StopWorkspace")
