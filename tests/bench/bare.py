"""``python -m tests.bench.bare``: the floor, a bare grpclib server that sends ready-made bytes.

It is told by each request, in JSON, what to send. Nothing is encoded, looked up or kept: what a service on the
same library needs beyond this is its own.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Any, Final

import anyio
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream
from h2.settings import SettingCodes

from tests.bench.lines import Pace, stamped
from tests.bench.loops import OPTIONS

SEND: Final = "/bare.Bare/Send"
"""Sends the same message of *size* bytes *count* times, and one more that ends with *until*."""
PACE: Final = "/bare.Bare/Pace"
"""Sends stamped lines of 100 bytes, *rate* a second, for *seconds*; each time what has become due since."""
IDLE: Final = "/bare.Bare/Idle"
"""Sends one message, and no more."""

STREAMS: Final = 10_000
TICK: Final = 0.005


class BytesCodec(CodecBase):
    """Passes bytes through."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """The message."""
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        """The data."""
        return data


class BareServer(Server):
    """grpclib's server, less its limit of 100 streams on a connection."""

    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        made = protocol.connection_made

        def connection_made(transport: Any) -> None:
            made(transport)
            connection = protocol.connection
            connection._connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS})
            connection.flush()

        protocol.connection_made = connection_made  # type: ignore[method-assign]
        return protocol


class Bare:
    """The handlers."""

    def __mapping__(self) -> dict[str, Handler]:
        """By path."""
        handlers = {SEND: self._send, PACE: self._pace, IDLE: self._idle}
        return {
            path: Handler(handler, Cardinality.UNARY_STREAM, bytes, bytes)
            for path, handler in handlers.items()
        }

    async def _send(self, stream: Stream[bytes, bytes]) -> None:
        task = await _asked(stream)
        message = _content(b"." * task["size"])
        last = _content((b"." * task["size"] + task["until"].encode())[-task["size"] :])
        for number in range(task["count"]):
            await stream.send_message(message)
            if number % 8 == 7:
                await anyio.lowlevel.checkpoint()  # grpclib does not let others run while there is room
        await stream.send_message(last)

    async def _pace(self, stream: Stream[bytes, bytes]) -> None:
        task = await _asked(stream)
        begun = time.time()
        pace = Pace(task["rate"], begun)
        while (now := time.time()) < begun + task["seconds"]:
            lines = b"".join(map(stamped, pace.due(now)))
            if lines:
                await stream.send_message(_content(lines))
            await anyio.sleep(TICK)

    async def _idle(self, stream: Stream[bytes, bytes]) -> None:
        await _asked(stream)
        await stream.send_message(b"")
        await anyio.sleep_forever()


async def _asked(stream: Stream[bytes, bytes]) -> dict[str, Any]:
    return dict(json.loads(await stream.recv_message() or b"{}"))


def _content(data: bytes) -> bytes:
    """*data* as the first field of a message."""
    size, length = len(data), b""
    while size >= 0x80:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return b"\x0a" + length + bytes([size]) + data


async def serve() -> None:
    """Serve until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0))
    await BareServer([Bare()], codec=BytesCodec()).start(sock=listener)
    port = listener.getsockname()[1]
    sys.stdout.write(json.dumps({"event": "serving", "port": port}) + "\n")
    sys.stdout.flush()
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(serve, backend_options=dict(OPTIONS))
