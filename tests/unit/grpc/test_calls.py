"""Calls as well-behaved clients make them: what they carry, how they end."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from betterproto2.grpclib import ServiceStub
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from imgbuilder.pb.builder import LogsRequest, LogsResponse
from imgbuilder.runtime.grpc.codec import encode
from imgbuilder.runtime.grpc.limits import Limits
from imgbuilder.runtime.grpc.service import receive
from imgbuilder.runtime.grpc.streams import DEAF, NEVER
from tests.unit.grpc.raw import framed, head, raw_client, request
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
    replies,
    serving,
)


async def test_unary() -> None:
    """One message there, one back."""
    async with serving() as served, channel_to(served) as channel:
        assert await ask(channel, "Echo", ref="hello") == LogsResponse(content=b"hello")


async def test_streams_in_both_directions() -> None:
    """Messages of any size, also larger than windows and frames, in their order."""

    async def chat(stream: Stream) -> None:
        async for message in stream:
            await stream.send_message(LogsResponse(content=message.build_ref.encode()))

    sizes = [0, 1, 5, 16_384, 70_000, 3_000_000, 2]
    async with (
        serving(chat, CHATTING) as served,
        channel_to(served) as channel,
        call(channel, cardinality=CHATTING) as stream,
    ):
        for size in sizes:
            await stream.send_message(LogsRequest(build_ref="x" * size))
            answer = await stream.recv_message()
            assert answer is not None
            assert answer.content == b"x" * size
        await stream.end()
        assert await stream.recv_message() is None


async def test_many_calls_at_once_on_one_connection() -> None:
    """More than the hundred that HTTP/2 libraries allow by default."""
    arrived, release = 0, asyncio.Event()

    async def wait(stream: Stream) -> None:
        nonlocal arrived
        await receive(stream)
        arrived += 1
        if arrived == 300:
            release.set()
        await release.wait()
        await stream.send_message(LogsResponse())

    async with serving(wait) as served, channel_to(served) as channel:
        async with anyio.create_task_group() as group:
            for _ in range(300):
                group.start_soon(ask, channel)
        assert served.server.open_calls == 0
        assert served.server.connections == 1


async def test_encoded_replies() -> None:
    """A handler may send bytes that are a message already."""
    ready = encode(LogsResponse(content=b"ready"))

    async def send(stream: Any) -> None:
        await receive(stream)
        await stream.send_message(ready)
        await stream.send_message(ready)

    async with serving(send, STREAMING) as served, channel_to(served) as channel:
        assert [message.content for message in await replies(channel)] == [b"ready", b"ready"]


async def test_metadata_and_peer() -> None:
    """Handlers see what callers add, and who they are."""
    seen: list[Any] = []

    async def look(stream: Stream) -> None:
        seen.extend([dict(stream.metadata or {}), stream.peer.addr()])
        await echo(stream)

    async with serving(look) as served, channel_to(served) as channel:
        await ask(channel, metadata={"x-text": "a b", "x-bytes-bin": b"\x00\xff"})
    assert seen[0] == {"x-text": "a b", "x-bytes-bin": b"\x00\xff"}
    assert seen[1][0] == "127.0.0.1"


# --- how calls end ----------------------------------------------------------------------------------------


async def _status_of(function: Any, cardinality: Any = UNARY, **options: Any) -> tuple[Status, str | None]:
    async with serving(function, cardinality) as served, channel_to(served) as channel:
        with pytest.raises(GRPCError) as caught:
            await replies(channel, cardinality=cardinality, **options)
        # and the connection lives on
        assert (await ask(channel, "Echo", ref="still")).content == b"still"
    return caught.value.status, caught.value.message


async def test_a_status_that_a_handler_raises() -> None:
    """With a text in any script and on many lines."""

    async def fail(_: Stream) -> None:
        raise GRPCError(Status.NOT_FOUND, "nicht gefunden: ✗\n50%")

    assert await _status_of(fail) == (Status.NOT_FOUND, "nicht gefunden: ✗\n50%")


async def test_a_status_after_messages() -> None:
    """It comes in the trailers."""

    async def fail(stream: Stream) -> None:
        await stream.send_message(LogsResponse(content=b"first"))
        raise GRPCError(Status.ABORTED, "enough")

    assert await _status_of(fail, STREAMING) == (Status.ABORTED, "enough")


async def test_a_status_from_a_task_group() -> None:
    """It arrives in groups of exceptions, and yet is the status."""

    async def child() -> None:
        raise GRPCError(Status.NOT_FOUND, "from a child")

    async def fail(_: Stream) -> None:
        async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
            outer.start_soon(anyio.sleep_forever)
            inner.start_soon(child)

    assert await _status_of(fail) == (Status.NOT_FOUND, "from a child")


async def _bug() -> None:
    raise ValueError("secret")


async def _bug_in_a_task_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_bug)


async def _timeout_of_its_own() -> None:
    raise TimeoutError


@pytest.mark.parametrize("bug", [_bug, _bug_in_a_task_group, _timeout_of_its_own])
async def test_a_bug(bug: Any) -> None:
    """INTERNAL, whatever it was, and nothing of what it says."""

    async def fail(_: Stream) -> None:
        await bug()

    assert await _status_of(fail) == (Status.INTERNAL, "internal error")


async def test_no_answer() -> None:
    """A handler that returns without a reply has a bug, too."""

    async def forget(stream: Stream) -> None:
        await receive(stream)

    assert await _status_of(forget) == (Status.INTERNAL, "the call was not answered")


async def test_deadline() -> None:
    """The handler is cancelled, cleans up, and the caller is told."""
    cleaned = asyncio.Event()

    async def hang(stream: Stream) -> None:
        await receive(stream)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            cleaned.set()

    # the client's own clock would end the call first, and tell nothing of the server
    async with serving(hang) as served, raw_client(served.address) as client:
        answer = await client.call(head("/test.Service/Call", ("grpc-timeout", "50m")))
    assert (answer.status, answer.message) == (Status.DEADLINE_EXCEEDED.value, "the deadline is over")
    assert cleaned.is_set()


async def test_deadline_over_on_arrival() -> None:
    """The handler does not even begin."""
    async with serving(_never) as served, raw_client(served.address) as client:
        answer = await client.call(head("/test.Service/Call", ("grpc-timeout", "0n")))
    assert answer.status == Status.DEADLINE_EXCEEDED.value


async def _never(_: Stream) -> None:
    raise AssertionError("this handler is not to be called")


async def test_a_caller_that_leaves() -> None:
    """The handler is cancelled once: its clean-up may take its time, even when the connection goes, too."""
    begun, resume, events = asyncio.Event(), asyncio.Event(), []

    async def hang(stream: Stream) -> None:
        await receive(stream)
        begun.set()
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            events.append("cancelled")
            await resume.wait()
            events.append("cleaned up")
            raise

    async with serving(hang, STREAMING) as served:
        async with channel_to(served) as channel:
            async with call(channel, cardinality=STREAMING) as stream:
                await stream.send_message(LogsRequest(), end=True)
                await begun.wait()
                await stream.cancel()
            await ask(channel, "Echo")  # the reset came before this
            assert served.server.open_calls == 1
        await served.server._connections.none()
        resume.set()
        await served.server.drained()
    assert events == ["cancelled", "cleaned up"]


async def test_a_connection_that_is_lost() -> None:
    """All its handlers are cancelled."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_: Stream) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(hang) as served:
        async with raw_client(served.address) as client:
            client.open(head("/test.Service/Call"))
            await begun.wait()
            client.writer.transport.abort()
        await cancelled.wait()
        await served.server.drained()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/test.Service/Other", "unknown method Other for service test.Service"),
        ("/test.Other/Echo", "unknown service test.Other"),
    ],
)
async def test_unknown_calls(path: str, message: str) -> None:
    """UNIMPLEMENTED, and what is unknown."""
    async with serving() as served, channel_to(served) as channel:
        stub = ServiceStub(channel)
        with pytest.raises(GRPCError) as caught:
            await stub._unary_unary(path, LogsRequest(), LogsResponse)
    assert (caught.value.status, caught.value.message) == (Status.UNIMPLEMENTED, message)


