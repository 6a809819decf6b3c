"""What stands around the handlers."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from imgbuilder.pb.builder import LogsRequest, LogsResponse
from imgbuilder.runtime.grpc.interceptors import Call, Proceed
from tests.unit.grpc.raw import head, raw_client
from tests.unit.grpc.serving import (
    CHATTING,
    STREAMING,
    UNARY,
    UPLOADING,
    Stream,
    ask,
    call,
    channel_to,
    echo,
    serving,
)


async def test_order() -> None:
    """The first is the outermost."""
    events = []

    def named(name: str) -> Any:
        async def intercept(_: Call, proceed: Proceed) -> None:
            events.append(f"{name} in")
            await proceed()
            events.append(f"{name} out")

        return intercept

    async with serving(interceptors=[named("a"), named("b")]) as served, channel_to(served) as channel:
        await ask(channel, "Echo")
    assert events == ["a in", "b in", "b out", "a out"]


@pytest.mark.parametrize(
    ("cardinality", "kind"),
    [(UNARY, "unary"), (STREAMING, "server_stream"), (UPLOADING, "client_stream"), (CHATTING, "bidi_stream")],
)
async def test_what_they_see(cardinality: Any, kind: str) -> None:
    """The names that metrics use, who calls, what it added, until when it waits."""
    calls: list[Call] = []

    async def look(call: Call, proceed: Proceed) -> None:
        calls.append(call)
        assert call.peer.startswith("127.0.0.1:")
        await proceed()

    async with (
        serving(echo, cardinality, interceptors=[look]) as served,
        channel_to(served) as channel,
        call(channel, cardinality=cardinality, metadata={"x": "y"}, timeout=5) as stream,
    ):
        await stream.send_message(LogsRequest(), end=True)
        await stream.recv_message()
    (seen,) = calls
    assert (seen.path, seen.service, seen.method) == ("/test.Service/Call", "test.Service", "Call")
    assert (seen.type, seen.cardinality) == (kind, cardinality)
    assert seen.metadata["x"] == "y"
    assert seen.deadline is not None
    assert 0 < seen.deadline.time_remaining() <= 5


async def test_they_count_messages() -> None:
    """Each when it has passed, not at the end of the call."""
    counts = {"received": 0, "sent": 0}

    def count(what: str) -> Any:
        def one() -> None:
            counts[what] += 1

        return one

    async def watch(call: Call, proceed: Proceed) -> None:
        call.watch_messages(received=count("received"), sent=count("sent"))
        await proceed()

    async def chat(stream: Stream) -> None:
        async for _ in stream:
            await stream.send_message(LogsResponse())
            await stream.send_message(LogsResponse())

    async with (
        serving(chat, CHATTING, interceptors=[watch]) as served,
        channel_to(served) as channel,
        call(channel, cardinality=CHATTING) as stream,
    ):
        for number in range(1, 4):
            await stream.send_message(LogsRequest())
            await stream.recv_message()
            await stream.recv_message()
            assert counts == {"received": number, "sent": 2 * number}
        await stream.end()


async def test_they_end_calls() -> None:
    """By raising before the handler, or instead of what it raised."""

    async def map_errors(call: Call, proceed: Proceed) -> None:
        if "x-refuse" in call.metadata:
            raise GRPCError(Status.PERMISSION_DENIED, "no")
        try:
            await proceed()
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error

    async def fail(_: Stream) -> None:
        raise ValueError("bad value")

    async with serving(fail, interceptors=[map_errors]) as served, channel_to(served) as channel:
        with pytest.raises(GRPCError, match="bad value"):
            await ask(channel)
        with pytest.raises(GRPCError) as caught:
            await ask(channel, metadata={"x-refuse": "1"})
        assert caught.value.status is Status.PERMISSION_DENIED


async def test_why_a_call_was_cancelled() -> None:
    """By its deadline, by its caller, by the loss of the connection, or because the server stops."""
    begun: asyncio.Queue[None] = asyncio.Queue()
    seen: list[Status] = []

    async def observe(call: Call, proceed: Proceed) -> None:
        try:
            await proceed()
        except asyncio.CancelledError:
            seen.append(call.status_of_cancellation())
            raise

    async def hang(_: Stream) -> None:
        begun.put_nowait(None)
        await anyio.sleep_forever()

    hanging = head("/test.Service/Call")
    async with serving(hang, interceptors=[observe]) as served:
        async with raw_client(served.address) as client:
            await client.call(head("/test.Service/Call", ("grpc-timeout", "20m")))
            number = client.open(hanging)
            await client.ping()
            client.h2.reset_stream(number)
            await client.ping()
            await served.server.drained()
            assert seen == [Status.DEADLINE_EXCEEDED, Status.CANCELLED]
            client.open(hanging)
            await client.ping()
        await served.server.drained()
        assert seen.pop() is Status.CANCELLED
        async with raw_client(served.address) as client:
            client.open(hanging)
            await client.ping()
            async with anyio.create_task_group() as group:
                group.start_soon(served.server.stop)
                await client.until_closed()
            assert seen.pop() is Status.UNAVAILABLE


async def test_errors_of_callers_that_left_pass_through() -> None:
    """An interceptor may see the error that grpclib makes of a cancellation, too."""
    seen: list[BaseException] = []

    async def observe(_: Call, proceed: Proceed) -> None:
        try:
            await proceed()
        except BaseException as error:
            seen.append(error)
            raise

    async def hang(_: Stream) -> None:
        await anyio.sleep_forever()

    async with serving(hang, interceptors=[observe]) as served, raw_client(served.address) as client:
        number = client.open(head("/test.Service/Call"))
        await client.ping()
        client.h2.reset_stream(number)
        await client.ping()
        await served.server.drained()
    assert [type(error) for error in seen] in ([asyncio.CancelledError], [StreamTerminatedError])
