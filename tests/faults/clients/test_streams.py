"""Calls in numbers, and calls that are large."""

from __future__ import annotations

import gzip
from contextlib import AsyncExitStack

import pytest
from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import PingFrame

from imgbuilder.pb.builder import LogsRequest
from imgbuilder.runtime.grpc.codec import encode
from tests.faults.clients.offender import LOGS, header_block, offender, opening
from tests.faults.clients.scene import MIB, Scene, attacked

pytestmark = pytest.mark.asyncio(loop_scope="package")

ONE_STREAM = 24 << 10
"""Bytes that a call costs at most that is open, and has small headers."""

REFUSED = ErrorCodes.REFUSED_STREAM


def _open(first: int, count: int, block: bytes | None = None) -> bytes:
    """Calls whose requests never come."""
    numbers = range(first, first + 2 * count, 2)
    return b"".join(opening(number) if block is None else opening(number, block) for number in numbers)


async def test_ten_thousand_streams_on_a_connection(scene: Scene) -> None:
    """Are served; more are refused, and who goes on and on is cut off."""
    async with attacked(scene, "10,000 streams on a connection", memory=10_000 * ONE_STREAM) as attack:
        async with offender(scene.port) as client:
            await client.send(_open(1, 10_100))
            await client.until(lambda: client.resets[REFUSED] == 100)
            await client.flood(_open(20_201, 5_000), limit=1 * MIB)
            await client.until_closed()
            attack.over()
        assert client.goaway == ErrorCodes.ENHANCE_YOUR_CALM
        await attack.counted("flood of refused streams")


async def test_streams_over_many_connections(strict: Scene) -> None:
    """Of 3,000 there are at most 2,000, every connection has some, and the witness gets its next all the time."""
    async with (
        attacked(strict, "3,000 streams over 50 connections, of 2,000", memory=2_000 * ONE_STREAM) as attack,
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(offender(strict.port)) for _ in range(50)]
        for client in clients:
            await client.send(_open(1, 60))
        for client in clients:
            await client.send(PingFrame(0, opaque_data=bytes(8)).serialize())
        for client in clients:
            await client.until(lambda client=client: client.pongs == 1)
        attack.over()
        refused = [client.resets[REFUSED] for client in clients]
        assert sum(refused) >= 1_000
        assert max(refused) < 60
        await attack.witness.until(12)


async def test_large_headers_on_many_streams(strict: Scene) -> None:
    """Some bytes that unpack to 60 KiB, and are kept as long as the call is open: each counts as many calls."""
    large = ("x-large", "y" * 3900)
    encoder = Encoder()
    encoder.encode([large])  # as if it stood in the table already
    first = header_block("/builder.ImageBuilder/Logs") + bytes(Encoder().encode([large]))
    block = header_block("/builder.ImageBuilder/Logs") + bytes(encoder.encode([large] * 15))
    assert len(block) < 200
    async with (
        attacked(strict, "60 KiB of headers on 1,500 streams", memory=60 * MIB) as attack,
        offender(strict.port) as client,
    ):
        await client.send(opening(1, first) + _open(3, 1500, block))
        await client.until(lambda: client.resets[REFUSED] > 1000 or client.closed)
        attack.over()
        await attack.witness.until(12)


async def test_headers_that_unpack_to_too_much(scene: Scene) -> None:
    """A header that is long in the table and short on the wire, a thousand times."""
    encoder = Encoder()
    first = bytes(encoder.encode([(":method", "POST"), (":path", "/a/b"), ("x-large", "y" * 3900)]))
    bomb = bytes(encoder.encode([("x-large", "y" * 3900)] * 10_000))
    async with attacked(scene, "HPACK bomb") as attack:
        async with offender(scene.port) as client:
            await client.send(opening(1, first) + opening(3, bomb))
            await client.until_closed()
            attack.over()
        assert client.goaway == ErrorCodes.ENHANCE_YOUR_CALM
        await attack.counted("endless headers")


async def test_a_message_of_a_gibibyte(scene: Scene) -> None:
    """That is what its prefix says: the call ends, and what comes is dropped."""
    data = b"\x00" + (1 << 30).to_bytes(4, "big") + bytes(10_000)
    async with (
        attacked(scene, "1 GiB length prefix", memory=30 * MIB) as attack,
        offender(scene.port) as client,
    ):
        for number in range(1, 201, 2):
            await client.send(opening(number, data=data, end=False))
        await client.until(lambda: len(client.ended) == 100)
        attack.over()
        assert not client.closed


async def test_a_compressed_message(scene: Scene) -> None:
    """It would unpack to 64 MiB: nobody does."""
    packed = gzip.compress(bytes(64 * MIB))
    block = header_block("/builder.ImageBuilder/Logs", ("grpc-encoding", "gzip"))
    data = b"\x01" + len(packed).to_bytes(4, "big") + packed
    async with (
        attacked(scene, "gzip bomb", memory=30 * MIB) as attack,
        offender(scene.port) as client,
    ):
        await client.send(opening(1, block, data=data[:16_000], end=False))
        await client.until(lambda: 1 in client.ended)
        attack.over()
        assert not client.closed


async def test_more_than_a_request(scene: Scene) -> None:
    """What comes behind the one message is dropped, as long as the call is open; the connection's window stays open."""
    request = encode(LogsRequest(build_ref="none"))
    block = header_block("/grpc.health.v1.Health/Watch")
    async with (
        attacked(scene, "46 MiB behind requests", memory=30 * MIB) as attack,
        offender(scene.port) as client,
    ):
        message = b"\x00" + len(request).to_bytes(4, "big") + request
        await client.send(b"".join(opening(n, block, data=message, end=False) for n in range(1, 101, 2)))
        await client.until(lambda: len(client.data) == 50)
        piece = _data(1, 16_000)
        for number in range(1, 101, 2):
            for _ in range(60):  # each stream has a window of 1 MiB, and all of them one of 16 MiB
                await client.send(number.to_bytes(4, "big").join((piece[:5], piece[9:])))
        await client.send(opening(201, LOGS, data=message))
        await client.until(lambda: 201 in client.ended)
        attack.over()
        assert not client.closed


def _data(number: int, size: int) -> bytes:
    return size.to_bytes(3, "big") + b"\x00\x00" + number.to_bytes(4, "big") + bytes(size)
