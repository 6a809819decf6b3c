"""Peers that break the protocol, or use up what it allows: they are told so, and nobody else notices."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from grpclib.const import Status
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

from imgbuilder.pb.builder import LogsResponse
from imgbuilder.runtime.grpc.limits import FLOODS, CutOff, Limits
from tests.unit.grpc.raw import RawClient, calm, framed, head, raw_client, request
from tests.unit.grpc.serving import Served, Stream, ask, channel_to, serving


async def _lives_on(client: RawClient) -> None:
    assert (await client.call()).data == framed(b"\x0a\x02hi")


async def _serves_others(served: Served) -> None:
    async with channel_to(served) as channel:
        assert (await ask(channel, "Echo", ref="other")).content == b"other"
    assert served.server.open_calls == 0


# --- odd, but allowed -------------------------------------------------------------------------------------


async def test_unknown_frames_are_ignored() -> None:
    """On the connection and on streams, at any time."""
    async with serving() as served, raw_client(served.address) as client:
        for stream_id in (0, 1, 7):
            client.send(b"\x00\x00\x03\xfa\x00" + struct.pack(">I", stream_id) + b"abc")
        await _lives_on(client)


async def test_headers_may_hold_any_bytes() -> None:
    """A text that is not ASCII reaches the handler; it does not end the connection."""
    async with serving() as served, raw_client(served.address) as client:
        answer = await client.call(head("/test.Service/Echo", ("x-name", "zoë ✗")))
        assert answer.status == 0
        await _lives_on(client)


async def test_empty_data_frames_are_nothing() -> None:
    """Also in the middle of a message."""
    async with serving() as served, raw_client(served.address) as client:
        number = client.open(data=request()[:3], end=False)
        client.send(DataFrame(number).serialize() * 5)
        client.h2.send_data(number, request()[3:], end_stream=True)
        client.flush()
        assert (await client.answer(number)).data == framed(b"\x0a\x02hi")


async def test_padded_data_is_data() -> None:
    """Padding counts for the window, and not for the message."""
    async with serving() as served, raw_client(served.address) as client:
        number = client.open(data=request()[:3], end=False)
        client.h2.send_data(number, request()[3:], end_stream=True, pad_length=200)
        client.flush()
        assert (await client.answer(number)).data == framed(b"\x0a\x02hi")


async def test_a_message_byte_by_byte() -> None:
    """Frames are no messages."""
    async with serving() as served, raw_client(served.address) as client:
        number = client.open(data=request()[:1], end=False)
        for byte in request()[1:]:
            client.h2.send_data(number, bytes((byte,)))
        client.h2.end_stream(number)
        client.flush()
        assert (await client.answer(number)).data == framed(b"\x0a\x02hi")


async def test_bytes_that_come_one_by_one() -> None:
    """A read may end anywhere."""
    async with serving() as served, raw_client(served.address, preface=False) as client:
        client.h2.initiate_connection()
        client.h2.send_headers(1, head())
        client.h2.send_data(1, request(), end_stream=True)
        client.answers[1] = RawClient.new_answer()
        for byte in client.h2.data_to_send():
            client.writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await client.answer(1)).status == 0


@pytest.mark.parametrize(
    ("headers", "http_status"),
    [
        (head(without=[":method"]), "400"),
        (head(without=[":path"]), "400"),
        (head("/test.Service/Echo", (":method", "GET")), "405"),
        (head("/test.Service/Echo", ("content-type", "text/html")), "415"),
        (head("/test.Service/Echo", ("grpc-timeout", "soon")), "400"),
        (head("/test.Service/Echo", ("x-bin", "###")), "400"),
    ],
)
async def test_requests_that_are_no_calls(headers: Any, http_status: str) -> None:
    """Are answered, and the connection lives on."""
    async with serving() as served, raw_client(served.address) as client:
        answer = await client.call(headers)
        assert answer.headers[":status"] == http_status
        assert answer.status == Status.INTERNAL.value
        await _lives_on(client)


async def test_streams_that_the_client_leaves_open_are_closed() -> None:
    """Who was answered may have more to say, but nothing is kept for that."""
    async with serving() as served, raw_client(served.address) as client:
        for _ in range(200):
            answer = await client.answer(client.open(end=False))
            assert answer.status == 0
        await client.ping()
        (protocol,) = served.server._connections
        assert len(protocol.processor.streams) == 0
        assert len(protocol._h2.streams) < 150


# --- not allowed ------------------------------------------------------------------------------------------


async def test_more_streams_than_allowed_are_refused() -> None:
    """In a way that clients take for "try again"; the other streams go on."""
    release = asyncio.Event()

    async def wait(stream: Stream) -> None:
        await release.wait()

    limits = Limits(streams_per_connection=3)
    async with serving(wait, limits=limits) as served, raw_client(served.address) as client:
        assert client.h2.remote_settings.max_concurrent_streams == 3
        open_calls = [client.open(head("/test.Service/Call")) for _ in range(3)]
        client.h2.remote_settings.update({3: 100})
        client.h2.remote_settings.acknowledge()
        refused = await client.call()
        assert (refused.reset, refused.headers) == (ErrorCodes.REFUSED_STREAM, {})
        release.set()
        for number in open_calls:
            assert (await client.answer(number)).status == Status.INTERNAL.value
        await _lives_on(client)


async def _cut_off(served: Served, client: RawClient, code: ErrorCodes, reason: CutOff) -> None:
    await client.until_closed()
    assert client.goaway is not None
    assert client.goaway.error_code == code
    assert served.cut_offs == [reason]
    await _serves_others(served)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (WindowUpdateFrame(0, window_increment=1).serialize()[:-4] + bytes(4), ErrorCodes.PROTOCOL_ERROR),
        (ContinuationFrame(1, data=b"x").serialize(), ErrorCodes.PROTOCOL_ERROR),
        (HeadersFrame(1, data=b"\xff\xff\xff", flags=["END_HEADERS"]).serialize(), ErrorCodes.PROTOCOL_ERROR),
        (DataFrame(5, data=b"x").serialize(), ErrorCodes.PROTOCOL_ERROR),
        (HeadersFrame(2, data=b"\x82", flags=["END_HEADERS"]).serialize(), ErrorCodes.PROTOCOL_ERROR),
    ],
    ids=[
        "window update of 0",
        "naked continuation",
        "headers that are no HPACK",
        "idle stream",
        "even stream",
    ],
)
async def test_breaking_the_protocol(data: bytes, code: ErrorCodes) -> None:
    """The peer gets a GOAWAY, and then the connection is closed."""
    async with serving() as served, raw_client(served.address) as client:
        client.send(data)
        await _cut_off(served, client, code, CutOff.PROTOCOL)


async def test_no_http2_at_all() -> None:
    """HTTP/1.1, for example."""
    async with serving() as served, raw_client(served.address, preface=False) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.until_closed()
        assert served.cut_offs == [CutOff.PROTOCOL]
        await _serves_others(served)


async def test_calls_of_a_peer_that_is_cut_off_are_cancelled() -> None:
    """And cleaned up."""
    cancelled = asyncio.Event()

    async def hang(_: Stream) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(hang) as served, raw_client(served.address) as client:
        client.open(head("/test.Service/Call"))
        await client.ping()
        client.send(ContinuationFrame(1, data=b"x").serialize())
        await _cut_off(served, client, ErrorCodes.PROTOCOL_ERROR, CutOff.PROTOCOL)
        await cancelled.wait()
        await served.server.drained()


async def test_large_frames_are_refused_early() -> None:
    """When 16 MiB are announced, not when they have come."""
    async with serving() as served, raw_client(served.address) as client:
        client.send(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
        await _cut_off(served, client, ErrorCodes.FRAME_SIZE_ERROR, CutOff.PROTOCOL)


async def test_large_headers() -> None:
    """More than the limit that was announced, packed or not."""
    limits = Limits(header_list_size=4000)
    async with serving(limits=limits) as served, raw_client(served.address) as client:
        assert (await client.call(head("/test.Service/Echo", ("x", "y" * 3000)))).status == 0
        client.open(head("/test.Service/Echo", ("x", "y" * 5000)))
        await _cut_off(served, client, ErrorCodes.ENHANCE_YOUR_CALM, CutOff.HEADERS)


async def test_a_header_bomb() -> None:
    """A header that is long in the table and short on the wire, again and again."""
    async with serving() as served, raw_client(served.address) as client:
        await client.call(head("/test.Service/Echo", ("x", "y" * 3900)))
        client.open([*head(), *[("x", "y" * 3900)] * 1000])
        await _cut_off(served, client, ErrorCodes.ENHANCE_YOUR_CALM, CutOff.HEADERS)


async def test_endless_headers() -> None:
    """CONTINUATION frames without an end."""
    async with serving() as served, raw_client(served.address) as client:
        frames: list[Frame] = [HeadersFrame(1, data=b"\x83")]
        frames += [ContinuationFrame(1, data=b"\x00\x01a\x01b") for _ in range(200)]
        client.send(b"".join(frame.serialize() for frame in frames))
        await _cut_off(served, client, ErrorCodes.ENHANCE_YOUR_CALM, CutOff.HEADERS)


async def test_more_streams_than_all_may_have_are_refused() -> None:
    """Whoever has many first: one with few gets its next, and when calls have ended all do."""
    release = asyncio.Event()

    async def wait(_: Stream) -> None:
        await release.wait()

    async with (
        serving(wait, limits=Limits(streams=10)) as served,
        raw_client(served.address) as greedy,
        raw_client(served.address) as modest,
    ):
        numbers = [greedy.open(head("/test.Service/Call")) for _ in range(20)]
        for number in numbers[8:]:
            assert (await greedy.answer(number)).reset == ErrorCodes.REFUSED_STREAM
        await _lives_on(modest)
        release.set()
        for number in numbers[:8]:
            await greedy.answer(number)
        await _lives_on(greedy)
    assert served.cut_offs == []


async def test_headers_are_no_more_than_half_of_what_calls_may_cost() -> None:
    """A call with large headers counts for several."""
    async with serving(limits=Limits(streams=10)) as served, raw_client(served.address) as client:
        large = head("/test.Service/Echo", *[(f"x-{number}", "y" * 4000) for number in range(11)])
        assert (await client.call(large)).reset == ErrorCodes.REFUSED_STREAM
        for _ in range(20):  # what was taken is given back
            assert (await client.call(large[:-3])).status == 0


async def test_answers_that_nobody_reads() -> None:
    """To pings that come slowly enough to be no flood; there is an end to them all the same."""
    async with serving(limits=Limits(unread=1000)) as served, raw_client(served.address) as client:
        (protocol,) = served.server._connections
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # transports of sockets have it
        await _fill_the_socket(protocol._transport)
        client.send(PingFrame(0, opaque_data=bytes(8)).serialize() * 100)
        await served.server._connections.none()
        assert served.cut_offs == [CutOff.UNREAD]
        await _serves_others(served)


async def _fill_the_socket(transport: asyncio.Transport) -> None:
    """Write what means nothing, until no more is taken."""
    while not transport.get_write_buffer_size():
        transport.write((b"\x00\x40\x00\xfa" + bytes(5 + (1 << 14))) * 10)
        await asyncio.sleep(0)


# --- requests ---------------------------------------------------------------------------------------------


async def test_a_request_that_does_not_come() -> None:
    """Not all of it, in any case: the call ends, and others go on."""
    async with (
        serving(limits=Limits(request=0.05)) as served,
        raw_client(served.address) as client,
    ):
        for data in (b"", request()[:3], request()[:-1]):
            answer = await client.answer(client.open(data=data, end=False))
            assert answer.status == Status.DEADLINE_EXCEEDED.value
            assert answer.message == "the request did not come in time"
        await _lives_on(client)


async def test_what_comes_behind_a_request_is_dropped() -> None:
    """As it comes: it uses up no memory and no window, however long the call is open."""
    release, begun = asyncio.Event(), asyncio.Event()

    async def wait(stream: Stream) -> None:
        assert await stream.recv_message() is not None
        begun.set()
        await release.wait()
        await stream.send_message(LogsResponse())

    async with serving(wait) as served, raw_client(served.address) as client:
        number = client.open(head("/test.Service/Call"), data=request() + bytes(1000), end=False)
        await begun.wait()
        for _ in range(3 * (16 << 20) // (1 << 19)):
            for _ in range(32):
                client.h2.send_data(number, bytes(1 << 14))
            await client.ping()
            assert client.h2.local_flow_control_window(number) >= 1 << 19
        (protocol,) = served.server._connections
        assert protocol.processor.streams[number].buffer.unacked_size() == 0
        await _lives_on(client)
        release.set()
        assert (await client.answer(number)).status == 0


# --- floods -----------------------------------------------------------------------------------------------

OPEN = 1  # a stream that is open while others are flooded


def _resets(client: RawClient) -> bytes:
    number = client.h2.get_next_available_stream_id()
    client.h2.send_headers(number, head())
    client.h2.reset_stream(number)
    return client.h2.data_to_send()


@pytest.mark.parametrize(
    ("reason", "frame"),
    [
        (CutOff.PINGS, PingFrame(0, opaque_data=bytes(8))),
        (CutOff.SETTINGS, SettingsFrame(0)),
        (CutOff.EMPTY, DataFrame(OPEN)),
        (CutOff.EMPTY, DataFrame(OPEN, flags=["PADDED"], pad_length=9)),
        (CutOff.CONTROL, WindowUpdateFrame(0, window_increment=1)),
        (CutOff.CONTROL, WindowUpdateFrame(OPEN, window_increment=1)),
        (CutOff.CONTROL, PriorityFrame(OPEN)),
        (CutOff.CONTROL, PriorityFrame(99)),
    ],
    ids=str,
)
async def test_floods(reason: CutOff, frame: Frame) -> None:
    """Up to the limit all is well; one step further, and the peer is cut off."""
    burst = FLOODS[reason].burst
    async with serving() as served, raw_client(served.address) as client:
        assert client.open(end=False) == OPEN
        # the handshake and the answers to Echo count, too, or give some back
        client.send(frame.serialize() * (burst - 20))
        await client.ping()
        assert served.cut_offs == []
        client.send(frame.serialize() * burst)
        await _cut_off(served, client, ErrorCodes.ENHANCE_YOUR_CALM, reason)


async def test_rapid_reset() -> None:
    """Streams that are opened and reset at once; their handlers do not even begin (CVE-2023-44487)."""
    begun = 0

    async def count(stream: Stream) -> None:
        nonlocal begun
        begun += 1

    async with serving(count) as served, raw_client(served.address) as client:
        burst = FLOODS[CutOff.RESETS].burst
        client.send(b"".join(_resets(client) for _ in range(burst - 10)))
        await client.ping()
        assert served.cut_offs == []
        assert served.server.open_calls == 0
        (protocol,) = served.server._connections
        assert len(protocol.processor.streams) == 0
        client.send(b"".join(_resets(client) for _ in range(burst)))
        await _cut_off(served, client, ErrorCodes.ENHANCE_YOUR_CALM, CutOff.RESETS)
    assert begun == 0


async def test_resets_of_calls_that_have_begun() -> None:
    """The handler may have begun when the reset comes in the next read: nothing is left of it."""
    async with serving() as served, raw_client(served.address) as client:
        for _ in range(100):
            client.h2.reset_stream(client.open(end=False))
            client.flush()
            await asyncio.sleep(0)
        await client.ping()
        await served.server.drained()
        await _lives_on(client)


async def test_resets_of_calls_that_have_ended() -> None:
    """They say nothing that was not known: however many there are, they are no flood."""
    async with serving() as served, raw_client(served.address) as client:
        for _ in range(FLOODS[CutOff.RESETS].burst * 2):
            number = client.open()
            await client.answer(number)
            client.send(RstStreamFrame(number).serialize())
        await _lives_on(client)
    assert served.cut_offs == []


async def test_refused_streams_that_come_again_and_again() -> None:
    """Not heeding the limit is a flood, too."""
    async with (
        serving(limits=Limits(streams_per_connection=1)) as served,
        raw_client(served.address) as client,
    ):
        client.open(data=b"", end=False)
        client.h2.remote_settings.update({3: 10_000})
        client.h2.remote_settings.acknowledge()
        for _ in range(2 * FLOODS[CutOff.REFUSED].burst):
            client.open()
        await _cut_off(served, client, ErrorCodes.ENHANCE_YOUR_CALM, CutOff.REFUSED)


async def test_pings_of_a_reader_are_no_flood() -> None:
    """Clients ping after data to measure the bandwidth."""
    async with serving() as served, raw_client(served.address) as client:
        for _ in range(FLOODS[CutOff.PINGS].burst * 2):
            client.open()
            await client.ping()
        assert served.cut_offs == []


async def test_data_for_calls_that_have_ended() -> None:
    """What was on its way is dropped, and does not use up the connection's window."""
    async with serving(limits=Limits(message_size=1000)) as served, raw_client(served.address) as client:
        for _ in range(30):
            number = client.open(data=request("x" * 2000)[:1500], end=False)
            client.send(DataFrame(number, data=bytes(16_000)).serialize() * 60)
            assert (await client.answer(number)).status == Status.RESOURCE_EXHAUSTED.value
            await client.ping()
        await _lives_on(client)


