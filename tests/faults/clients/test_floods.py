"""Floods of frames that cost their sender nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.faults.clients.offender import LIST, PREFACE, offender, opening, serialized, window
from tests.faults.clients.scene import Scene, attacked

pytestmark = pytest.mark.asyncio(loop_scope="package")

LIMIT = 16 << 20
"""Bytes that a flood has at most; it is cut off long before."""

CALM = ErrorCodes.ENHANCE_YOUR_CALM
OPEN = PREFACE + opening(1)


async def _is_cut_off(
    scene: Scene, name: str, flood: bytes, reason: str, *, hello: bytes = OPEN, code: int = CALM
) -> None:
    async with attacked(scene, name) as attack:
        async with offender(scene.port, hello=hello) as client:
            await client.flood(flood, limit=LIMIT)
            await client.until_closed()
            attack.over()
        assert client.goaway == code
        await attack.counted(reason)


async def test_rapid_resets(scene: Scene) -> None:
    """Streams that are opened and reset at once (CVE-2023-44487)."""
    frames = b"".join(
        opening(number) + RstStreamFrame(number, error_code=8).serialize() for number in range(1, 20_001, 2)
    )
    await _is_cut_off(scene, "rapid resets", frames, "flood of resets", hello=PREFACE)


async def test_continuation_frames_without_an_end(scene: Scene) -> None:
    """Headers that never are complete."""
    frames = (
        HeadersFrame(1, data=LIST).serialize()
        + ContinuationFrame(1, data=b"\x00\x01a\x01b").serialize() * 999
    )
    await _is_cut_off(scene, "CONTINUATION flood", frames, "endless headers", hello=PREFACE)


@pytest.mark.parametrize(
    ("name", "frames", "reason"),
    [
        ("PING flood", [PingFrame(0, opaque_data=bytes(8))], "flood of pings"),
        ("SETTINGS flood", [SettingsFrame(0, settings={4: 65_535})], "flood of settings"),
        ("flood of empty DATA", [DataFrame(1)], "flood of empty frames"),
        (
            "WINDOW_UPDATE flood",
            [WindowUpdateFrame(0, window_increment=1), WindowUpdateFrame(1, window_increment=1)],
            "flood of control frames",
        ),
        (
            "PRIORITY flood",
            [PriorityFrame(number) for number in range(1, 2001, 2)],
            "flood of control frames",
        ),
    ],
)
async def test_a_flood(scene: Scene, name: str, frames: Sequence[Frame], reason: str) -> None:
    """Of frames that ask for an answer, or mean next to nothing."""
    await _is_cut_off(scene, name, serialized(frames) * (1000 // len(frames)), reason)


async def test_the_window_of_a_connection_that_overflows(scene: Scene) -> None:
    """More than 2³¹-1 is an error of the connection."""
    flood = window(2**31 - 1) * 2
    await _is_cut_off(
        scene,
        "WINDOW_UPDATE overflow",
        flood,
        "protocol error",
        code=ErrorCodes.FLOW_CONTROL_ERROR,
    )


async def test_the_window_of_a_stream_that_overflows(scene: Scene) -> None:
    """Is an error of the stream: others on its connection go on."""
    async with (
        attacked(scene, "WINDOW_UPDATE overflow of a stream") as attack,
        offender(scene.port, hello=OPEN) as client,
    ):
        await client.send(window(2**31 - 1, stream=1) * 2)
        await client.until(lambda: client.closed or client.resets[ErrorCodes.FLOW_CONTROL_ERROR] == 1)
        attack.over()
        await client.send(opening(3, data=bytes(5)))
        await client.until(lambda: client.data[3] > 0)
