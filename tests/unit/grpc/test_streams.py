"""DATA frames by hand: whole, within the peer's windows, and no faster than the socket takes them."""

from __future__ import annotations

import asyncio
import random

import anyio
import pytest
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, Frame
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.pb.builder import LogsResponse
from imgbuilder.runtime.grpc.codec import encode
from imgbuilder.runtime.grpc.streams import LARGEST_WRITE, data_frames
from tests.unit.grpc.raw import RawClient, framed, head, raw_client
from tests.unit.grpc.serving import STREAMING, Stream, channel_to, replies, serving

CALL = head("/test.Service/Call")


@given(st.integers(1, 2**31 - 1), st.binary(max_size=200), st.integers(1, 90))
def test_frames(stream_id: int, data: bytes, largest: int) -> None:
    """They hold the data in order, each as much as it may, and none ends the stream."""
    rest, contents = data_frames(stream_id, memoryview(data), largest), []
    while rest:
        frame, length = Frame.parse_frame_header(memoryview(rest[:9]))
        frame.parse_body(memoryview(rest[9 : 9 + length]))
        rest = rest[9 + length :]
        assert isinstance(frame, DataFrame)
        assert frame.stream_id == stream_id
        assert not frame.flags
        contents.append(frame.data)
    assert b"".join(contents) == data
    assert all(len(content) == largest for content in contents[:-1])


def test_large_frames() -> None:
    """The length has three bytes."""
    frames = data_frames(1, memoryview(bytes(100_000)), 1 << 24)
    assert frames[:9] == (100_000).to_bytes(3, "big") + bytes(2) + b"\x00\x00\x00\x01"


def _sizes() -> list[int]:
    rng = random.Random(7)
    return [rng.choice((0, 1, 100, 16_379, 16_380, 65_530, 70_000, 200_000)) for _ in range(30)]


async def _send_all(stream: Stream) -> None:
    for number, size in enumerate(_sizes()):
        await stream.send_message(LogsResponse(content=bytes((number,)) * size))


EXPECTED = b"".join(
    framed(encode(LogsResponse(content=bytes((n,)) * size))) for n, size in enumerate(_sizes())
)


async def test_small_windows() -> None:
    """Whatever windows the reader opens, and when, all comes, in order, and never more than it allowed."""
    rng = random.Random(3)
    async with serving(_send_all, STREAMING) as served, raw_client(served.address) as client:
        client.acknowledge = False
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        await client.ping()
        number = client.open(CALL)
        answer = client.answers[number]
        allowed, connection = 1000, 65_535
        while not answer.ended:
            size = rng.choice((1, 10, 5_000, 40_000, 300_000))
            client.h2.increment_flow_control_window(size, number)
            client.h2.increment_flow_control_window(size)
            allowed, connection = allowed + size, connection + size
            client.flush()
            target = min(allowed, connection, len(EXPECTED))
            await client.until(lambda: len(answer.data) >= target)  # noqa: B023  # h2 checks that it is not exceeded
            if len(answer.data) == len(EXPECTED):
                await client.answer(number)
        assert answer.data == EXPECTED


async def test_a_window_that_shrinks() -> None:
    """It may become negative; the stream goes on when it has been opened again as far."""
    async with serving(_send_all, STREAMING) as served, raw_client(served.address) as client:
        client.acknowledge = False
        client.h2.increment_flow_control_window(1 << 24)
        number = client.open(CALL)
        answer = client.answers[number]
        await client.until(lambda: len(answer.data) == 65_535)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
        await client.ping()
        client.h2.increment_flow_control_window(60_000, number)
        await client.ping()
        assert len(answer.data) == 65_535
        client.h2.increment_flow_control_window(1 << 24, number)
        client.flush()
        assert (await client.answer(number)).data == EXPECTED


async def test_a_reader_that_stops_does_not_stop_others() -> None:
    """Each stream waits for its own window."""
    async with serving(_send_all, STREAMING) as served, raw_client(served.address) as client:
        client.acknowledge = False
        client.h2.increment_flow_control_window(1 << 26)
        stopped, running = client.open(CALL), client.open(CALL)
        client.h2.increment_flow_control_window(1 << 24, running)
        client.flush()
        assert (await client.answer(running)).data == EXPECTED
        assert len(client.answers[stopped].data) == 65_535


