"""Readers of logs that do not read, or hardly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from hyperframe.frame import PingFrame, SettingsFrame

from imgbuilder.pb.builder import BuildRequest, LogsRequest
from imgbuilder.pb.wsman import WorkspacePhase
from imgbuilder.runtime.grpc.codec import encode
from tests.contract.service.client import connected, dockerfile
from tests.faults.clients.offender import LOGS, PATIENCE, PREFACE, offender, opening, window
from tests.faults.clients.scene import MIB, Scene, attacked
from tests.faults.clients.witness import NUMBERS

pytestmark = pytest.mark.asyncio(loop_scope="package")

SIZE = 2 * MIB
"""Bytes of the log that is read; it is larger than all buffers on the way."""


@asynccontextmanager
async def long_log(scene: Scene) -> AsyncIterator[bytes]:
    """A request for the log of a build that has printed much, and goes on for as long as the block."""
    async with (
        connected(scene.port) as client,
        client.open(BuildRequest(source=dockerfile(version=f"long log {next(NUMBERS)}"))) as build,
    ):
        first = await build.next()
        build_id = first.info.build_id
        scene.world.manager.advance(build_id, WorkspacePhase.RUNNING)
        scene.world.supervisors.open_terminal(build_id)
        await scene.world.supervisors.until(
            lambda: bool(scene.world.supervisors.workspaces[build_id].listeners)
        )
        for _ in range(SIZE >> 16):
            scene.world.supervisors.write(build_id, b"x" * (1 << 16))
            await scene.world.supervisors.drain(build_id)
        async with client.open(LogsRequest(build_id=build_id)) as log:
            size = 0
            while size < SIZE:
                size += len((await log.next()).content)
        request = encode(LogsRequest(build_id=build_id))
        yield b"\x00" + len(request).to_bytes(4, "big") + request
        scene.world.push(first.ref)
        scene.world.supervisors.exit(build_id, 0)
        scene.world.manager.advance(build_id, WorkspacePhase.STOPPED)
        await build.rest()


@asynccontextmanager
async def bare_socket(port: int, hello: bytes) -> AsyncIterator[socket.socket]:
    """A connection that has sent *hello*, and that nobody reads. Its buffer is small."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        await loop.sock_sendall(connection, hello)
        yield connection


def _asking(request: bytes, *, streams: int = 1, stream_window: int = 65_535) -> bytes:
    """The preface of a client that can take whatever comes, and its requests."""
    settings = SettingsFrame(0, settings={4: stream_window}).serialize()
    numbers = range(1, 2 * streams, 2)
    calls = b"".join(opening(number, LOGS, data=request) for number in numbers)
    return PREFACE + settings + window(2**31 - 1 - 65_535) + calls


async def test_a_reader_that_never_reads(strict: Scene) -> None:
    """It gives no sign of life, and is cut off. Until then it costs a write buffer, with however many streams."""
    async with (
        long_log(strict) as request,
        attacked(strict, "never reads, 100 streams", memory=20 * MIB) as attack,
        bare_socket(strict.port, _asking(request, streams=100, stream_window=2**31 - 1)),
    ):
        await attack.counted("no sign of life")
        attack.over()


async def test_a_reader_of_one_byte_a_second(strict: Scene) -> None:
    """Off the socket: what it sends would be a sign of life, but the question never gets there."""
    loop = asyncio.get_running_loop()

    async def read(connection: socket.socket) -> None:
        while await loop.sock_recv(connection, 1):  # noqa: ASYNC110  # the pace is what it is about
            await anyio.sleep(1)

    async with (
        long_log(strict) as request,
        attacked(strict, "one byte a second", memory=20 * MIB) as attack,
        bare_socket(strict.port, _asking(request, stream_window=2**31 - 1)) as connection,
        anyio.create_task_group() as group,
    ):
        group.start_soon(read, connection)
        await attack.counted("no sign of life")
        attack.over()
        group.cancel_scope.cancel()


async def test_a_reader_with_small_windows(strict: Scene) -> None:
    """It takes ten bytes at a time, and gets them, for longer than a silent one may live."""
    async with (
        long_log(strict) as request,
        attacked(strict, "windows of 10 bytes", memory=20 * MIB) as attack,
        offender(strict.port, hello=_asking(request, stream_window=10)) as client,
    ):
        for step in range(1, 46):
            await client.until(lambda step=step: client.closed or client.data[1] == 10 * step)
            assert not client.closed
            await anyio.sleep(0.1)
            await client.send(window(10, stream=1))
        attack.over()


async def test_a_thousand_readers_that_are_stuck(strict: Scene) -> None:
    """On one connection, each with a window of a byte: they share what they wait to be sent."""
    async with (
        long_log(strict) as request,
        attacked(strict, "1,000 streams with windows of a byte", memory=40 * MIB) as attack,
        offender(strict.port, hello=_asking(request, streams=1_000, stream_window=1)) as client,
    ):
        await client.until(lambda: client.closed or len(client.data) == 1_000)
        attack.over()
        assert not client.closed
        await attack.witness.until(20)


async def test_answers_that_nobody_reads(scene: Scene) -> None:
    """Pings as fast as they may come, for whose answers nobody is there: the answers are bounded."""
    ping = PingFrame(0, opaque_data=bytes(8)).serialize()
    async with (
        attacked(scene, "PING flood, not reading", memory=20 * MIB) as attack,
        bare_socket(scene.port, PREFACE) as connection,
    ):
        loop = asyncio.get_running_loop()
        with anyio.fail_after(PATIENCE):
            try:
                while True:
                    await loop.sock_sendall(connection, ping * 100)
                    await asyncio.sleep(0)
            except ConnectionError:
                attack.over()
        await attack.counted("flood of pings")
