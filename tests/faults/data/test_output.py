"""Output without end, without lines, and with all that terminals should not be shown."""

from __future__ import annotations

import time
from typing import Final

import anyio
import pytest

from imgbuilder.orchestrator.logs.follower import CONNECTING, FAILED
from imgbuilder.pb.wsman import WorkspacePhase
from tests.contract.service.client import statuses
from tests.faults.reading import BEGINNING, BLOCK, LEFT_OUT, Reading, block, read
from tests.faults.trial import FULL, KEPT, MEBIBYTE, PATIENCE, Trial

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(PATIENCE + 10)]

SIZE: Final = (1024 if FULL else 64) * MEBIBYTE
LINES: Final = 10_000_000 if FULL else 200_000


async def test_output_without_a_line_feed(hostile: Trial) -> None:
    """Whoever reads along gets every byte; whoever comes late, both ends; and others build meanwhile."""
    world = hostile.world
    along, late = Reading(), Reading()
    with anyio.fail_after(PATIENCE):
        async with (
            hostile.building() as (call, build_id),
            hostile.bounded(f"{SIZE >> 20} MiB without a line feed"),
        ):
            await hostile.listened(build_id)
            async with anyio.create_task_group() as group:
                group.start_soon(read, hostile.client, build_id, along)
                for start in range(0, SIZE, BLOCK):
                    world.supervisors.write(build_id, block(start))
                    await world.supervisors.drain(build_id)
                    await along.reach(start - 4 * MEBIBYTE)
                    if start == SIZE // 2:
                        await hostile.another_build()
                await hostile.succeed(call, build_id)
            await read(hostile.client, build_id, late)
    assert along.place == late.place == SIZE
    assert late.left_out == SIZE - KEPT + len(BEGINNING)
    assert along.left_out == 0


async def test_many_tiny_lines(hostile: Trial) -> None:
    """Each a value of its own: none is lost, and nobody waits for them."""
    world = hostile.world
    lines = b'{"result":{"data":"eAo="}}\n' * 1000
    slowest = 0.0
    with anyio.fail_after(PATIENCE):
        async with hostile.building() as (call, build_id), hostile.bounded(f"{LINES} lines"):
            await hostile.listened(build_id)
            for number in range(LINES // 1000):
                world.supervisors.send(build_id, lines)
                await world.supervisors.drain(build_id)
                if number % 100 == 50:
                    began = time.monotonic()
                    await hostile.client.builds()
                    slowest = max(slowest, time.monotonic() - began)
            await hostile.succeed(call, build_id)
            log = await hostile.client.log(build_id=build_id)
    print(f"slowest ListBuilds meanwhile: {slowest * 1000:.0f} ms")  # noqa: T201  # figures
    missing = sum(int(size) for size in LEFT_OUT.findall(log))
    assert len(LEFT_OUT.sub(b"", log)) + missing == len(BEGINNING) + 2 * LINES
    assert log.startswith(BEGINNING + b"x\nx\n")


NASTY: Final = (
    b"\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m\x1b]8;;http://evil.test\x07link\x1b]8;;\x07\r\n"
    + bytes(range(256))
    + "\u202etxt.exe\u2028\ufeff\U000e0001".encode()
    + b"\xc0\xaf\xed\xa0\x80\xf8\x88\x80\x80\x80"
)


async def test_escapes_and_what_is_no_utf8(hostile: Trial) -> None:
    """Output is passed on byte for byte; failures as they are; and the service's own log stays one line a record."""
    world = hostile.world
    failure = '\x1b[2J\n{"level": "error"}\r\u2028\x85 failed'
    with anyio.fail_after(PATIENCE):
        async with hostile.building() as (call, build_id):
            world.manager.advance(build_id, WorkspacePhase.RUNNING, message=failure)
            world.supervisors.open_terminal(build_id)
            await world.supervisors.until(lambda: bool(world.supervisors.workspaces[build_id].listeners))
            world.supervisors.write(build_id, NASTY)
            world.supervisors.exit(build_id, 1)
            world.manager.advance(build_id, WorkspacePhase.STOPPED, headless_task_failed=failure)
            last = (await call.rest())[-1]
            assert (last.status.name, last.message) == ("done_failure", failure)
            assert await hostile.client.log(build_id=build_id) == BEGINNING + NASTY
        await hostile.another_build()
    assert all("level" in record and record["level"] != "error" for record in hostile.service.records)


async def test_a_value_without_end_in_a_listen_stream(hostile: Trial) -> None:
    """It is skipped and counted; what comes behind it is output again."""
    world = hostile.world
    skipped = "imgbuilder_log_skipped_lines_total"
    before = (await hostile.metrics())[skipped]
    with anyio.fail_after(PATIENCE):
        async with hostile.building() as (call, build_id), hostile.bounded("a value without end"):
            await hostile.listened(build_id)
            world.supervisors.write(build_id, b"before\n")
            world.supervisors.send(build_id, b'{"result":{"data":"')
            for _ in range((1024 if FULL else 64) * 16):
                world.supervisors.send(build_id, b"QUJD" * 16 * 1024)
                await world.supervisors.drain(build_id)
            await hostile.another_build()
            world.supervisors.send(build_id, b'"}}\n')
            world.supervisors.write(build_id, b"behind\n")
            await hostile.succeed(call, build_id)
            assert await hostile.client.log(build_id=build_id) == BEGINNING + b"before\nbehind\n"
    assert (await hostile.metrics())[skipped] == before + 1


async def test_a_task_list_without_end(hostile: Trial) -> None:
    """It is asked for again and again, a megabyte each time; the build ends, and its log says that it is none."""
    world, asked, again = hostile.world, 0, anyio.Event()

    async def answer(stream: anyio.abc.SocketStream) -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            again.set()
        async with stream:
            await stream.receive()
            await stream.send(b'HTTP/1.1 200 OK\r\n\r\n{"result":{"tasks":[')
            try:
                while True:
                    await stream.send(b"{}," * 20_000)
            except anyio.BrokenResourceError:
                return  # it has had enough

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        place, world.manager.place = world.manager.place, lambda name, _: f"http://127.0.0.1:{port}/{name}"
        try:
            with anyio.fail_after(PATIENCE):
                async with hostile.building() as (call, build_id), hostile.bounded("a task list without end"):
                    world.manager.place = place
                    world.manager.advance(build_id, WorkspacePhase.RUNNING)
                    await again.wait()
                    await hostile.another_build()
                    world.push(world.manager.workspaces[build_id].ref)
                    world.manager.advance(build_id, WorkspacePhase.STOPPED)
                    assert statuses(await call.rest())[-1] == "done_success"
                    assert await hostile.client.log(build_id=build_id) == CONNECTING + FAILED
                    await hostile.logged("the log of a build can't be had", build_id=build_id)
        finally:
            world.manager.place = place
        group.cancel_scope.cancel()
