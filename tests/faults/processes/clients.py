"""Clients as there are: they call again when the service can't be reached, and remember all that they were told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import grpc
import grpc.aio

from imgbuilder.pb.builder import BuildRequest, BuildResponse, BuildStatus, LogsRequest, LogsResponse
from tests.contract.service.client import METHODS

FINAL: Final = frozenset({BuildStatus.done_success, BuildStatus.done_failure})
LONGEST_PAUSE: Final = 0.5
OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # it is also how long connecting may take
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
)


class Server:
    """A server, and a few connections to it, which many clients share."""

    def __init__(self, port: int, connections: int = 8) -> None:
        self.port = port
        self.open_streams = 0
        self.goes_away = False
        """Whether clients should look for another one, as a load balancer tells them."""
        self._channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", [*OPTIONS, ("grpc.channel_id", number)])
            for number in range(connections)
        ]

    async def call(self, request: Any, take: Callable[[Any], None], chance: random.Random) -> None:
        """Call the method that takes *request* and answers with a stream; *take* gets each response.

        :raises grpc.aio.AioRpcError: if the call ends with another status than OK.
        """
        call = self.begin(request, chance)
        self.open_streams += 1
        try:
            async for response in call:
                take(response)
        finally:
            self.open_streams -= 1
            call.cancel()

    def begin(self, request: Any, chance: random.Random) -> Any:
        """The call of the method that takes *request*, as grpcio has it: to be awaited, or iterated over."""
        name, cardinality, kind = METHODS[type(request)]
        channel = chance.choice(self._channels)
        make = channel.unary_stream if cardinality.server_streaming else channel.unary_unary
        path = f"/builder.ImageBuilder/{name}"
        return make(path, request_serializer=bytes, response_deserializer=kind.parse)(request)

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()


def is_passing(error: grpc.aio.AioRpcError) -> bool:
    """Whether real clients call again after *error*; a lost connection is the same to them."""
    return bool(error.code() is grpc.StatusCode.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that did not end well, after so many responses."""

    server: Server
    error: grpc.aio.AioRpcError
    told: int


@dataclass(kw_only=True)
class BuildClient:
    """Wants an image, and calls Build until it is told how that ended.

    :ivar wish: the number of that image.
    :ivar calls: what each call was told.
    :ivar errors: how each call ended that did not end well: whom it called, what it had been told by then.
    :ivar refusal: the error that it could not but believe.
    """

    name: str
    wish: int
    request: BuildRequest
    servers: Sequence[Server]
    chance: random.Random
    after: float = 0.0
    calls: list[list[BuildResponse]] = field(default_factory=list)
    errors: list[Failure] = field(default_factory=list)
    refusal: grpc.aio.AioRpcError | None = None
    on_told: Callable[[BuildResponse], None] = lambda _: None

    @property
    def last(self) -> BuildResponse | None:
        """What it was told last in its last call."""
        return self.calls[-1][-1] if self.calls and self.calls[-1] else None

    @property
    def ended(self) -> bool:
        """Whether it knows how it ended."""
        return self.refusal is not None or (self.last is not None and self.last.status in FINAL)

    @property
    def build_ids(self) -> set[str]:
        """The builds that it was told of."""
        return {response.info.build_id for call in self.calls for response in call if response.info}

    async def run(self) -> None:
        """Call until it is told."""
        await anyio.sleep(self.after)
        while not self.ended:
            server = choose(self.servers, self.chance)
            told: list[BuildResponse] = []
            self.calls.append(told)

            def take(response: BuildResponse, told: list[BuildResponse] = told) -> None:
                told.append(response)
                self.on_told(response)

            try:
                await server.call(self.request, take, self.chance)
            except grpc.aio.AioRpcError as error:
                self.errors.append(Failure(server, error, told=len(told)))
                if not is_passing(error):
                    self.refusal = error
                    return
                await anyio.sleep(self.chance.uniform(0.02, LONGEST_PAUSE))
            else:
                assert self.ended, f"{self.name}: OK, but not the end of a build: {told}"


@dataclass(kw_only=True)
class LogReader:
    """Reads the log of a build from its beginning to its end, if need be again.

    :ivar received: in the present attempt.
    :ivar complete: whether the service said that this is all.
    :ivar gone: whether no service knows the build any more.
    :ivar errors: as those of a `BuildClient`; told is in bytes.
    """

    name: str
    build_id: str
    servers: Sequence[Server]
    chance: random.Random
    is_over: Callable[[], bool]
    received: bytearray = field(default_factory=bytearray)
    complete: bool = False
    gone: bool = False
    attempts: int = 0
    errors: list[Failure] = field(default_factory=list)

    async def run(self) -> None:
        """Read until it is complete, or there is nothing to be had any more."""
        request = LogsRequest(build_id=self.build_id)
        while not self.complete and not self.gone:
            self.received.clear()
            self.attempts += 1
            server = choose(self.servers, self.chance)
            try:
                await server.call(request, self._take, self.chance)
            except grpc.aio.AioRpcError as error:
                self.errors.append(Failure(server, error, told=len(self.received)))
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    self.gone = self.is_over()  # else a service that has just started does not know it yet
                elif not is_passing(error):
                    raise
                await anyio.sleep(self.chance.uniform(0.02, LONGEST_PAUSE))
            else:
                self.complete = True

    def _take(self, response: LogsResponse) -> None:
        self.received += response.content


def choose(servers: Iterable[Server], chance: random.Random) -> Server:
    """One of *servers* that does not go away."""
    return chance.choice([server for server in servers if not server.goes_away])
