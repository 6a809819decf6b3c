"""Connections to other gRPC servers: grpclib's channels, set up for long and silent streams."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import grpclib.client
import grpclib.protocol
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol
from h2.errors import ErrorCodes

from imgbuilder.runtime.grpc.codec import CONTRACT, Codec, ProtoCodec

STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 64 << 20
"""Far larger than that of a stream: otherwise one that nobody reads would stall all others."""

FAREWELL = 1.0
"""Seconds that a server may take to say farewell (TLS has one) when its connection is closed."""


def open_channel(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    keepalive: float = 10.0,
    keepalive_timeout: float = 10.0,
    codec: Codec = CONTRACT,
) -> Channel:
    """A channel to a server; it connects when it is first used, and again when its connection was lost.

    Must be called where an event loop runs. Of all calls in flight when the server says GOAWAY, none survives; those
    that it has ended before have their answers and their status.

    :param tls: a context of the client's side; HTTP/2 must be among its ALPN protocols.
    :param server_name: whose certificate the server must show, instead of the host's.
    :param keepalive: seconds between two signs of life that the server is asked for, whether calls are open or
        not. Servers end connections that ask more often than they allow: grpc-go at most every 5 minutes unless
        told otherwise, the workspace manager every 10 seconds.
    :param keepalive_timeout: seconds after which a server that gives no sign of life is given up.
    """
    configuration = Configuration(
        _keepalive_time=keepalive,
        _keepalive_timeout=keepalive_timeout,
        _keepalive_permit_without_calls=True,
        # grpclib's defaults give up asking after two times, or do it every five minutes
        _http2_max_pings_without_data=0,
        _http2_min_sent_ping_interval_without_data=keepalive,
        http2_stream_window_size=STREAM_WINDOW,
        http2_connection_window_size=CONNECTION_WINDOW,
        ssl_target_name_override=server_name if tls is not None else None,
    )
    return _Channel(host, port, ssl=tls, config=configuration, codec=ProtoCodec(codec))


class _Stream(grpclib.protocol.Stream):
    """A call's stream: one that the server has ended can be read to its end, whatever happens to the connection."""

    _complete = False
    _sending = False

    async def send_data(self, data: bytes, end_stream: bool = False) -> None:
        self._sending = True
        try:
            await super().send_data(data, end_stream=end_stream)
        finally:
            self._sending = False

    async def reset(self, error_code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        if not self.connection.is_closing():
            await super().reset(error_code)

    def __ended__(self) -> None:
        self._complete = True
        super().__ended__()

    def __terminated__(self, reason: str) -> None:
        if self._sending or not self._complete:  # a sender would wait for a window forever
            super().__terminated__(reason)


class _Connection(grpclib.protocol.Connection):
    """A connection whose streams may be read after it was closed."""

    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> _Stream:
        return _Stream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)

    def ack(self, stream_id: int, size: int) -> None:
        if not self.is_closing():
            super().ack(stream_id, size)


class _Protocol(H2Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection.__class__ = _Connection  # which has the same state; grpclib lets nobody choose it


class _Channel(Channel):
    """grpclib's channel, which does not wait for the farewell of a server that is dead or gone."""

    def _protocol_factory(self) -> H2Protocol:
        return _Protocol(grpclib.client.Handler(), self._config, self._h2_config)

    async def _create_connection(self) -> H2Protocol:
        _, protocol = await self._loop.create_connection(
            self._protocol_factory,
            self._host,
            self._port,
            ssl=self._ssl,
            server_hostname=self._config.ssl_target_name_override if self._ssl is not None else None,
            # the default is 30 seconds, in which calls would go on waiting
            ssl_shutdown_timeout=FAREWELL if self._ssl is not None else None,
        )
        if protocol.handler.connection_lost:  # type: ignore[attr-defined]  # grpclib's handler of channels
            raise ConnectionResetError("the connection was closed as soon as it was made")
        return protocol