# --- requests that are not what they should be ------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", Status.INTERNAL, "the request ended without a message"),
        (framed(b"x", flag=1), Status.UNIMPLEMENTED, "compressed messages are not supported"),
        (framed(b"\x0a"), Status.INTERNAL, "can't decode LogsRequest: the data is truncated"),
        (request()[:-1], Status.INTERNAL, "the request ended in the middle of a message"),
        (b"\x00\x00", Status.INTERNAL, "the request ended in the middle of a message"),
    ],
    ids=["none", "compressed", "undecodable", "cut short", "cut shorter"],
)
async def test_broken_requests(data: bytes, status: Status, message: str) -> None:
    """Each has its status, and the connection lives on."""
    async with serving() as served, raw_client(served.address) as client:
        answer = (
            await client.call(data=data) if data else await client.answer(client.open(data=b"", end=True))
        )
        assert (answer.status, answer.message) == (status.value, message)
        assert (await client.call()).status == 0


async def test_a_request_of_no_messages_may_be_right() -> None:
    """Where the caller streams."""

    async def count(stream: Stream) -> None:
        await stream.send_message(LogsResponse(content=b"%d" % len([message async for message in stream])))

    async with (
        serving(count, UPLOADING) as served,
        channel_to(served) as channel,
        call(channel, cardinality=UPLOADING) as stream,
    ):
        await stream.send_request(end=True)
        assert await stream.recv_message() == LogsResponse(content=b"0")


