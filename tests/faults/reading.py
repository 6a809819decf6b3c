"""Output that says of each of its bytes where it stands, and readers that check that they get it."""

from __future__ import annotations

import re
from typing import Final

import anyio

from imgbuilder.orchestrator.logs.follower import CONNECTED, CONNECTING
from imgbuilder.pb.builder import LogsRequest
from tests.contract.service.client import Client

BEGINNING: Final = CONNECTING + CONNECTED
LEFT_OUT: Final = re.compile(rb"\n\[\.\.\. (\d+) bytes of output are left out here \.\.\.\]\n")
UNIT: Final = 16
BLOCK: Final = 64 * 1024


def block(start: int) -> bytes:
    """Output from byte *start* on: numbers, each of which says where it stands, and no line feed."""
    return b"".join(b"%015x " % place for place in range(start, start + BLOCK, UNIT))


class Reading:
    """What a reader has got of a log whose output is all `block`.

    :ivar left_out: bytes that it was told are missing.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._offset = 0
        self._moved = anyio.Event()

    @property
    def place(self) -> int:
        """How much of the output it has got, or was told of."""
        return self._offset - len(BEGINNING)

    async def reach(self, place: int) -> None:
        """Wait until it has got so far."""
        while self.place < place:
            await self._moved.wait()

    def take(self, chunk: bytes) -> None:
        """Check that *chunk* comes next."""
        missing = LEFT_OUT.fullmatch(chunk)
        if missing is not None:
            self.left_out += int(missing[1])
            self._offset += int(missing[1])
        else:
            assert chunk == _expected(self._offset, self._offset + len(chunk)), f"at byte {self._offset}"
            self._offset += len(chunk)
        self._moved.set()
        self._moved = anyio.Event()


def _expected(start: int, end: int) -> bytes:
    """What a log says between two of its bytes."""
    if start < len(BEGINNING):
        output = BEGINNING + _expected(len(BEGINNING), max(end, len(BEGINNING)))
        return output[start:end]
    start, end = start - len(BEGINNING), end - len(BEGINNING)
    first = start - start % UNIT
    return b"".join(b"%015x " % place for place in range(first, end, UNIT))[start - first : end - first]


async def read(client: Client, build_id: str, reading: Reading) -> None:
    """Read a log to its end."""
    async with client.open(LogsRequest(build_id=build_id)) as call:
        while True:
            chunk = await call._stream.recv_message()
            if chunk is None:
                return
            reading.take(chunk.content)
