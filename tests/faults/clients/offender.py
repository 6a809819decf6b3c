"""A client that does what it likes: bytes on a socket, and a look at the frames that come back."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
PATIENCE: Final = 45.0
"""Seconds within which whatever is waited for has to happen; a test that waits longer fails."""


def header_block(path: str, *more: tuple[str, str]) -> bytes:
    """The headers of a call. They leave no trace in the table of headers, so that they can be sent on any stream."""
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "offender"),
        ("content-type", "application/grpc"),
        *more,
    ]
    return bytes(Encoder().encode([NeverIndexedHeaderTuple(*header) for header in headers], huffman=False))


LIST: Final = header_block("/builder.ImageBuilder/ListBuilds")
LOGS: Final = header_block("/builder.ImageBuilder/Logs")


def opening(number: int, block: bytes = LIST, data: bytes | None = None, *, end: bool = True) -> bytes:
    """The frames that open the stream *number*; without *data* it stays open."""
    frames = HeadersFrame(number, data=block, flags=["END_HEADERS"]).serialize()
    if data is not None:
        frames += DataFrame(number, data=data, flags=["END_STREAM"] if end else []).serialize()
    return frames


class Offender:
    """One connection. It reads all the time, and answers pings.

    :ivar goaway: the code of the GOAWAY that came.
    :ivar resets: how many streams were reset, by code.
    :ivar data: how many bytes of DATA have come, by stream.
    :ivar ended: the streams that have.
    :ivar pongs: how many pings were answered.
    :ivar closed: whether the service has closed the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.goaway: int | None = None
        self.resets: Counter[int] = Counter()
        self.data: Counter[int] = Counter()
        self.pongs = 0
        self.ended: set[int] = set()
        self.closed = False
        self._reader = reader
        self._happened = anyio.Event()

    async def flood(self, data: bytes, *, limit: int) -> None:
        """Send *data* again and again, *limit* bytes at most, until the service closes the connection."""
        with suppress(ConnectionError):
            for _ in range(-(-limit // len(data))):
                if self.closed:
                    return
                self.writer.write(data)
                await self.writer.drain()
                await asyncio.sleep(0)  # with room in the socket, drain does not wait

    async def send(self, data: bytes) -> None:
        """Send *data*, unless the service closes the connection meanwhile."""
        with suppress(ConnectionError):
            for start in range(0, len(data), 1 << 14):
                self.writer.write(data[start : start + (1 << 14)])
                await self.writer.drain()
                await asyncio.sleep(0)

    async def until_closed(self) -> None:
        """Wait until the service has closed the connection."""
        await self.until(lambda: self.closed)

    async def until(self, condition: object) -> None:
        """Wait until *condition*, a function without arguments, holds."""
        assert callable(condition)
        with anyio.fail_after(PATIENCE):
            while not condition():
                await self._happened.wait()

    async def read(self) -> None:
        """Read until the service closes the connection."""
        buffer = bytearray()
        with suppress(OSError):
            while data := await self._reader.read(1 << 16):
                buffer += data
                while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3], "big"):
                    self._take(buffer)
                self._tell()
        self.closed = True
        self._tell()

    def _take(self, buffer: bytearray) -> None:
        frame, size = Frame.parse_frame_header(memoryview(bytes(buffer[:9])))
        frame.parse_body(memoryview(bytes(buffer[9 : 9 + size])))
        del buffer[: 9 + size]
        match frame:
            case GoAwayFrame():
                self.goaway = frame.error_code
            case RstStreamFrame():
                self.resets[frame.error_code] += 1
                self.ended.add(frame.stream_id)
            case DataFrame():
                self.data[frame.stream_id] += len(frame.data)
            case PingFrame() if "ACK" in frame.flags:
                self.pongs += 1
            case PingFrame():
                self._pong(frame)
            case HeadersFrame() if "END_STREAM" in frame.flags:
                self.ended.add(frame.stream_id)
            case _:
                pass

    def _pong(self, ping: PingFrame) -> None:
        if not self.writer.is_closing():
            self.writer.write(PingFrame(0, flags=["ACK"], opaque_data=ping.opaque_data).serialize())

    def _tell(self) -> None:
        self._happened.set()
        self._happened = anyio.Event()


@asynccontextmanager
async def offender(
    port: int, *, hello: bytes = PREFACE, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Offender]:
    """A connection that has sent *hello*."""
    options = {"server_hostname": "localhost", "ssl_shutdown_timeout": 0.1} if tls else {}
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, **options)  # type: ignore[arg-type]  # typed apart
    client = Offender(reader, writer)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(client.read)
            await client.send(hello)
            yield client
            group.cancel_scope.cancel()
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def serialized(frames: Sequence[Frame]) -> bytes:
    """The bytes of *frames*."""
    return b"".join(frame.serialize() for frame in frames)


def window(size: int, *, stream: int = 0) -> bytes:
    """A window that is opened by *size* bytes."""
    return bytes(WindowUpdateFrame(stream, window_increment=size).serialize())