async def test_the_connections_window_wakes_all_that_wait() -> None:
    """Also streams that began to wait at different times."""
    async with serving(_send_all, STREAMING) as served, raw_client(served.address) as client:
        client.acknowledge = False
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 26})
        await client.ping()
        numbers = [client.open(CALL) for _ in range(5)]
        await client.until(lambda: sum(len(client.answers[number].data) for number in numbers) == 65_535)
        client.h2.increment_flow_control_window(1 << 26)
        client.flush()
        for number in numbers:
            assert (await client.answer(number)).data == EXPECTED


async def test_a_reader_that_opens_its_windows_bit_by_bit() -> None:
    """Two updates for each frame, as grpc-go sends them at first, are no flood."""

    async def send(stream: Stream) -> None:
        for _ in range(400):
            await stream.send_message(LogsResponse(content=bytes(65_536)))

    async with serving(send, STREAMING) as served, raw_client(served.address) as client:
        client.eager = True
        answer = await client.call(CALL)
        assert len(answer.data) > 400 * 65_536
    assert served.cut_offs == []


async def _do_not_read(client: RawClient, calls: int) -> None:
    """Open *calls* with windows for everything, and then read nothing any more."""
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    client.h2.increment_flow_control_window(2**31 - 1 - 65_535)
    await client.ping()
    for _ in range(calls):
        client.open(CALL)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # transports of sockets have it


async def test_a_peer_that_does_not_read_fills_no_memory() -> None:
    """Of all its streams, one may write when the socket takes data; the rest wait."""
    blocked, all_blocked = 0, asyncio.Event()

    async def send(stream: Stream) -> None:
        nonlocal blocked
        while True:
            blocked += 1
            if blocked == 50:
                all_blocked.set()
            await stream.send_message(LogsResponse(content=bytes(65_536)))
            blocked -= 1
            await asyncio.sleep(0)

    async with serving(send, STREAMING) as served, raw_client(served.address) as client:
        await _do_not_read(client, 50)
        (protocol,) = served.server._connections
        with anyio.fail_after(10):
            await all_blocked.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert protocol._transport is not None
        high = protocol._transport.get_write_buffer_limits()[1]
        assert protocol._transport.get_write_buffer_size() <= high + 2 * LARGEST_WRITE
        # and it is no obstacle to leaving
        with anyio.fail_after(20):
            await served.server.stop()


async def test_a_tight_sender_lets_others_run() -> None:
    """Even when the peer and the socket take all it has."""
    turns, sending = 0, True

    async def send(stream: Stream) -> None:
        nonlocal sending
        for _ in range(1000):
            await stream.send_message(LogsResponse(content=b"x"))
        sending = False

    async def count() -> None:
        nonlocal turns
        while sending:
            turns += 1
            await asyncio.sleep(0)

    async with (
        serving(send, STREAMING) as served,
        channel_to(served) as channel,
        anyio.create_task_group() as group,
    ):
        group.start_soon(count)
        assert len(await replies(channel)) == 1000
    assert turns >= 1000 // 16


@pytest.mark.parametrize("largest", [16_384, 1 << 20])
async def test_the_peers_frame_size(largest: int) -> None:
    """Frames are as large as the peer allows, up to one write."""
    content = bytes(80_000)

    async def send(stream: Stream) -> None:
        await stream.send_message(LogsResponse(content=content))

    async with serving(send, STREAMING) as served, raw_client(served.address) as client:
        client.h2.update_settings(
            {SettingCodes.MAX_FRAME_SIZE: largest, SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20}
        )
        client.h2.increment_flow_control_window(1 << 20)
        await client.ping()
        client.received.clear()
        answer = await client.call(CALL)
        assert answer.data == framed(encode(LogsResponse(content=content)))
        first = min(largest, len(answer.data))
        assert first.to_bytes(3, "big") + bytes(2) in client.received
