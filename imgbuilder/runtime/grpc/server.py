"""The gRPC server: listens, limits, serves, and leaves in stages.

A stage each for `Server.drain` (take no new connections and calls, and say so), `Server.drained` (wait until
the open calls have ended by themselves) and `Server.stop` (end what is left). Built on grpclib's protocol,
whose internals it knows: where the libraries are not the ones it was written for, it warns and serves as grpclib does,
without limits.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Final, Self

import anyio
import grpclib.config
import grpclib.server
import structlog
from grpclib.encoding.base import CodecBase

from imgbuilder.runtime.grpc import internals
from imgbuilder.runtime.grpc.addresses import Address, bound_address, listening_socket, parse_address
from imgbuilder.runtime.grpc.calls import Calls, CallServer
from imgbuilder.runtime.grpc.callstream import Receiving
from imgbuilder.runtime.grpc.codec import REQUESTS, ProtoCodec
from imgbuilder.runtime.grpc.interceptors import Intercepted, Interceptor, Service
from imgbuilder.runtime.grpc.limits import CutOff, Limits
from imgbuilder.runtime.grpc.protocol import Hooks, Protocol

log = structlog.get_logger(__name__)

STOPPING: Final = 5.0
"""Seconds that handlers may take to clean up when they are cancelled."""


class Server:
    """Serves *services* on one address. Must be made where an event loop runs; use as an async context manager.

    :param interceptors: are called around each call, the first outermost.
    :param on_cut_off: is told when a connection was ended because of what its peer did.
    """

    def __init__(
        self,
        services: Collection[Service],
        *,
        limits: Limits | None = None,
        interceptors: Sequence[Interceptor] = (),
        on_cut_off: Callable[[CutOff], None] | None = None,
        codec: CodecBase | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._services = Intercepted(services, interceptors)
        self._codec = codec or ProtoCodec(REQUESTS)
        self._on_cut_off = on_cut_off
        self._config = grpclib.config.Configuration(
            _keepalive_time=self._limits.keepalive,
            _keepalive_timeout=self._limits.keepalive_timeout,
            _http2_max_pings_without_data=0,
            _http2_min_sent_ping_interval_without_data=self._limits.keepalive / 2,
        ).__for_server__()
        receiving = Receiving(message_size=self._limits.message_size, total=self._limits.receiving)
        self._calls = CallServer(self._services.__mapping__(), self._codec, receiving)
        self._protocols: set[Protocol] = set()
        self._none_connected = anyio.Event()
        self._none_connected.set()
        self._hooks = Hooks(opened=self._opened, lost=self._lost, cut_off=self._cut_off)
        self._listening: asyncio.Server | None = None
        self._leaving = False
        self._address: Address | None = None
        self._stock: grpclib.server.Server | None = None

    async def listen(self, address: str, *, tls: ssl.SSLContext | None = None) -> Address:
        """Begin to serve on *address* (``host:port``, ``:port``, port 0 for any), and tell where that is.

        :param tls: a context of the server's side; HTTP/2 must be among its ALPN protocols.
        :raises InvalidAddressError: if it is no address.
        :raises OSError: if it can't be listened on.
        """
        listener = await anyio.to_thread.run_sync(listening_socket, parse_address(address))
        self._address = bound_address(listener)
        faults = internals.faults()
        if faults:
            log.warning("serving without limits: the gRPC libraries are not as expected", faults=faults)
            self._stock = grpclib.server.Server([self._services], codec=self._codec, config=self._config)
            await self._stock.start(sock=listener, ssl=tls)
        else:
            self._listening = await asyncio.get_running_loop().create_server(
                self._protocol,
                sock=listener,
                ssl=tls,
                ssl_handshake_timeout=self._limits.handshake if tls else None,
            )
        return self._address

    @property
    def address(self) -> Address:
        """Where the server listens, or did."""
        if self._address is None:
            raise RuntimeError("the server does not listen yet")
        return self._address

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._protocols)

    @property
    def open_calls(self) -> int:
        """How many calls have not ended."""
        return self._calls.open

    def drain(self) -> None:
        """Take no new connections and no new calls, and tell all peers so; open calls go on."""
        self._close_listener()
        for protocol in tuple(self._protocols):
            protocol.leave()

    async def drained(self) -> None:
        """Wait until no call is open. Bound it by a deadline: a call may stay open for as long as it likes."""
        await self._calls.none_open.wait()

    async def stop(self) -> None:
        """End all calls, with UNAVAILABLE where they can be told, and all connections. Never takes long."""
        self._close_listener()
        if self._stock is not None:
            self._stock.close()
            await self._stock.wait_closed()
        tasks = [task for protocol in self._protocols for task in protocol.calls.tasks]
        for protocol in self._protocols:
            protocol.refuse()
            protocol.calls.close()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=STOPPING)
            if pending:
                log.warning("calls did not end when they were cancelled", calls=len(pending))
        # Only now GOAWAY: some clients, grpclib's too, drop what they wait for when they see it.
        for protocol in tuple(self._protocols):
            protocol.leave()
            protocol.close()
        with anyio.move_on_after(STOPPING):
            await self._none_connected.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _close_listener(self) -> None:
        self._leaving = True
        if self._listening is not None:
            self._listening.close()

    def _protocol(self) -> Protocol:
        return Protocol(Calls(self._calls), self._config, self._limits, self._hooks)

    def _opened(self, protocol: Protocol) -> bool:
        if len(self._protocols) >= self._limits.connections:
            return False
        if not self._protocols:
            self._none_connected = anyio.Event()
        self._protocols.add(protocol)
        if self._leaving:
            # it was accepted before the listener was closed, and had to shake hands
            asyncio.get_running_loop().call_soon(protocol.leave)
        return True

    def _lost(self, protocol: Protocol) -> None:
        self._protocols.discard(protocol)
        if not self._protocols:
            self._none_connected.set()

    def _cut_off(self, reason: CutOff) -> None:
        log.warning("a connection was cut off", reason=reason.value)
        if self._on_cut_off is not None:
            self._on_cut_off(reason)
