"""Clients that do not speak HTTP/2, or say nothing at all."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import AsyncExitStack, suppress

import pytest
from hyperframe.frame import PingFrame

from tests.faults.clients.offender import PATIENCE, PREFACE, offender, opening
from tests.faults.clients.scene import MIB, Scene, attacked

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("garbage", random.Random(7).randbytes(100_000)),
        ("garbage after the preface", PREFACE + random.Random(8).randbytes(100_000)),
        ("HTTP/1.1", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ],
)
async def test_garbage(scene: Scene, name: str, data: bytes) -> None:
    """Is a mistake, and the connection is closed."""
    async with attacked(scene, name) as attack:
        async with offender(scene.port, hello=data) as client:
            await client.until_closed()
            attack.over()
        await attack.counted("protocol error")


async def test_half_a_preface(scene: Scene) -> None:
    """And then silence: on fifty connections."""
    async with attacked(scene, "half a preface on 50 connections") as attack, AsyncExitStack() as stack:
        connections = [stack.enter_context(await _connected(scene.port)) for _ in range(50)]
        for connection in connections:
            await asyncio.get_running_loop().sock_sendall(connection, PREFACE[:10])
        for connection in connections:
            await _closed(connection)
        attack.over()
        await attack.counted("no handshake in time", times=50)


async def test_connections_that_do_nothing(scene: Scene) -> None:
    """A thousand, where there may be 150: the oldest make room for the newest, and those with calls stay."""
    async with (
        attacked(scene, "1,000 idle connections, of 150", memory=50 * MIB) as attack,
        AsyncExitStack() as stack,
    ):
        loop = asyncio.get_running_loop()
        connections = []
        for _ in range(1_000):
            connection = stack.enter_context(await _connected(scene.port))
            await loop.sock_sendall(connection, PREFACE)
            connections.append(connection)
        for connection in connections[:850]:
            await _closed(connection)
        attack.over()
        await attack.counted("idle where others need room", times=850)
        async with offender(scene.port) as newcomer:
            await attack.witness.until(20)
            assert not newcomer.closed


async def test_connections_that_keep_a_call_open(scene: Scene) -> None:
    """All that one host may have: more from there are closed, one from another host is served."""
    loop = asyncio.get_running_loop()
    ping = PingFrame(0, opaque_data=bytes(8)).serialize()
    async with (
        attacked(scene, "160 connections with a call each, of 120 from a host") as attack,
        AsyncExitStack() as stack,
    ):
        for _ in range(119):  # and the witness
            client = await stack.enter_async_context(offender(scene.port, hello=PREFACE + opening(1) + ping))
            await client.until(lambda client=client: client.pongs == 1)
        for _ in range(40):
            await _closed(stack.enter_context(await _connected(scene.port)))
        attack.over()
        await attack.counted("too many connections", times=40)
        other = stack.enter_context(await _connected(scene.port, host="127.0.0.2"))
        await loop.sock_sendall(other, PREFACE)
        async with asyncio.timeout(PATIENCE):
            assert await loop.sock_recv(other, 1)
        await attack.witness.until(12)


async def _connected(port: int, *, host: str = "127.0.0.1") -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.bind((host, 0))
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return connection


async def _closed(connection: socket.socket) -> None:
    """Wait until the service has closed *connection*."""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(connection, 1 << 16):
                pass
