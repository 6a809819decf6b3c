"""A server that leaves: in stages, with every caller told."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.errors import ErrorCodes

from imgbuilder.pb.builder import LogsResponse
from imgbuilder.runtime.grpc.server import Server
from tests.unit.grpc.raw import framed, head, raw_client
from tests.unit.grpc.serving import STREAMING, Stream, ask, channel_to, serving


class Streaming:
    """A handler that sends what the test tells it to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def __call__(self, stream: Stream) -> None:
        """Begin, and then send what is put into the queue."""
        await stream.send_message(LogsResponse())
        self.begun.set()
        while (content := await self.queue.get()) is not None:
            await stream.send_message(LogsResponse(content=content))


async def test_drain() -> None:
    """Peers are told, open calls go on, new ones are refused, and then the connection is closed."""
    handler = Streaming()
    async with serving(handler, STREAMING) as served, raw_client(served.address) as client:
        number = client.open(head("/test.Service/Call"))
        await handler.begun.wait()
        await served.server.drain()
        await served.server.drain()  # again, which does nothing
        late = client.open()  # was on its way already
        await client.until(lambda: client.goaway is not None)
        assert client.goaway is not None
        assert client.goaway.error_code == ErrorCodes.NO_ERROR
        assert client.goaway.last_stream_id == number

        # h2 is done with a connection after a GOAWAY, so what follows is looked at as bytes
        handler.queue.put_nowait(b"more")
        handler.queue.put_nowait(None)
        await served.server.drained()
        await client.until_closed()
        rest = bytes(client.received)
        assert framed(b"\x0a\x04more") in rest
        refused = (
            b"\x00\x00\x04\x03\x00" + late.to_bytes(4, "big") + ErrorCodes.REFUSED_STREAM.to_bytes(4, "big")
        )
        assert refused in rest
        await served.server._connections.none()


async def test_drain_closes_idle_connections_and_takes_no_new_ones() -> None:
    """Nobody has to wait for those."""
    async with serving() as served, raw_client(served.address) as client:
        await served.server.drain()
        await client.until_closed()
        assert client.goaway is not None
        await served.server.drained()
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection(served.address.host, served.address.port)


async def test_stop_tells_callers() -> None:
    """UNAVAILABLE, so that they call elsewhere; handlers are cancelled, and may clean up."""
    handler, cleaned = Streaming(), False

    async def stream_and_clean_up(stream: Stream) -> None:
        nonlocal cleaned
        try:
            await handler(stream)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            cleaned = True

    async with serving(stream_and_clean_up, STREAMING) as served, raw_client(served.address) as client:
        number = client.open(head("/test.Service/Call"))
        waiting = client.open(head("/test.Service/Call", ("grpc-timeout", "1H")))
        await handler.begun.wait()
        await client.ping()
        async with anyio.create_task_group() as group:
            group.start_soon(served.server.stop)
            await client.until_closed()
        for one in (number, waiting):
            answer = client.answers[one]
            assert (answer.status, answer.message) == (Status.UNAVAILABLE.value, "the server is stopping")
        assert served.server.open_calls == 0
        assert served.server.connections == 0
    assert cleaned


async def test_stop_with_nothing_to_end() -> None:
    """Before and after it listened."""
    async with serving() as served:
        await served.server.stop()
        await served.server.stop()


async def test_clients_of_grpclib_see_the_status() -> None:
    """Also that of a call which has got nothing yet."""
    begun = asyncio.Event()

    async def hang(_: Stream) -> None:
        begun.set()
        await anyio.sleep_forever()

    async def stop_when_begun(server: Server) -> None:
        await begun.wait()
        await server.stop()

    async with (
        serving(hang) as served,
        channel_to(served) as channel,
        anyio.create_task_group() as group,
    ):
        group.start_soon(stop_when_begun, served.server)
        with pytest.raises(GRPCError) as caught:
            await ask(channel)
    assert (caught.value.status, caught.value.message) == (Status.UNAVAILABLE, "the server is stopping")


async def test_a_message_that_was_sent_in_part() -> None:
    """Trailers would be taken for its rest: the stream is reset, with the code that clients read the same from."""

    async def send(stream: Stream) -> None:
        await stream.send_message(LogsResponse(content=bytes(200_000)))

    async with serving(send, STREAMING) as served, raw_client(served.address) as client:
        client.acknowledge = False
        answer = client.answers[client.open(head("/test.Service/Call"))]
        await client.until(lambda: len(answer.data) == 65_535)
        async with anyio.create_task_group() as group:
            group.start_soon(served.server.stop)
            await client.until_closed()
        assert answer.reset == ErrorCodes.REFUSED_STREAM
        assert answer.status == -1


async def test_a_deadline_in_the_middle_of_a_message() -> None:
    """The same, with another code."""

    async def send(stream: Stream) -> None:
        await stream.send_message(LogsResponse(content=bytes(200_000)))

    async with serving(send, STREAMING) as served, raw_client(served.address) as client:
        client.acknowledge = False
        answer = await client.call(head("/test.Service/Call", ("grpc-timeout", "50m")))
        assert answer.reset == ErrorCodes.CANCEL
        assert answer.status == -1


async def test_callers_may_call_elsewhere() -> None:
    """After a drain a channel of grpclib connects anew."""
    async with serving() as first, channel_to(first) as channel:
        await ask(channel, "Echo")
        port = first.address.port
        await first.server.stop()
        async with serving(port=port) as second:
            assert second.address.port == port
            assert (await ask(channel, "Echo", ref="again")).content == b"again"