async def test_a_request_that_is_too_large() -> None:
    """Is refused when its size is known, not when it has come; the limit is named."""
    async with serving(limits=Limits(message_size=1000)) as served, raw_client(served.address) as client:
        assert (await client.call(data=request("x" * 990))).status == 0
        answer = await client.answer(client.open(data=b"\x00\x00\x00\x03\xe9", end=False))
        assert answer.status == Status.RESOURCE_EXHAUSTED.value
        assert answer.message == "the request has 1001 bytes, more than the limit of 1000"
        assert answer.ended
        assert answer.reset == 0 or answer.reset is None  # or not yet seen
        assert (await client.call()).status == 0


async def test_a_client_that_sends_too_much_gets_the_status() -> None:
    """Also while it is still sending."""
    async with serving(limits=Limits(message_size=1000)) as served, channel_to(served) as channel:
        with pytest.raises(GRPCError) as caught:
            await ask(channel, "Echo", ref="x" * 5_000_000)
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert (await ask(channel, "Echo", ref="fine")).content == b"fine"


async def test_too_many_large_requests_at_once() -> None:
    """Their sum is limited, too; small ones always come through."""
    large = (200_000).to_bytes(5, "big") + bytes(100)
    limits = Limits(receiving=300_000)
    async with serving(limits=limits) as served, raw_client(served.address) as client:
        first = client.open(data=large, end=False)
        second = await client.answer(client.open(data=large, end=False))
        assert second.status == Status.RESOURCE_EXHAUSTED.value
        assert (await client.call()).status == 0
        client.h2.reset_stream(first)
        client.flush()
        await client.ping()
        assert (await client.call(data=request("x" * 200_000))).status == 0


async def test_a_call_that_waits_holds_little() -> None:
    """What it took to receive the request is given back: thousands wait for their builds."""
    waiting, release = asyncio.Event(), asyncio.Event()
    held: list[Any] = []

    async def wait(stream: Stream) -> None:
        await receive(stream)
        transport = stream._stream
        held.extend((transport.buffer, transport.headers_received, transport.trailers_received))
        waiting.set()
        await release.wait()
        assert await stream.recv_message() is None
        await stream.send_message(LogsResponse(content=b"done"))

    async with (
        serving(wait, STREAMING) as served,
        channel_to(served) as channel,
        call(channel, cardinality=STREAMING) as stream,
    ):
        await stream.send_message(LogsRequest(build_ref="a"), end=True)
        await waiting.wait()
        release.set()
        assert [message async for message in stream] == [LogsResponse(content=b"done")]
    assert held == [DEAF, NEVER, NEVER]
