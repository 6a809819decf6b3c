"""``python -m tests.bench.slowload``: what ``load/`` does, on grpcio, for machines without Go.

It is several times slower, so that it, and not the service, may be the limit of what is measured.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import grpc
import grpc.aio

from tests.bench.statistics import quantile

LARGEST: Final = 1 << 30
NAMES: Final = {code: "".join(part.title() for part in code.name.split("_")) for code in grpc.StatusCode}
"""As Go calls them, but for OK."""


@dataclass(slots=True, kw_only=True)
class Stream:
    """What has been received over one call."""

    request: bytes
    sent: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    size: int = 0
    messages: int = 0
    code: str = ""
    reason: str = ""
    tail: bytes = b""
    begun_line: bytes = b""
    delays: list[float] = field(default_factory=list)


class Streams:
    """The streams of *task*, as `tests.bench.loading.Task` spells it."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._task = task
        requests = [base64.b64decode(request) for request in task["requests"]]
        self.streams = [Stream(request=request) for request in requests for _ in range(task["copies"])]
        self._until = task["until"].encode()
        self._begun = 0.0
        self._begun_at = 0.0
        self._left = task["wanted"] or len(self.streams)
        self._unanswered = len(self.streams)
        self.done = anyio.Event()

    async def run(self) -> None:
        """Open them, and read until the wanted number has ended; is cancelled when that is no longer wanted."""
        options = [("grpc.max_receive_message_length", LARGEST), ("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.aio.insecure_channel(self._task["target"], options) for _ in range(self._task["connections"])
        ]
        for channel in channels:
            await channel.channel_ready()
        self._begun_at, self._begun = time.time(), time.perf_counter()
        async with anyio.create_task_group() as group:
            for number, stream in enumerate(self.streams):
                call = channels[number % len(channels)].unary_stream(self._task["method"])
                if self._task["sequential"]:
                    await self._one(stream, call)
                else:
                    group.start_soon(self._one, stream, call)

    def report(self) -> dict[str, Any]:
        """What has happened."""
        streams = self.streams
        delays = sorted(delay for stream in streams for delay in stream.delays)
        return {
            "event": "done",
            "begun": self._begun_at,
            "sent": [stream.sent for stream in streams],
            "first": [stream.first for stream in streams],
            "ended": [stream.ended for stream in streams],
            "bytes": [stream.size for stream in streams],
            "codes": Counter(stream.code for stream in streams),
            "reasons": [stream.reason for stream in streams if stream.reason],
            "messages": sum(stream.messages for stream in streams),
            "delays": {
                "count": len(delays),
                "p50": quantile(delays, 0.5),
                "p99": quantile(delays, 0.99),
                "max": quantile(delays, 1.0),
            },
            "cpu": time.process_time(),
        }

    async def _one(self, stream: Stream, method: Any) -> None:
        stream.sent = self._now()
        call = method(stream.request)
        try:
            if self._task["stalled"]:
                await call.initial_metadata()
                self._answered()
                await anyio.sleep_forever()
            while (message := await call.read()) is not grpc.aio.EOF:
                ended = self._received(stream, message)
                if stream.messages == 1:
                    self._answered()
                if ended:
                    call.cancel()
                    break
            stream.code = "OK"
        except grpc.aio.AioRpcError as error:
            stream.code, stream.reason = NAMES[error.code()], error.details() or ""
        if not stream.messages:
            self._answered()
        stream.ended = self._now()
        self._left -= 1
        if self._left == 0:
            self.done.set()

    def _received(self, stream: Stream, message: bytes) -> bool:
        """Take down a message, and tell whether it is the last that is wanted."""
        content = field_of(message, self._task["field"])
        if not stream.messages:
            stream.first = self._now()
        stream.messages += 1
        stream.size += len(content)
        if self._task["stamped"]:
            now = time.time()
            *lines, stream.begun_line = (stream.begun_line + content).split(b"\n")
            stream.delays += [
                now - int(line[1:].partition(b" ")[0]) / 1e9 for line in lines if line[:1] == b"@"
            ]
        stream.tail = (stream.tail + content[-len(self._until) :])[-len(self._until) :]
        return bool(self._until) and stream.tail == self._until

    def _answered(self) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            tell({"event": "ready"})

    def _now(self) -> float:
        return time.perf_counter() - self._begun


def field_of(message: bytes, path: Sequence[int]) -> bytes:
    """The contents of the field at *path*, e.g. 1, 6 for the sixth of the first; empty if there is none."""
    for number in path:
        message = _sub_field(message, number)
    return message


def _sub_field(message: bytes, number: int) -> bytes:
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        match tag & 7:
            case 0:
                _, place = _varint(message, place)
            case 1:
                place += 8
            case 2:
                size, place = _varint(message, place)
                if tag >> 3 == number:
                    return message[place : place + size]
                place += size
            case _:
                place += 4
    return b""


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7


def tell(value: dict[str, Any]) -> None:
    """Write *value* for whoever has started this."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Do what the first line of the standard input says, until there is another."""
    streams = Streams(json.loads(sys.stdin.buffer.readline()))
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), streams.done.set)
    async with anyio.create_task_group() as group:
        group.start_soon(streams.run)
        await streams.done.wait()
        tell(streams.report())
        group.cancel_scope.cancel()


if __name__ == "__main__":
    asyncio.run(main())
