"""Channels: over TLS, and with an eye on servers that have gone silent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from hyperframe.frame import Frame, PingFrame

from imgbuilder.pb.builder import LogsRequest, LogsResponse
from imgbuilder.runtime.grpc.addresses import Address
from imgbuilder.runtime.grpc.channel import open_channel
from imgbuilder.runtime.grpc.limits import Limits
from tests.unit.grpc.raw import head, raw_client
from tests.unit.grpc.serving import STREAMING, Stream, ask, call, channel_to, serving


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Whom both sides trust."""
    return trustme.CA()


def _server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2"])
    authority.issue_cert(*names).configure_cert(context)
    return context


def _client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    authority.configure_trust(context)
    return context


async def test_tls(authority: trustme.CA) -> None:
    """To a server that is named as it is reached, with messages larger than TLS records."""
    tls = _server_context(authority, "127.0.0.1")
    async with serving(tls=tls) as served, channel_to(served, tls=_client_context(authority)) as channel:
        assert (await ask(channel, "Echo", ref="x" * 300_000)).content == b"x" * 300_000
    assert served.cut_offs == []


async def test_the_servers_name_may_be_another(authority: trustme.CA) -> None:
    """As the workspace manager's is; a server that is not called so is refused."""
    tls, trusting = _server_context(authority, "ws-manager"), _client_context(authority)
    async with serving(tls=tls) as served:
        async with channel_to(served, tls=trusting, server_name="ws-manager") as channel:
            assert (await ask(channel, "Echo", ref="hi")).content == b"hi"
        async with channel_to(served, tls=trusting) as channel:
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(channel, "Echo")


async def test_a_handshake_that_never_comes(authority: trustme.CA) -> None:
    """A client that connects to a TLS port and says nothing is closed."""
    limits = Limits(handshake=0.05)
    async with (
        serving(tls=_server_context(authority, "127.0.0.1"), limits=limits) as served,
        raw_client(served.address, preface=False) as client,
    ):
        await client.until_closed()
        assert served.server.connections == 0


@asynccontextmanager
async def _black_hole() -> AsyncIterator[tuple[Address, asyncio.Event]]:
    """A server that accepts connections, and tells when it has read something; it never answers."""
    heard = asyncio.Event()
    gone = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            heard.set()
        writer.close()
        gone.set()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1]), heard
        await gone.wait()


async def test_a_server_that_gives_no_sign_of_life() -> None:
    """Its calls fail after the keepalive time and its timeout, however long they may take."""
    async with _black_hole() as (address, heard):
        channel = open_channel(address.host, address.port, keepalive=0.05, keepalive_timeout=0.05)
        with pytest.raises(StreamTerminatedError):
            await ask(channel)
        assert heard.is_set()
        channel.close()


async def test_keepalive_does_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lives answers it, also when no calls are open."""
    pinged = asyncio.Event()

    def note(frame: Frame) -> None:
        if isinstance(frame, PingFrame):
            pinged.set()

    async with serving() as served, channel_to(served, keepalive=0.02, keepalive_timeout=5) as channel:
        await ask(channel, "Echo")
        (protocol,) = served.server._connections
        monkeypatch.setattr(protocol._h2._guard, "received", note)
        await pinged.wait()
        assert (await ask(channel, "Echo", ref="still")).content == b"still"
    assert served.cut_offs == []


async def test_the_server_asks_for_signs_of_life_too() -> None:
    """A caller that is gone without a word would keep its calls open for ever."""

    async def hang(_: Stream) -> None:
        await asyncio.Event().wait()

    limits = Limits(keepalive=0.05, keepalive_timeout=0.05)
    async with serving(hang, limits=limits) as served, raw_client(served.address) as client:
        client.open(head("/test.Service/Call"))
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # transports of sockets have it
        await served.server._connections.none()
        await served.server.drained()


async def test_what_the_server_has_ended_can_be_read_to_its_end() -> None:
    """Also if the end of the connection came with it: the last messages, and then the status."""
    begun = asyncio.Event()

    async def stream_until_stopped(stream: Stream) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            for number in range(5):
                await stream.send_message(LogsResponse(content=b"%d" % number))

    async with (
        serving(stream_until_stopped, STREAMING) as served,
        channel_to(served) as channel,
        call(channel, cardinality=STREAMING) as stream,
    ):
        await stream.send_message(LogsRequest(), end=True)
        await begun.wait()
        await served.server.stop()
        await _closed(channel)
        contents = [(await stream.recv_message()).content for _ in range(5)]
        assert contents == [b"0", b"1", b"2", b"3", b"4"]
        assert await stream.recv_message() is None
        with pytest.raises(GRPCError) as caught:
            await stream.recv_trailing_metadata()
        assert caught.value.status is Status.UNAVAILABLE
        await stream.cancel()  # as it is on its way out of a block


async def _closed(channel: Channel) -> None:
    """Wait until the channel has heard that its connection is closed."""
    async with asyncio.timeout(10):
        while channel._connected:  # noqa: ASYNC110  # grpclib tells nobody
            await asyncio.sleep(0)