# --- connections ------------------------------------------------------------------------------------------


async def test_a_silent_connection_is_closed() -> None:
    """One that never says what it wants, not even a preface."""
    async with serving(limits=Limits(handshake=0.05)) as served:
        async with raw_client(served.address, preface=False) as client:
            await client.until_closed()
        assert served.cut_offs == [CutOff.HANDSHAKE]
        await _serves_others(served)


async def test_a_connection_without_calls_is_left() -> None:
    """Its peer is told so, as when the server ends."""
    limits = Limits(idle=0.05, keepalive=0.05, keepalive_timeout=60)
    async with serving(limits=limits) as served:
        async with raw_client(served.address) as client:
            await _lives_on(client)
            await client.until_closed()
            assert client.goaway is not None
            assert client.goaway.error_code == ErrorCodes.NO_ERROR
        async with channel_to(served) as channel:
            await ask(channel, "Echo")
            await served.server._connections.none()
            await ask(channel, "Echo")  # over a new connection
    assert served.cut_offs == []


async def test_a_peer_without_calls_that_gives_no_sign_of_life() -> None:
    """Is gone, perhaps: its connection would take the place of another's."""
    limits = Limits(keepalive=0.05, keepalive_timeout=0.05)
    async with serving(limits=limits) as served, raw_client(served.address) as client:
        await _lives_on(client)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # transports of sockets have it
        await served.server._connections.none()
        assert served.cut_offs == [CutOff.SILENT]


async def test_an_idle_connection_is_fine() -> None:
    """After its preface a peer may say nothing for long, but live."""
    async with serving(limits=Limits(handshake=0.05)) as served, raw_client(served.address) as client:
        async with raw_client(served.address, preface=False) as silent:
            await silent.until_closed()  # by then the time is over for both
        await _lives_on(client)


async def test_more_connections_than_allowed() -> None:
    """Are closed at once if all have calls; when another has gone there is room again."""

    async def hang(_: Stream) -> None:
        await asyncio.Event().wait()

    async with serving(hang, limits=Limits(connections=1)) as served:
        async with raw_client(served.address) as client:
            client.open(head("/test.Service/Call"))
            await client.ping()
            async with raw_client(served.address, preface=False) as another:
                await another.until_closed()
            await _lives_on(client)
            assert served.cut_offs == [CutOff.CONNECTIONS]
            assert served.server.connections == 1
        await served.server._connections.none()
        await _serves_others(served)


async def test_the_longest_idle_connection_makes_room() -> None:
    """Its peer is told to leave, as when the server ends; those with calls, or with calls more recently, stay."""

    async def hang(_: Stream) -> None:
        await asyncio.Event().wait()

    async with (
        serving(hang, limits=Limits(connections=3)) as served,
        raw_client(served.address) as busy,
        raw_client(served.address) as recent,
        raw_client(served.address) as idle,
    ):
        busy.open(head("/test.Service/Call"))
        await busy.ping()
        await _lives_on(recent)
        async with raw_client(served.address) as another:
            await _lives_on(another)
            await idle.until_closed()
            assert idle.goaway is not None
            assert idle.goaway.error_code == ErrorCodes.NO_ERROR
            await busy.ping()
            await _lives_on(recent)
    assert served.cut_offs == [CutOff.ROOM]


async def test_a_peer_that_does_not_read_is_closed_all_the_same() -> None:
    """What is left for it is dropped some seconds later."""
    async with serving() as served, raw_client(served.address) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # transports of sockets have it
        for _ in range(5):
            client.send(PingFrame(0, opaque_data=bytes(8)).serialize() * 100)
            await asyncio.sleep(0)
        await served.server._connections.none()
        assert served.cut_offs == [CutOff.PINGS]
        assert not calm(client)  # nothing was read


async def test_a_bug_of_ours_ends_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody thought of is told as INTERNAL_ERROR."""
    async with serving() as served, raw_client(served.address) as client:
        (protocol,) = served.server._connections
        monkeypatch.setattr(protocol.connection, "feed", _broken)
        client.send(RstStreamFrame(1).serialize())
        await _cut_off(served, client, ErrorCodes.INTERNAL_ERROR, CutOff.PROTOCOL)


def _broken(_: bytes) -> list[Any]:
    raise KeyError("x")
