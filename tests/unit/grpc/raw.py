"""A client that speaks HTTP/2 itself, so that it can do what well-behaved libraries do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from imgbuilder.pb.builder import LogsRequest
from imgbuilder.runtime.grpc.addresses import Address
from imgbuilder.runtime.grpc.codec import encode

Headers = list[tuple[str, str]]

PATIENCE = 10.0
"""Seconds until a test fails that waits for something in vain."""


def head(path: str = "/test.Service/Echo", *more: tuple[str, str], without: Sequence[str] = ()) -> Headers:
    """The headers of a call; those named *without* left out, *more* in place of any of the same name."""
    usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    replaced = {name for name, _ in more} | set(without)
    return [*[one for one in usual if one[0] not in replaced], *more]


def framed(data: bytes, flag: int = 0) -> bytes:
    """A message as gRPC frames it."""
    return bytes((flag,)) + len(data).to_bytes(4, "big") + data


def request(ref: str = "hi") -> bytes:
    """A framed request."""
    return framed(encode(LogsRequest(build_ref=ref)))


@dataclass
class Answer:
    """What came on a stream."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """The status of the call; -1 if it has none."""
        return int(self.headers.get("grpc-status", -1))

    @property
    def message(self) -> str:
        """The text of the status."""
        return self.headers.get("grpc-message", "")


class RawClient:
    """One connection. All waiting is bounded by `PATIENCE`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.answers: dict[int, Answer] = {}
        self.goaway: ConnectionTerminated | None = None
        self.pongs = 0
        self.received = bytearray()
        self.closed = False
        self.acknowledge = True
        self.eager = False
        self.speaking = True

    @staticmethod
    def new_answer() -> Answer:
        """An answer of which nothing has come, for a stream that was opened by hand."""
        return Answer()

    def flush(self) -> None:
        """Send what h2 has prepared."""
        self.writer.write(self.h2.data_to_send())

    def send(self, data: bytes) -> None:
        """Send bytes that h2 does not know of."""
        self.flush()
        self.writer.write(data)

    def open(self, headers: Headers | None = None, data: bytes | None = None, *, end: bool = True) -> int:
        """Open a stream with *headers* and *data*, a request by default; its number."""
        number = self.h2.get_next_available_stream_id()
        data = request() if data is None else data
        self.h2.send_headers(number, headers or head(), end_stream=end and not data)
        for start in range(0, len(data), 16_384):
            piece = data[start : start + 16_384]
            self.h2.send_data(number, piece, end_stream=end and start + len(piece) == len(data))
        self.answers[number] = Answer()
        self.flush()
        return number

    async def answer(self, number: int) -> Answer:
        """The answer on a stream, when it is complete."""
        answer = self.answers[number]
        await self.until(lambda: answer.ended or answer.reset is not None)
        return answer

    async def call(self, headers: Headers | None = None, data: bytes | None = None) -> Answer:
        """The answer to a call."""
        return await self.answer(self.open(headers, data))

    async def until_closed(self) -> None:
        """Wait until the server has closed the connection."""
        await self.until(lambda: self.closed)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Receive until *condition* holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                assert not self.closed, "the server closed the connection"
                await self._receive()

    async def ping(self) -> None:
        """Wait for the answer to a ping: all that was sent before has been handled then."""
        pongs = self.pongs
        self.h2.ping(bytes(8))
        self.flush()
        await self.until(lambda: self.pongs > pongs)

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            self.writer.close()
            return
        self.received += data
        with suppress(ProtocolError):  # h2 accepts nothing behind a GOAWAY
            for event in self.h2.receive_data(data):
                self._handle(event)
        if self.goaway is None and self.speaking:
            self.flush()

    def _handle(self, event: Event) -> None:
        match event:
            case ResponseReceived() | TrailersReceived():
                self.answers[event.stream_id].headers.update(dict(event.headers))  # type: ignore[arg-type]
            case DataReceived():
                self.answers[event.stream_id].data += event.data
                if self.eager:
                    self.h2.increment_flow_control_window(event.flow_controlled_length)
                    if not self.h2.streams[event.stream_id].closed:
                        self.h2.increment_flow_control_window(event.flow_controlled_length, event.stream_id)
                elif self.acknowledge:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self.answers[event.stream_id].ended = True
            case StreamReset():
                self.answers[event.stream_id].reset = event.error_code
            case ConnectionTerminated():
                self.goaway = event
            case PingAckReceived():
                self.pongs += 1
            case _:
                pass


@asynccontextmanager
async def raw_client(address: Address, *, preface: bool = True) -> AsyncIterator[RawClient]:
    """A connection to the server at *address*, which has sent its preface and read the server's."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    client = RawClient(reader, writer)
    client.speaking = preface
    try:
        if preface:
            client.h2.initiate_connection()
            await client.ping()
        yield client
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def calm(client: RawClient) -> bool:
    """Whether the server has told the client to calm down."""
    return client.goaway is not None and client.goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM
